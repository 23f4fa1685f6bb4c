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

Refit = Literal["never", "before measuring", "after accepting"]


@dataclass(frozen=True, eq=False)
class Lessons:
    """What one training learns from.

    Attributes:
        queries: labelled, or the sentences where there are no labels.
        sentences: of unlabelled documents, beside labelled queries.
        unseen: queries that it must not learn.
    """

    queries: RetrievalDataset
    sentences: RetrievalDataset | None
    unseen: tuple[RetrievalDataset, ...]

    @property
    def datasets(self) -> list[RetrievalDataset]:
        """Queries, and sentences where there are some."""
        return [part for part in (self.queries, self.sentences) if part is not None]

    @property
    def documents(self) -> set[str]:
        """Ids of the documents that the queries are about."""
        return {doc for docs in self.queries.relevant_docs.values() for doc in docs}


@dataclass(frozen=True, eq=False)
class Parts:
    """Queries for each purpose; no query text is in two of `teach`, `decide` and `measured`.

    Attributes:
        teach: trained on.
        sentences: of unlabelled documents; trained on too.
        decide: choose the checkpoint and the merge.
        measured: what the report is about.
        method: how the report's queries came about.
        notes: what the report should say about the split.
        everything: what a refit learns from: all but a validation set.
        refit: when there is one. A validation set can measure the refitted model itself; without
            it, what is measured must be the model that has not seen the measured queries.
    """

    teach: RetrievalDataset
    sentences: RetrievalDataset | None
    decide: RetrievalDataset
    measured: RetrievalDataset
    method: str
    notes: list[str]
    everything: Lessons
    refit: Refit

    @property
    def first(self) -> Lessons:
        """What the training learns from whose checkpoints are decided on."""
        return Lessons(self.teach, self.sentences, (self.decide, self.measured))


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
    validation = () if data.validation is None else (data.validation,)
    return Parts(
        teach,
        _without(sentences, decide, measured),
        decide,
        measured,
        method,
        notes,
        Lessons(source, _without(sentences, *validation), validation),
        _refit(options, validated=data.validation is not None),
    )


def _refit(options: SentenceTransformersOptions, *, validated: bool) -> Refit:
    if options.refit is False or (options.refit is None and validated):
        return "never"
    return "before measuring" if validated else "after accepting"


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
