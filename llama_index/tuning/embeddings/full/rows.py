"""Training rows in the shape that a loss wants, and which of them may share a batch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets._validation import normalise
from llama_index.tuning.datasets.relevance import RelevanceDataset, RelevanceList
from llama_index.tuning.errors import DatasetError

ANCHOR = "anchor"


@dataclass
class Rows:
    """Columns of text (and `label`, where scores are learnt), row by row.

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
        count: negatives in a row; where too few were found, random documents fill it.
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
