"""Base against adapter on the same queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning._arrays import Ints
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.tuned_parts import warn_of_learnt
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import DEFAULT_KS, RetrievalScores, evaluate_vectors
from llama_index.tuning.report import Gain
from llama_index.tuning.text.passages import copies_in, with_copies
from llama_index.tuning.text.words import normalise
from llama_index.tuning.vectors.embedder import Embedder, document_vectors

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index.tuning.embeddings.adapter.saved import Adapter


def measure_adapter(
    dataset: RetrievalDataset,
    embed_model: BaseEmbedding,
    adapter: Adapter | None = None,
    *,
    vectors: Any = None,
    vector_cache: str | PathLike[str] | None = None,
    ks: Sequence[int] = DEFAULT_KS,
    num_workers: int = 1,
    show_progress: bool = False,
) -> tuple[dict[str, RetrievalScores], dict[str, Gain]]:
    """Scores by name (`base`, and `tuned` with an adapter) and the gains with their intervals.

    Each text is embedded once, whatever is measured. `vectors` as in the engine. A warning says if
    the adapter has learnt some of the queries.
    """
    embedder = Embedder(
        embed_model, cache=vector_cache, num_workers=num_workers, show_progress=show_progress
    )
    documents = document_vectors(dataset.corpus, vectors, embedder)
    queries = embedder.queries(list(dataset.queries.values()))
    positives = positive_rows(dataset)
    ids = list(dataset.queries)
    scores = {"base": evaluate_vectors(queries, documents, positives, query_ids=ids, ks=ks)}
    if adapter is None:
        return scores, {}
    warn_of_learnt(adapter, dataset.queries.values())
    scores["tuned"] = evaluate_vectors(
        adapter.map_queries(queries),
        documents,
        positives,
        query_ids=ids,
        ks=ks,
        map_documents=adapter.map_documents if adapter.side == "both" else None,
    )
    return scores, gains(scores["base"], scores["tuned"], dataset)


def gains(
    base: RetrievalScores, tuned: RetrievalScores, dataset: RetrievalDataset, seed: int = 0
) -> dict[str, Gain]:
    """Each metric's paired gain; a question that came up again says nothing new."""
    asked = [normalise(dataset.queries[id_]) for id_ in base.query_ids]
    return {
        name: paired_gain(values, tuned.values[name], groups=asked, seed=seed)
        for name, values in base.values.items()
    }


def positive_rows(dataset: RetrievalDataset, rows: Mapping[str, int] | None = None) -> list[Ints]:
    """For each query the rows of its relevant documents: in the corpus, or as `rows` says.

    Documents of the same text are all relevant, whichever of them the labels name.
    """
    if rows is None:
        rows = {id_: row for row, id_ in enumerate(dataset.corpus)}
    copies = copies_in(dataset.corpus)
    return [
        np.array([rows[doc] for doc in with_copies(docs, copies)], dtype=np.int64)
        for docs in (dataset.relevant_docs[id_] for id_ in dataset.queries)
    ]
