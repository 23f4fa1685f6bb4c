"""How sure a measure is: a bootstrap over queries, on all resamples at once.

A resample is written as how often each row is in it, so that nothing is copied: a measure takes
`weights` of shape `(resamples, n)` and gives one value for each. On whole numbers it is what SciPy
and scikit-learn give for the rows repeated so often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning.evaluate.bootstrap import RESAMPLES

Measure = Callable[[Float64], Float64]

_AT_ONCE = 2_000_000


def intervals(
    measures: Mapping[str, Measure], clusters: Ints, *, confidence: float = 0.9, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Each measure's percentile interval; clusters are drawn whole (Field and Welsh 2007).

    Args:
        measures: name → measure; all see the same resamples.
        clusters: the query of each row, shape `(n,)`.
        confidence: level of the intervals, between 0 and 1.
        seed: the same seed gives the same intervals.

    Returns:
        Without the measures that most resamples leave undefined.

    Example:
        >>> found = intervals({"share": mean_of([1, 1, 0, 1] * 5)}, np.arange(20))
        >>> found["share"]
        (0.6, 0.9)
    """
    rows = np.unique(clusters, return_inverse=True)[1]
    count = int(rows.max()) + 1
    rng = np.random.default_rng(seed)
    values: dict[str, list[Float64]] = {name: [] for name in measures}
    step = max(1, _AT_ONCE // len(rows))
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=size)
        weights = drawn.astype(np.float64)[:, rows]
        for name, measure in measures.items():
            values[name].append(measure(weights))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = {}
    for name, parts in values.items():
        defined = np.concatenate(parts)
        defined = defined[np.isfinite(defined)]
        if len(defined) > RESAMPLES / 2:
            low, high = np.quantile(defined, tails)
            found[name] = (float(low), float(high))
    return found


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
