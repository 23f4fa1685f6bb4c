"""A dataset of verdicts, checked and as arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.answers import groups_of, has_contexts, item_keys
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.records import NO_VERDICT, TIE

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
        scores: the verdicts as numbers on their own scale, NaN if they are none, shape `(n,)`.
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


def check_trainable(data: JudgeData, folds: int) -> None:
    """Enough verdicts, of both kinds, over enough queries."""
    labels = data.labels
    if len(labels) < MIN_VERDICTS:
        raise DatasetError(
            f"{len(labels)} verdicts are too few; a judge needs {MIN_VERDICTS} at least"
        )
    queries = len(np.unique(data.clusters))
    if queries < max(folds, MIN_OF_A_KIND):
        raise DatasetError(
            f"the verdicts are on {queries} queries; options.folds={folds} needs as many at least"
        )
    if data.pairwise:
        if (labels == TIE).all():
            raise DatasetError("all verdicts are ties: there is nothing to learn from")
        return
    for kind, count in (("passes", labels.sum()), ("fails", (1 - labels).sum())):
        if count < MIN_OF_A_KIND:
            raise DatasetError(
                f"{int(count)} verdicts are {kind}; a judge needs {MIN_OF_A_KIND} of each kind"
            )


def check_held_out(data: JudgeData, held_out: JudgeData) -> None:
    """The validation verdicts look like the others and share no query with them."""
    if data.form != held_out.form:
        raise DatasetError(
            f"val_dataset must have the fields that dataset has: {data.form}, got {held_out.form}"
        )
    seen = set(groups_of(list(data.items)))
    shared = [g for g in dict.fromkeys(groups_of(list(held_out.items))) if g in seen]
    if shared:
        raise DatasetError(
            "val_dataset must hold no query of dataset:", [f"{group!r}" for group in shared]
        )


def other_verdicts(data: JudgeData, rows: Ints) -> Float64:
    """For each of the rows what the teacher said of the same item, NaN if nothing; `(rows,)`.

    Several verdicts of teachers count by their mean: above 0.5 is 1, below is 0. A teacher that
    was asked and gave none is `NO_VERDICT`, which nobody else says: it counts as wrong.
    """
    means = _teachers_mean(data, data.labels, rows)
    said = np.where(np.isnan(means), means, (np.sign(means - 0.5) + 1) / 2)
    silent = np.array([data.keys[row] in data.silent for row in rows], dtype=bool)
    return np.where(np.isnan(means) & silent, NO_VERDICT, said)


def other_scores(data: JudgeData, rows: Ints) -> Float64:
    """For each of the rows the teacher's score of the same item, NaN if none; `(rows,)`."""
    return _teachers_mean(data, data.scores, rows)


def people_pairs(data: JudgeData) -> tuple[Ints, Float64]:
    """Pairs of people's verdicts on one item: the row of one of them, and whether they agree."""
    said: dict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(data.people).tolist():
        said[data.keys[row]].append(row)
    pairs = [pair for rows in said.values() for pair in combinations(rows, 2)]
    same = [float(data.labels[one] == data.labels[other]) for one, other in pairs]
    return np.array([one for one, _ in pairs], dtype=np.int64), np.array(same)


def _teachers_mean(data: JudgeData, values: Float64, rows: Ints) -> Float64:
    """Mean of the teachers' values on the item of each row, NaN if none has any."""
    said: dict[str, list[float]] = defaultdict(list)
    for row in np.flatnonzero(~data.people & ~np.isnan(values)).tolist():
        said[data.keys[row]].append(float(values[row]))
    return np.array([np.mean(said.get(data.keys[row], [np.nan])) for row in rows])


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
