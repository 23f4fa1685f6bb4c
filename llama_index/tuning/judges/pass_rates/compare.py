"""Two versions of an app on the same queries: by how much does the pass rate differ?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import plain_arguments, share
from llama_index.tuning._running import own_work
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.answers import groups_of, items_of, labels_of
from llama_index.tuning.judges.pass_rates.estimate import (
    FEW_LABELS,
    MIN_LABELS,
    WEAK,
    ProbabilityJudge,
    check_judge,
    probabilities_of,
    trained_on,
)
from llama_index.tuning.judges.pass_rates.intervals import PoweredMean, mean_interval, powered_mean

logger = logging.getLogger(__name__)

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class VersionDifference:
    """How much better the second version of an app is, in pass rate, on the same queries.

    Attributes:
        difference: second minus first.
        interval: lower and upper end.
        classical: the difference from the labels alone; `None` without labels.
        classical_interval: its interval.
        first: the judge's mean of the first version, over all queries.
        second: of the second.
        correlation: of labelled and judged differences; `None` without labels.
        n: queries with labels for both versions.
        queries: queries that both versions answered.
        confidence: level of the intervals.
        method: `"ppi++"`, `"classical"`, or `"judge alone"`.
        warnings: what a reader should know before trusting the interval.
    """

    difference: float
    interval: Interval
    classical: float | None
    classical_interval: Interval | None
    first: float
    second: float
    correlation: float | None
    n: int
    queries: int
    confidence: float
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0: one version is better."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        low, high = self.interval
        verdict = "shown" if self.shown else "not shown"
        lines = [
            f"second - first: {self.difference:+.3f} [{low:+.3f}, {high:+.3f}], a difference is "
            f"{verdict} ({self.confidence:.0%} interval, {self.method}: {self.n} queries with "
            f"labels, {self.queries} in all)"
        ]
        if self.classical_interval is not None:
            low, high = self.classical_interval
            lines.append(f"labels alone {self.classical:+.3f} [{low:+.3f}, {high:+.3f}]")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


@own_work
@plain_arguments
def compare_versions(
    judge: ProbabilityJudge,
    first: Any,
    second: Any,
    *,
    labelled_first: JudgmentDataset | None = None,
    labelled_second: JudgmentDataset | None = None,
    confidence: float = 0.95,
) -> VersionDifference:
    """The paired difference of two versions' pass rates, with its interval.

    The unit is the query: its answers are averaged in each version, and the difference taken, so
    that several answers to one query do not count as independent. With labels the judge's
    difference is put right by its errors on the labelled queries (PPI++ on differences); without,
    the interval says how sure the *judge* is, not whether it is right.

    Args:
        judge: `probabilities(dataset)` gives each answer's probability to pass.
        first: answers of the first version, as the judge takes them.
        second: of the second; queries that the other version lacks are left out.
        labelled_first: answers of the first version with people's `passing`.
        labelled_second: of the second. Only queries labelled in both count.
        confidence: level of the interval, between 0 and 1.

    Raises:
        DatasetError: fewer than 10 queries in common, or labelled ones.

    Example:
        >>> from llama_index.tuning import JudgmentDataset
        >>> def answers(good):
        ...     rows = [{"query": f"q{i}", "response": "yes" if i % good else "no", "passing": True}
        ...             for i in range(60)]
        ...     return JudgmentDataset.from_records(rows)
        >>> class Yes:
        ...     def probabilities(self, dataset):
        ...         return [0.9 if j.response == "yes" else 0.1 for j in dataset.judgments]
        >>> found = compare_versions(Yes(), answers(2), answers(6))
        >>> round(found.difference, 2), found.shown, found.method
        (0.27, True, 'judge alone')
    """
    check_judge(judge)
    confidence = share("confidence", confidence)
    if (labelled_first is None) != (labelled_second is None):
        raise ValueError("labelled_first and labelled_second must be given together")
    versions = {"first": first, "second": second}
    both = _in_common(versions)
    labelled = None
    if labelled_first is not None:
        labelled = _labelled({"labelled_first": labelled_first, "labelled_second": labelled_second})
        if set(both) <= set(labelled.queries):
            raise DatasetError("every query is labelled: nothing is left for the judge to add")
    # What can be refused has been: from here on the judge works.
    judged = _judged(judge, versions)
    means = [float(np.mean([version[query] for query in both])) for version in judged]
    if labelled is None:
        found = _judge_alone(_differences(both, *judged), means, confidence)
    else:
        found = _with_labels(judge, judged, labelled, both, means, confidence)
    for text in found.warnings:
        logger.warning("difference of versions: %s", text)
    return found


@dataclass(frozen=True)
class _Labelled:
    """What people said of both versions.

    Attributes:
        sets: the argument's name → its verdicts.
        people: of each version, query → mean label.
        queries: those labelled in both.
    """

    sets: Mapping[str, Any]
    people: list[dict[Any, float]]
    queries: list[Any]


def _labelled(sets: Mapping[str, Any]) -> _Labelled:
    people = [_by_query(data, labels_of(data, name), name) for name, data in sets.items()]
    return _Labelled(sets, people, _in_common(sets))


def _judged(judge: ProbabilityJudge, versions: Mapping[str, Any]) -> list[dict[Any, float]]:
    return [
        _by_query(data, probabilities_of(judge, data, name), name)
        for name, data in versions.items()
    ]


def _judge_alone(judged: Float64, means: list[float], confidence: float) -> VersionDifference:
    error = float(judged.std(ddof=1)) / len(judged) ** 0.5
    mean = float(judged.mean())
    alone = PoweredMean(mean, error, mean, error, 0.0, len(judged), False)
    return VersionDifference(
        difference=mean,
        interval=mean_interval(alone, confidence),
        classical=None,
        classical_interval=None,
        first=means[0],
        second=means[1],
        correlation=None,
        n=0,
        queries=len(judged),
        confidence=confidence,
        method="judge alone",
        warnings=(
            "no labels: the interval knows nothing of the judge's own errors; label about 50 "
            "queries in both versions to put them right",
        ),
    )


def _with_labels(
    judge: ProbabilityJudge,
    judged: list[dict[Any, float]],
    labelled: _Labelled,
    both: list[Any],
    means: list[float],
    confidence: float,
) -> VersionDifference:
    known, marked = _judged(judge, labelled.sets), labelled.queries
    is_marked = set(marked)
    rest = [query for query in both if query not in is_marked]
    found = powered_mean(
        _differences(marked, *labelled.people),
        _differences(marked, *known),
        _differences(rest, *judged),
    )
    plain = PoweredMean(
        found.classical, found.classical_error, found.classical, found.classical_error, 0.0,
        found.clusters, False,
    )  # fmt: skip
    return VersionDifference(
        difference=found.value,
        interval=mean_interval(found, confidence),
        classical=found.classical,
        classical_interval=mean_interval(plain, confidence),
        first=means[0],
        second=means[1],
        correlation=found.correlation,
        n=len(marked),
        queries=len(set(both) | is_marked),
        confidence=confidence,
        method="ppi++" if found.powered else "classical",
        warnings=(*trained_on(judge, *labelled.sets.values()), *_weak(found)),
    )


def _weak(found: PoweredMean) -> list[str]:
    told = []
    if found.correlation < WEAK:
        told.append(
            f"judged and labelled differences correlate at {found.correlation:.2f} only: the "
            "judge adds almost nothing to the labels"
        )
    if found.classical_error == 0:
        told.append("no labelled query differs between the versions: the interval means nothing")
    elif found.clusters < FEW_LABELS // 3:
        told.append(f"{found.clusters} labelled queries are few; the interval is a rough one")
    return told


def _by_query(dataset: Any, values: Float64, name: str) -> dict[Any, float]:
    """Query → mean value of its answers."""
    gathered: dict[Any, list[float]] = {}
    for query, value in zip(_queries(dataset, name), values, strict=True):
        gathered.setdefault(query, []).append(float(value))
    return {query: float(np.mean(found)) for query, found in gathered.items()}


def _queries(dataset: Any, name: str) -> list[Any]:
    items = items_of(dataset, name)
    nameless = [number for number, item in enumerate(items) if not item.query]
    if nameless:
        raise DatasetError(
            f"two versions are compared query by query: item {nameless[0]} of {name} has no query"
        )
    return groups_of(items)


def _in_common(versions: Mapping[str, Any]) -> list[Any]:
    """The queries that both have, in the first one's order."""
    first, second = (_queries(data, name) for name, data in versions.items())
    shared = set(second)
    both = [query for query in dict.fromkeys(first) if query in shared]
    if len(both) < MIN_LABELS:
        raise DatasetError(
            f"{' and '.join(versions)} have {len(both)} queries in common; at least {MIN_LABELS} "
            "are needed"
        )
    return both


def _differences(queries: list[Any], first: dict[Any, float], second: dict[Any, float]) -> Float64:
    return np.array([second[query] - first[query] for query in queries])
