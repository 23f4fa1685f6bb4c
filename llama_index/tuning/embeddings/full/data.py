"""Which queries teach, decide and are measured; and training rows in the shape a loss wants."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.records import RelevanceList
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.embeddings.adapter.data import STAND_INS, Data
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.embeddings.full.settings import Settings, loss_name
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.passages import copies_in, copies_notes, first_copies
from llama_index.tuning.text.words import normalise

DECIDING_DOCUMENTS = 250
"""Documents that the deciding queries search: the relevant ones and random others."""

Refit = Literal["never", "before measuring", "after accepting"]


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """What one training learns from.

    Attributes:
        queries: labelled, or the sentences if there are no labels.
        sentences: of unlabelled documents, beside labelled queries.
        unseen: queries that it must not learn.
    """

    queries: RetrievalDataset
    sentences: RetrievalDataset | None
    unseen: tuple[RetrievalDataset, ...]

    @property
    def datasets(self) -> list[RetrievalDataset]:
        """Queries, and sentences if there are some."""
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
        measured_on: what they are, if they are no questions.
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
    measured_on: str
    notes: list[str]
    everything: TrainingPairs
    refit: Refit

    @property
    def first(self) -> TrainingPairs:
        """What the training learns from whose checkpoints are decided on."""
        return TrainingPairs(self.teach, self.sentences, (self.decide, self.measured))


def split(data: Data, options: SentenceTransformersOptions) -> Parts:
    """Cut the labelled queries (sentences, if there are none) into parts."""
    given = data.labelled or data.sentences
    assert given is not None
    source = _by_first_copy(given)
    by, notes = _unit(source)
    notes += copies_notes(copies_in(data.measured.corpus))
    share = options.held_out
    teach, decide = source.split(share, by=by, seed=options.seed)
    if data.validation is not None:
        measured, method = data.validation, "validation set"
    else:
        method = f"held-out queries, apart by {by}"
        teach, measured = teach.split(2 * share / (1 - share), by=by, seed=options.seed + 1)
    sentences = data.sentences if data.labelled is not None else None
    if data.measured_on:
        notes.append(
            f"measured on {STAND_INS}: pass a few real questions as val_dataset to know the gain "
            "on questions"
        )
    validation = () if data.validation is None else (data.validation,)
    return Parts(
        teach,
        _without(sentences, decide, measured),
        decide,
        measured,
        method,
        data.measured_on,
        notes,
        TrainingPairs(source, _without(sentences, *validation), validation),
        _refit(options, validated=data.validation is not None),
    )


def _by_first_copy(dataset: RetrievalDataset) -> RetrievalDataset:
    """The dataset with each text under its first id alone, so that no text is in two parts."""
    copies = copies_in(dataset.corpus)
    if not copies:
        return dataset
    relevant = {id_: first_copies(docs, copies) for id_, docs in dataset.relevant_docs.items()}
    return RetrievalDataset(dataset.queries, dataset.corpus, relevant, dataset.mode)


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
    """Documents should not be on two sides; if nearly all hang together, queries must do."""
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


ANCHOR = "anchor"


@dataclass
class Rows:
    """Columns of text (and `label`, if scores are learnt), row by row.

    Attributes:
        columns: name → one value for each row; the query's column is `"anchor"`, all others but
            `"label"` are documents.
        shown: for each row, keys of the documents in it.
        barred: for each row, keys of what must not be in another row of its batch: the documents
            that are relevant to its query, and the query itself. Nothing in scored rows, whose
            losses take no other row's document for a negative.
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)
    shown: list[frozenset[bytes]] = field(default_factory=list)
    barred: list[frozenset[bytes]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.shown)

    def add(self, relevant: Sequence[str], documents: Sequence[str], **values: str) -> None:
        """One row: its column values, the documents in it and those relevant to its query."""
        query = _key(values[ANCHOR])
        self._append(values)
        self.shown.append(frozenset(map(_key, documents)) | {query})
        self.barred.append(frozenset(map(_key, relevant)) | {query})

    def add_scored(self, **values: Any) -> None:
        """One row with its `label`."""
        self._append(values)
        self.shown.append(frozenset())
        self.barred.append(frozenset())

    def _append(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)


def pair_rows(
    parts: Sequence[RetrievalDataset],
    negatives: Mapping[str, Sequence[str]],
    count: int,
    *,
    all_docs: bool,
    seed: int,
) -> Rows:
    """(anchor, positive, negative_1, …): one row for each query and relevant document.

    Args:
        parts: the datasets; sentences of unlabelled documents among them.
        negatives: query id → hard negatives' ids, hardest first.
        count: negatives in a row; if too few were found, random documents fill it.
        all_docs: each relevant document is a row, not the first alone.
        seed: of that draw.
    """
    draw = random.Random(seed)
    rows = Rows()
    for part in parts:
        ids = list(part.corpus)
        for id_, query in part.queries.items():
            relevant = [part.corpus[doc] for doc in part.relevant_docs[id_]]
            own = set(part.relevant_docs[id_])
            if count and len(own) == len(ids):
                raise DatasetError(f"query {id_!r} has no negative: every document is relevant")
            for positive in relevant if all_docs else relevant[:1]:
                found = [doc for doc in negatives.get(id_, ()) if doc in part.corpus][:count]
                while len(found) < count:
                    found += [doc for doc in draw.choices(ids, k=count) if doc not in own]
                texts = [part.corpus[doc] for doc in found[:count]]
                named = {f"negative_{i}": text for i, text in enumerate(texts, 1)}
                rows.add(
                    relevant, [positive, *texts], **{ANCHOR: query, "positive": positive}, **named
                )
    return rows


def scored_pairs(lists: Sequence[RelevanceList]) -> Rows:
    """(anchor, document, label): what CoSENT learns from. Labels as in all scored rows: 0 to 1."""
    scaled, rows = _scale(lists), Rows()
    for item in lists:
        for candidate in item.candidates:
            rows.add_scored(
                anchor=item.query, document=candidate.text, label=scaled(candidate.score)
            )
    return rows


def binary_rows(pairs: Rows) -> Rows:
    """(anchor, document, 1 or 0) of rows with negatives: scored pairs without a teacher."""
    rows = Rows()
    names = [name for name in pairs.columns if name != ANCHOR]
    for number, query in enumerate(pairs.columns[ANCHOR]):
        for name in names:
            label = 1.0 if name == "positive" else 0.0
            rows.add_scored(
                **{ANCHOR: query, "document": pairs.columns[name][number], "label": label}
            )
    return rows


def margin_rows(lists: Sequence[RelevanceList]) -> Rows:
    """(anchor, best, other, margin of their scores): MarginMSE (Hofstätter et al. 2020)."""
    scaled, rows = _scale(lists), Rows()
    for item in lists:
        best = max(item.candidates, key=lambda candidate: candidate.score)
        for other in item.candidates:
            if other.score < best.score:
                margin = scaled(best.score) - scaled(other.score)
                rows.add_scored(
                    anchor=item.query, document=best.text, other=other.text, label=margin
                )
    return rows


def list_rows(lists: Sequence[RelevanceList]) -> Rows:
    """(anchor, document_1, …, scores): every query's list, cut to the shortest of them."""
    scaled, rows = _scale(lists), Rows()
    width = min(len(item.candidates) for item in lists)
    for item in lists:
        ranked = sorted(item.candidates, key=lambda candidate: -candidate.score)
        # The best, and the rest spread over the list: a cut list should keep its contrast.
        kept = [ranked[round(i * (len(ranked) - 1) / max(1, width - 1))] for i in range(width)]
        named = {f"document_{i}": candidate.text for i, candidate in enumerate(kept, 1)}
        rows.add_scored(anchor=item.query, **named, label=[scaled(c.score) for c in kept])
    return rows


def teaching_lists(
    scores: RelevanceDataset, teach: RetrievalDataset, held_out: Sequence[RetrievalDataset]
) -> list[RelevanceList]:
    """The scored lists with something to learn, none of whose queries is held out.

    Raises:
        DatasetError: there are none, or they are not about the training queries.
    """
    known = {normalise(text) for part in held_out for text in part.queries.values()}
    taught = {normalise(text) for text in teach.queries.values()}
    lists = [item for item in scores.trainable() if normalise(item.query) not in known]
    if not any(normalise(item.query) in taught for item in lists):
        raise DatasetError(
            "scores holds no list of a training query with two different scores; its queries "
            "must be the dataset's, word for word"
        )
    return lists


def _scale(lists: Sequence[RelevanceList]) -> Callable[[float], float]:
    """Any teacher's scores, logits or shares, to 0 to 1: they are followed by cosines."""
    scores = [candidate.score for item in lists for candidate in item.candidates]
    low, high = min(scores), max(scores)
    return lambda score: (score - low) / (high - low)


def _key(text: str) -> bytes:
    return hashlib.blake2b(normalise(text).encode(), digest_size=12).digest()


Negatives = Mapping[str, Sequence[str]]

_FROM_SCORES = {"MarginMSELoss": margin_rows, "DistillKLDivLoss": list_rows}


def training_rows(
    lessons: TrainingPairs, settings: Settings, mine: Callable[[RetrievalDataset], Negatives]
) -> Rows:
    """Rows as the loss wants them.

    Args:
        lessons: what is learnt.
        settings: of the run.
        mine: finds hard negatives of queries, if the dataset brought none.

    Raises:
        DatasetError: they do not fill a batch.
    """
    name, count = loss_name(settings.loss), settings.hard_negatives
    if settings.scores is not None:
        lists = teaching_lists(settings.scores, lessons.queries, lessons.unseen)
        rows = _FROM_SCORES.get(name, scored_pairs)(lists)
    else:
        rows = pair_rows(
            lessons.datasets,
            _negatives(lessons.queries, settings, mine) if count else {},
            count,
            all_docs=settings.use_all_docs,
            seed=settings.options.seed,
        )
        rows = binary_rows(rows) if name == "CoSENTLoss" else rows
    if len(rows) < settings.schedule.batch_size:
        raise DatasetError(
            f"batch_size is {settings.schedule.batch_size}, but only {len(rows)} training "
            "pairs are left beside those that decide and measure; choose a smaller one, "
            "or add data"
        )
    return rows


def _negatives(
    queries: RetrievalDataset, settings: Settings, mine: Callable[[RetrievalDataset], Negatives]
) -> Negatives:
    return mine(queries) if settings.negatives is None else settings.negatives
