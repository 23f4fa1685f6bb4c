"""Which queries teach, which decide, which are measured."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets._validation import normalise
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.embeddings.problem import Data
from llama_index.tuning.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Parts:
    """Queries for each purpose; no query text is in two of them.

    Attributes:
        teach: trained on.
        sentences: of unlabelled documents; trained on too.
        decide: choose the checkpoint and the merge.
        measured: what the report is about.
        method: how the report's queries came about.
        notes: what the report should say about the split.
    """

    teach: RetrievalDataset
    sentences: RetrievalDataset | None
    decide: RetrievalDataset
    measured: RetrievalDataset
    method: str
    notes: list[str]


def split(data: Data, options: SentenceTransformersOptions) -> Parts:
    """Cut the labelled queries (sentences, where there are none) into parts."""
    source = data.labelled or data.sentences
    assert source is not None
    by, notes = _unit(source)
    share = options.held_out
    teach, decide = source.split(share, by=by, seed=options.seed)
    if data.validation is not None:
        measured, method = data.validation, "validation set"
    else:
        method = f"held-out queries, apart by {by}"
        teach, measured = teach.split(2 * share / (1 - share), by=by, seed=options.seed + 1)
    sentences = data.sentences if data.labelled is not None else None
    if data.labelled is None and data.validation is None:
        notes.append(
            "measured on sentences of the documents, which stand in for questions: "
            "pass a few real questions as val_dataset to know the gain on questions"
        )
    return Parts(teach, _without(sentences, decide, measured), decide, measured, method, notes)


def deciding_corpus(decide: RetrievalDataset, limit: int, seed: int) -> RetrievalDataset:
    """The deciding queries over their relevant documents and random others, `limit` in all."""
    needed = {doc for docs in decide.relevant_docs.values() for doc in docs}
    others = [id_ for id_ in decide.corpus if id_ not in needed]
    drawn = random.Random(seed).sample(others, min(len(others), max(0, limit - len(needed))))
    kept = needed | set(drawn)
    corpus = {id_: text for id_, text in decide.corpus.items() if id_ in kept}
    return RetrievalDataset(decide.queries, corpus, decide.relevant_docs)


def _unit(dataset: RetrievalDataset) -> tuple[Literal["query", "document"], list[str]]:
    """Documents should not be on two sides; where nearly all hang together, queries must do."""
    largest = max(len(group) for group in dataset.groups(by="document"))
    if largest <= 0.5 * len(dataset):
        return "document", []
    if len(dataset.groups(by="query")) < 3:
        raise DatasetError(
            "the dataset has fewer than 3 different queries; nothing can be held out"
        )
    return "query", [
        "the queries share so many relevant documents that they could not be held out by "
        "document: the report is about documents that were seen in training"
    ]


def _without(
    sentences: RetrievalDataset | None, *held_out: RetrievalDataset
) -> RetrievalDataset | None:
    """The sentences that are no held-out query word for word."""
    if sentences is None:
        return None
    known = {normalise(text) for part in held_out for text in part.queries.values()}
    return sentences.subset(
        [id_ for id_, text in sentences.queries.items() if normalise(text) not in known]
    )
