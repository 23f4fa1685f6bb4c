"""Base against tuned on the measured queries, and what the change costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.adapter.measure import gains, positive_rows
from llama_index.tuning.embeddings.adapter.run import REPORTED, SEEN, UNSEEN
from llama_index.tuning.embeddings.full.settings import Prompts
from llama_index.tuning.evaluate.retrieval import RetrievalScores, evaluate_vectors
from llama_index.tuning.report import Gains, QueryGain


@dataclass(frozen=True, eq=False)
class Vectors:
    """The measured queries and their corpus, as one model embeds them; unit length.

    Attributes:
        queries: shape `(n, dim)`.
        documents: shape `(N, dim)`.
    """

    queries: Float32
    documents: Float32

    def cut(self, dim: int) -> Vectors:
        """The first dimensions; the search scales them to unit length again."""
        return Vectors(self.queries[:, :dim], self.documents[:, :dim])

    def scores(self, dataset: RetrievalDataset) -> RetrievalScores:
        """Metrics of exact cosine search."""
        found = evaluate_vectors(
            self.queries, self.documents, positive_rows(dataset), query_ids=list(dataset.queries)
        )
        return found.only(REPORTED)


@dataclass(frozen=True, eq=False)
class Measured:
    """Gains over all queries and of slices of them, the slices that must not lose, and the queries
    that changed most.
    """

    gains: Gains
    slices: dict[str, Gains]
    guards: list[str]
    queries: list[QueryGain]


def compare(
    base: Vectors,
    tuned: Vectors,
    dataset: RetrievalDataset,
    taught: set[str],
    *,
    dims: Sequence[int],
    seed: int,
) -> Measured:
    """Paired gains, on documents with and without training queries apart, and by dimension.

    Args:
        base: vectors of the base.
        tuned: vectors of the tuned model.
        dataset: the measured queries.
        taught: ids of documents that training queries are about.
        dims: numbers of leading dimensions to measure by themselves.
        seed: of the bootstrap.
    """
    before, after = base.scores(dataset), tuned.scores(dataset)
    overall = gains(before, after, dataset, seed)
    seen = np.array(
        [not taught.isdisjoint(dataset.relevant_docs[id_]) for id_ in dataset.queries], dtype=bool
    )
    slices: dict[str, Gains] = {}
    if seen.any() and not seen.all():
        for name, rows in ((SEEN, np.flatnonzero(seen)), (UNSEEN, np.flatnonzero(~seen))):
            slices[name] = gains(before.take(rows), after.take(rows), dataset, seed)
    guards = list(slices)
    for dim in dims:
        if dim < tuned.documents.shape[1]:
            cut = (base.cut(dim).scores(dataset), tuned.cut(dim).scores(dataset))
            slices[f"first {dim} dimensions"] = gains(*cut, dataset, seed)
    return Measured(overall, slices, guards, before.changed(after, "ndcg@10", dataset))


def costs(model: Any, trained: int, seconds_per_1000: float) -> dict[str, Any]:
    """What the user pays: index, size, dimension, speed."""
    parameters = list(model.parameters())
    return {
        "documents_must_be_embedded_again": True,
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": trained,
        "megabytes": round(sum(p.numel() * p.element_size() for p in parameters) / 1e6, 1),
        "dimension": int(model.get_embedding_dimension()),
        "seconds_per_1000_texts": round(seconds_per_1000, 2),
    }


def cost_notes(found: dict[str, Any], prompts: Prompts) -> list[str]:
    """The same in sentences."""
    notes = [
        "every stored document must be embedded again by the tuned model: about "
        f"{found['seconds_per_1000_texts']:.3g} s for 1,000 texts of this kind on this machine",
        f"size and speed are the base's: {found['megabytes']:.0f} MB, "
        f"{found['dimension']} dimensions",
    ]
    if prompts.query or prompts.document:
        notes.append(
            f"trained with prompts (query {prompts.query!r}, document {prompts.document!r}): "
            "get_finetuned_model() sets them; HuggingFaceEmbedding(folder) alone, and so "
            "'local:…', needs query_instruction= and text_instruction="
        )
    return notes
