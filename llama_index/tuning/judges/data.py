"""A dataset of verdicts, checked and as arrays.

What the statistics need to know of judged items: keys, clusters, labels, plain features.

Judged items as a cross-encoder reads them: long ones in several windows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.records import NO_VERDICT, TIE
from llama_index.tuning.text.segmentation import sentences
from llama_index.tuning.text.words import normalise

HUMAN = "human"
MIN_VERDICTS = 10
MIN_OF_A_KIND = 3
_ARRAYS = ("labels", "scores", "weights", "clusters", "people")


@dataclass(frozen=True, eq=False)
class JudgeData:
    """Verdicts as arrays, a row for each.

    Attributes:
        items: the judgments.
        labels: 1 for pass (or the first is better), 0 for fail, 0.5 for a tie, shape `(n,)`.
        scores: the verdicts as numbers on their own scale, NaN where they are none, shape `(n,)`.
        weights: shape `(n,)`.
        clusters: a number for each query, shape `(n,)`.
        keys: a hash of each item, whoever judged it.
        people: whether a person judged, shape `(n,)`.
        pairwise: whether the items have a second response.
        query: whether they have a query.
        contexts: whether they have contexts.
        reference: whether they have a right answer.
        silent: keys of the items on which a teacher was asked and gave no verdict.
    """

    items: Sequence[Judgment]
    labels: Float64
    scores: Float64
    weights: Float64
    clusters: Ints
    keys: list[str]
    people: NDArray[np.bool_]
    pairwise: bool
    query: bool
    contexts: bool
    reference: bool
    silent: frozenset[str] = frozenset()

    def __getitem__(self, rows: NDArray[np.int64]) -> JudgeData:
        arrays = {n: getattr(self, n)[rows] for n in _ARRAYS}
        items, keys = ([given[row] for row in rows] for given in (self.items, self.keys))
        return replace(self, items=items, keys=keys, **arrays)

    @property
    def form(self) -> dict[str, bool]:
        """Which fields the items have."""
        return {n: getattr(self, n) for n in ("pairwise", "query", "contexts", "reference")}


def judge_data_of(
    dataset: JudgmentDataset, options: JudgeOptions, name: str = "dataset"
) -> JudgeData:
    """The dataset's verdicts, checked.

    Raises:
        TypeError: not a `JudgmentDataset`.
        DatasetError: verdicts that cannot be learnt from, each named.
    """
    if not isinstance(dataset, JudgmentDataset):
        raise TypeError(f"{name} must be a JudgmentDataset, got {type(dataset).__name__}")
    if not len(dataset):
        raise DatasetError(f"{name} is empty")
    items = dataset.judgments
    pairwise = _all_or_none(items, "second_response", name, lambda item: item.second_response)
    form = {
        "query": _all_or_none(items, "query", name, lambda item: (item.query or "").strip()),
        "contexts": _all_or_none(items, "contexts", name, has_contexts),
        "reference": _all_or_none(items, "reference", name, lambda i: (i.reference or "").strip()),
    }
    faults = [
        f"judgment {number}: {fault}"
        for number, item in enumerate(items)
        if not item.invalid
        for fault in _verdict_faults(item, pairwise, options)
    ]
    if faults:
        raise DatasetError(f"{name} has verdicts that cannot be learnt from:", faults)
    unread = [item for item in items if item.invalid and item.source != HUMAN]
    silent = frozenset(item_keys(unread) if unread else ())
    items = [item for item in items if not item.invalid]
    if not items:
        raise DatasetError(f"{name} has no verdict: every judgment is invalid")
    numbers: dict[Any, int] = {}
    return JudgeData(
        items,
        np.array([_label(item, pairwise, options) for item in items]),
        np.array([np.nan if item.score is None else float(item.score) for item in items]),
        np.array([float(item.weight) for item in items]),
        np.array([numbers.setdefault(group, len(numbers)) for group in groups_of(items)]),
        item_keys(items),
        np.array([item.source == HUMAN for item in items]),
        pairwise,
        **form,
        silent=silent,
    )


def check_trainable(material: JudgeData, folds: int) -> None:
    """Enough verdicts, of both kinds, over enough queries."""
    labels = material.labels
    if len(labels) < MIN_VERDICTS:
        raise DatasetError(
            f"{len(labels)} verdicts are too few; a judge needs {MIN_VERDICTS} at least"
        )
    queries = len(np.unique(material.clusters))
    if queries < max(folds, MIN_OF_A_KIND):
        raise DatasetError(
            f"the verdicts are on {queries} queries; options.folds={folds} needs as many at least"
        )
    if material.pairwise:
        if (labels == TIE).all():
            raise DatasetError("all verdicts are ties: there is nothing to learn from")
        return
    for kind, count in (("passes", labels.sum()), ("fails", (1 - labels).sum())):
        if count < MIN_OF_A_KIND:
            raise DatasetError(
                f"{int(count)} verdicts are {kind}; a judge needs {MIN_OF_A_KIND} of each kind"
            )


def check_held_out(material: JudgeData, held_out: JudgeData) -> None:
    """The validation verdicts look like the others and share no query with them."""
    if material.form != held_out.form:
        raise DatasetError(
            f"val_dataset must have the fields that dataset has: {material.form}, "
            f"got {held_out.form}"
        )
    seen = set(groups_of(list(material.items)))
    shared = [g for g in dict.fromkeys(groups_of(list(held_out.items))) if g in seen]
    if shared:
        raise DatasetError(
            "val_dataset must hold no query of dataset:", [f"{group!r}" for group in shared]
        )


def other_verdicts(material: JudgeData, rows: Ints) -> Float64:
    """For each of the rows what the teacher said of the same item, NaN where nothing; `(rows,)`.

    Several verdicts of teachers count by their mean: above 0.5 is 1, below is 0. A teacher that
    was asked and gave none is `NO_VERDICT`, which nobody else says: it counts as wrong.
    """
    means = _teachers_mean(material, material.labels, rows)
    said = np.where(np.isnan(means), means, (np.sign(means - 0.5) + 1) / 2)
    silent = np.array([material.keys[row] in material.silent for row in rows], dtype=bool)
    return np.where(np.isnan(means) & silent, NO_VERDICT, said)


def other_scores(material: JudgeData, rows: Ints) -> Float64:
    """For each of the rows the teacher's score of the same item, NaN where none; `(rows,)`."""
    return _teachers_mean(material, material.scores, rows)


def people_pairs(material: JudgeData) -> tuple[Ints, Float64]:
    """Pairs of people's verdicts on one item: the row of one of them, and whether they agree."""
    said: dict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(material.people).tolist():
        said[material.keys[row]].append(row)
    pairs = [pair for rows in said.values() for pair in combinations(rows, 2)]
    same = [float(material.labels[one] == material.labels[other]) for one, other in pairs]
    return np.array([one for one, _ in pairs], dtype=np.int64), np.array(same)


def _teachers_mean(material: JudgeData, values: Float64, rows: Ints) -> Float64:
    """Mean of the teachers' values on the item of each row, NaN where none has any."""
    said: dict[str, list[float]] = defaultdict(list)
    for row in np.flatnonzero(~material.people & ~np.isnan(values)).tolist():
        said[material.keys[row]].append(float(values[row]))
    return np.array([np.mean(said.get(material.keys[row], [np.nan])) for row in rows])


def _all_or_none(items: Sequence[Judgment], field: str, name: str, has: Any) -> bool:
    flags = [
        bool(has(item)) if field != "second_response" else has(item) is not None for item in items
    ]
    if all(flags) or not any(flags):
        return flags[0]
    lacking = [f"judgment {number} has no {field}" for number, flag in enumerate(flags) if not flag]
    raise DatasetError(f"all judgments of {name} need {field}, or none:", lacking)


def _verdict_faults(item: Judgment, pairwise: bool, options: JudgeOptions) -> Iterable[str]:
    if pairwise:
        if item.score is not None and item.score not in (0, TIE, 1):
            yield f"a pair's score must be 1, 0.5 (tie) or 0, got {item.score}"
    elif item.passing is None and options.passing_score is None:
        yield f"it has score {item.score} but no passing; set JudgeOptions(passing_score=...)"
    if item.weight == float("inf"):
        yield "weight must be finite, got inf"


def _label(item: Judgment, pairwise: bool, options: JudgeOptions) -> float:
    if pairwise:
        return float(item.passing or 0) if item.score is None else float(item.score)
    if item.passing is not None:
        return float(item.passing)
    assert item.score is not None
    assert options.passing_score is not None
    return float(item.score >= options.passing_score)


FEATURES = ("words of the query", "words of the response", "words of the contexts", "overlap")

_WORD = re.compile(r"\w+")


def items_of(dataset: Any, name: str = "dataset") -> Sequence[Any]:
    """The items of a dataset of judgments, or a plain list of them.

    Args:
        dataset: what was given.
        name: the caller's argument, for the message.
    """
    items = getattr(dataset, "judgments", dataset)
    if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
        raise TypeError(
            f"{name} must be a JudgmentDataset or a list of judgments, got {type(dataset).__name__}"
        )
    if not items:
        raise DatasetError(f"{name} is empty")
    odd = [number for number, item in enumerate(items) if not hasattr(item, "response")]
    if odd:
        raise TypeError(
            f"{name} must hold judgments, item {odd[0]} is a {type(items[odd[0]]).__name__}"
        )
    return items


def item_keys(dataset: Any) -> list[str]:
    """A hash of each item's query, contexts and response: who judged it makes no difference."""
    keys = []
    for item in items_of(dataset):
        parts = [item.query, list(item.contexts or ()), item.response, item.second_response]
        keys.append(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16])
    return keys


def groups_of(dataset: Any) -> list[Hashable]:
    """The cluster of each item: its query; the item itself where it has none."""
    return [
        normalise(item.query) if item.query else ("no query", key)
        for item, key in zip(items_of(dataset), item_keys(dataset), strict=True)
    ]


def has_contexts(item: Any) -> bool:
    """Whether any context has text."""
    return any(text.strip() for text in item.contexts or ())


def labels_of(dataset: Any, name: str = "labelled") -> Float64:
    """1 for each item that passes, 0 for each that does not."""
    items = items_of(dataset, name)
    faults = [
        f"judgment {number} has no passing verdict"
        for number, item in enumerate(items)
        if item.passing is None
    ]
    if faults:
        raise DatasetError(f"the items of {name} need passing=True or False:", faults)
    return np.array([float(item.passing) for item in items])


def text_features(dataset: Any) -> Float64:
    """Shape `(n, 4)`: logarithms of lengths, and the response's share of known words."""
    rows = []
    for item in items_of(dataset):
        query, response = _words(item.query), _words(item.response)
        contexts = _words(" ".join(item.contexts or ()))
        known = set(query) | set(contexts)
        overlap = sum(word in known for word in response) / max(1, len(response))
        rows.append([*(np.log1p(len(words)) for words in (query, response, contexts)), overlap])
    return np.array(rows, dtype=np.float64)


def _words(text: str | None) -> list[str]:
    return _WORD.findall((text or "").casefold())


Pair = tuple[str, str]

LEAST = 24
"""Tokens of a pair, under which nothing can be judged."""


@dataclass(frozen=True)
class Reading:
    """An item, or one order of a pair of responses, as the encoder reads it.

    Attributes:
        parts: for each part of the response its windows: (query and some evidence, response).
        evidence: the evidence of each of these alone.
    """

    parts: list[list[Pair]]
    evidence: list[list[str]]


@dataclass(frozen=True)
class Reader:
    """Splits queries, evidence (contexts, reference) and responses to an encoder's length.

    The response may take half of the tokens, the query a quarter; evidence has what they leave.
    Evidence is split between sentences; so is a response that is too long, while each of a pair of
    responses loses its middle, since both must be read together.

    Attributes:
        count: tokens of a text.
        limit: tokens of a pair, without special ones.
        separator: between two responses.
        query: whether to read the query.
        contexts: whether to read contexts.
        reference: whether to read the right answer.

    Example:
        >>> reader = Reader(lambda text: len(text.split()), limit=8)
        >>> reader.windows(["One two three. Four five.", "Six."], 4)
        ['One two three.', 'Four five. Six.']
    """

    count: Callable[[str], int]
    limit: int
    separator: str = "|"
    query: bool = True
    contexts: bool = True
    reference: bool = True

    def reading(self, item: Any, *, swapped: bool = False) -> Reading:
        """How a judgment, or an object with the same fields, is read.

        Args:
            item: what is judged.
            swapped: the second response of a pair first.
        """
        query = self.cut(self._query(item), self.limit // 4)
        texts = [item.reference] if self.reference and item.reference else []
        texts += (item.contexts or ()) if self.contexts else ()
        if item.second_response is None:
            fits = self.count(item.response) <= self.limit // 2
            parts = [item.response] if fits else self.windows([item.response], self.limit // 2)
        else:
            both = item.response, item.second_response
            parts = [self._joined(*(reversed(both) if swapped else both))]
        evidence = [
            self.windows(texts, self.limit - self.count(query) - self.count(part)) for part in parts
        ]
        pairs = [
            [("\n".join(filter(None, (query, text))), part) for text in windows]
            for part, windows in zip(parts, evidence, strict=True)
        ]
        return Reading(pairs, evidence)

    def windows(self, texts: Iterable[str], budget: int) -> list[str]:
        """Whole sentences of the texts, in order, as many together as fit; at least one window."""
        found: list[list[str]] = [[]]
        used = 0
        for text in texts:
            for piece in (p for s in sentences(text) for p in self.pieces(s, budget)):
                size = self.count(piece)
                if found[-1] and used + size > budget:
                    found.append([])
                    used = 0
                found[-1].append(piece)
                used += size
        return [" ".join(pieces) for pieces in found]

    def pieces(self, text: str, budget: int) -> list[str]:
        """The text; where it does not fit, its halves, cut at the space nearest the middle."""
        if self.count(text) <= budget or len(text) < 2:
            return [text]
        middle = len(text) // 2
        spaces = [text.rfind(" ", 1, middle), text.find(" ", middle, len(text) - 1)]
        at = min((s for s in spaces if s > 0), key=lambda s: abs(s - middle), default=middle)
        halves = text[:at].strip(), text[at:].strip()
        return [piece for half in halves for piece in self.pieces(half, budget)]

    def cut(self, text: str, budget: int) -> str:
        """The text; where it does not fit, its beginning and its end (Sun et al. 2019)."""
        if self.count(text) <= budget:
            return text
        fits, too_much = 0, (len(text) + 1) // 2
        while too_much - fits > 1:
            middle = (fits + too_much) // 2
            if self.count(_ends(text, middle)) <= budget:
                fits = middle
            else:
                too_much = middle
        return _ends(text, fits) if fits else ""

    def is_cut(self, item: Any) -> bool:
        """Whether a part of the query, or of a pair's responses, is left out."""
        if self.count(self._query(item)) > self.limit // 4:
            return True
        if item.second_response is None:
            return False
        both = item.response, item.second_response
        return sum(map(self.count, both)) > self._room()

    def _query(self, item: Any) -> str:
        return (item.query or "").strip() if self.query else ""

    def _room(self) -> int:
        """Tokens for both of a pair's responses."""
        return self.limit // 2 - self.count(self.separator)

    def _joined(self, first: str, second: str) -> str:
        room = self._room()
        one, other = self.count(first), self.count(second)
        if one + other > room:  # what one of them leaves of its half, the other may have
            half = room // 2
            first = self.cut(first, max(half, room - other))
            second = self.cut(second, max(half, room - one))
        return f"{first} {self.separator} {second}"


def scores_of(
    readings: Sequence[Reading], score: Callable[[list[Pair]], NDArray[Any]]
) -> NDArray[Any]:
    """One score a reading: the mean over its response's parts of the largest over the windows.

    A part is supported where any window supports it; a response as far as its parts are. In the
    comparison of Laban et al. (2022, SummaC), the largest over the document and the mean over the
    summary were the best pair of operators.

    Args:
        readings: what is to be scored.
        score: shape `(p,)` for p pairs; called once.

    Returns:
        Shape `(n,)`.
    """
    pairs = [pair for reading in readings for part in reading.parts for pair in part]
    given = iter(np.asarray(score(pairs), dtype=np.float64).tolist())
    return np.array(
        [
            np.mean([max(next(given) for _ in part) for part in reading.parts])
            for reading in readings
        ],
        dtype=np.float64,
    )


def _ends(text: str, size: int) -> str:
    """So many characters of either end; broken words are left out."""
    if not size:
        return ""
    first, last = text[:size], text[-size:]
    if " " in first and " " in last:
        first, last = first.rsplit(" ", 1)[0], last.split(" ", 1)[1]
    return f"{first} … {last}"
