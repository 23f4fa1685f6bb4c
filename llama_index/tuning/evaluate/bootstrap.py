"""How sure a measure is: random half-samples of the queries, on all of them at once.

A half-sample takes each query or leaves it, by the toss of a coin. For differences that are as
likely positive as negative the means of half-samples give exact intervals for any number of
queries (Hartigan 1969, "Using subsample values as typical values"), which resampling with
replacement does not for few queries or whole numbers: a gain counts as shown by them exactly where
the sign test of wins and losses shows it (McNemar 1947). For many queries both agree, for any
smooth measure (the "double-or-nothing" weights of Owen and Eckles 2012). A mean whose rare, large
losses are all missing from the sample is beyond any interval.

A half-sample is written as what each row counts, so that nothing is copied: a measure takes
`weights` of shape `(samples, n)` and gives one value for each. On whole numbers it is what SciPy
and scikit-learn give for the rows repeated so often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning._checks import items_of, plain_arguments, share, whole_number
from llama_index.tuning.report import Gain

SAMPLES = 2000
Measure = Callable[[Float64], Float64]

_AT_ONCE = 2_000_000
_DIGITS = 12
"""Decimals of a value: sums that cancel are zero."""


@plain_arguments
def paired_gain(
    base: ArrayLike,
    tuned: ArrayLike,
    *,
    groups: Sequence[object] | None = None,
    confidence: float = 0.9,
    seed: int = 0,
) -> Gain:
    """The gain of `tuned` over `base` on the same queries, with its interval.

    Args:
        base: one value for each query, shape `(n,)`.
        tuned: the same queries' values with the other component.
        groups: what each query belongs to, if several hang together: they are taken or left
            together, and `Gain.n` counts the groups. By default each is by itself.
        confidence: level of the interval, between 0 and 1.
        seed: the same seed gives the same interval.

    Example:
        >>> gain = paired_gain([0.2, 0.4, 0.1], [0.5, 0.6, 0.1])
        >>> round(gain.mean, 3)
        0.167
    """
    before, after = _numbers("base", base), _numbers("tuned", tuned)
    seed = whole_number("seed", seed, 0)
    if groups is not None:
        items_of("groups", groups, "what each query belongs to")
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(
            "base and tuned must be two non-empty lists of equal length, "
            f"got shapes {before.shape} and {after.shape}"
        )
    confidence = share("confidence", confidence)
    if groups is not None and len(groups) != len(before):
        raise ValueError(f"groups must name {len(before)} queries, got {len(groups)}")
    clusters = np.arange(len(before))
    if groups is not None:
        numbers: dict[object, int] = {}
        clusters = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    difference = after - before
    low = high = float(difference.mean())
    if np.ptp(difference) > 0:
        measures = {"gain": mean_of(difference)}
        low, high = intervals(measures, clusters, confidence=confidence, seed=seed)["gain"]
    count = int(clusters.max()) + 1
    return Gain(float(before.mean()), float(after.mean()), low, high, count, confidence)


def intervals(
    measures: Mapping[str, Measure], clusters: Ints, *, confidence: float = 0.9, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Each measure's interval; a cluster is taken or left as a whole.

    Args:
        measures: name → measure; all see the same half-samples.
        clusters: the query of each row, shape `(n,)`.
        confidence: level of the intervals, between 0 and 1.
        seed: the same seed gives the same intervals.

    Returns:
        Without the measures that most half-samples leave undefined.

    Example:
        >>> found = intervals({"share": mean_of([1, 1, 0, 1] * 5)}, np.arange(20))
        >>> low, high = found["share"]
        >>> round(low, 1), round(high, 1)
        (0.6, 0.9)
    """
    rows = np.unique(clusters, return_inverse=True)[1]
    values: dict[str, list[Float64]] = {name: [] for name in measures}
    total = 0
    for taken in _half_samples(int(rows.max()) + 1, seed, max(1, _AT_ONCE // len(rows))):
        weights = taken[:, rows]
        total += len(weights)
        for name, measure in measures.items():
            values[name].append(measure(weights))
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    found = {}
    for name, parts in values.items():
        every = np.concatenate(parts)
        defined = np.round(every[np.isfinite(every)], _DIGITS)
        if len(defined) > total / 2:
            low = np.quantile(defined, tails[0], method="lower")
            high = np.quantile(defined, tails[1], method="higher")
            found[name] = (float(low), float(high))
    return found


def _half_samples(count: int, seed: int, step: int) -> Iterator[Float64]:
    """1 for a cluster that is taken, 0 for one that is left, shape `(m, count)`, never all left.

    All that there are, of few clusters; else `SAMPLES` drawn ones.
    """
    if 2**count <= SAMPLES:
        numbers = np.arange(1, 2**count)
        yield (numbers[:, None] >> np.arange(count) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, SAMPLES, step):
        taken = rng.integers(0, 2, (min(step, SAMPLES - start), count), dtype=np.int8)
        yield taken[taken.any(axis=1)].astype(np.float64)


def mean_of(values: Float64, rows: Ints | None = None) -> Measure:
    """The mean of values, each of which belongs to one of the rows; by default one to each."""
    given = np.asarray(values, dtype=np.float64)

    def measure(weights: Float64) -> Float64:
        mine = weights if rows is None else weights[:, rows]
        return _divide(mine @ given, mine.sum(axis=1))

    return measure


def auroc_of(truth: Float64, chances: Float64) -> Measure:
    """The area under the ROC curve, by Mann and Whitney's (1947) statistic."""

    def measure(weights: Float64) -> Float64:
        right, wrong = weights * truth, weights * (1 - truth)
        passes, fails = right.sum(axis=1), wrong.sum(axis=1)
        ranks = (right * _ranks(chances, weights)).sum(axis=1)
        return _divide(ranks - passes * (passes + 1) / 2, passes * fails)

    return measure


def calibration_error_of(chances: Float64, truth: Float64, bins: int = 15) -> Measure:
    """The expected calibration error of `evaluate.routing.calibration_error`."""
    slot = np.minimum((chances * bins).astype(np.int64), bins - 1)
    gaps = np.zeros((len(chances), bins))
    gaps[np.arange(len(chances)), slot] = chances - truth
    return lambda weights: _divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def pearson_of(one: Float64, other: Float64) -> Measure:
    """Pearson's correlation."""
    return lambda weights: _correlation(one, other, weights)


def spearman_of(one: Float64, other: Float64) -> Measure:
    """Spearman's correlation: Pearson's, of the ranks within the resample."""
    return lambda weights: _correlation(_ranks(one, weights), _ranks(other, weights), weights)


def among(rows: Ints, measure: Measure) -> Measure:
    """The measure on some of the rows."""
    return lambda weights: measure(weights[:, rows])


def _ranks(values: Float64, weights: Float64) -> Float64:
    """Rank of each value within each resample, equal ones sharing theirs; shape of `weights`."""
    order = np.argsort(values, kind="stable")
    _, starts, slot = np.unique(values[order], return_index=True, return_inverse=True)
    often = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(often, axis=1) - often + (often + 1) / 2
    place = np.empty(len(values), dtype=np.int64)
    place[order] = slot
    found: Float64 = ranks[:, place]
    return found


def _correlation(one: Float64, other: Float64, weights: Float64) -> Float64:
    total = weights.sum(axis=1, keepdims=True)
    a = one - _divide((weights * one).sum(axis=1, keepdims=True), total)
    b = other - _divide((weights * other).sum(axis=1, keepdims=True), total)
    spread = (weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1)
    return _divide((weights * a * b).sum(axis=1), np.sqrt(spread))


def _divide(above: Float64, below: Float64) -> Float64:
    """NaN where nothing is below: the measure is undefined on that resample."""
    found: Float64 = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=found, where=below > 1e-12)
    return found


def _numbers(name: str, values: object) -> Float64:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"{name} must be a list of numbers, got {values!r:.100}") from exc
