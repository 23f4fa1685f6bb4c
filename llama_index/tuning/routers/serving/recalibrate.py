"""The out-of-scope threshold, fitted to an app's own queries.

With a few labels, the in-scope scores of an app are taken to lie as in training but for a shift and
a stretch, which the labelled queries tell. Without, the scores of all queries are taken for a
mixture of two kinds, those and lower ones of queries that belong nowhere, fitted by expectation
maximisation (Dempster, Laird and Rubin 1977) from where training saw both. The two kinds overlap:
that fit is a guess, its interval reaches to what holds if every query belonged somewhere, and no
more than the share of queries under the old threshold is known for sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.routers.serving.model import ScopeScores

MIN_QUERIES = 100
"""Without labels."""
MIN_LABELS = 20
"""Of queries that belong somewhere, if any query has a label."""
LABELS_WORTH = 2.0
DRAWS = 200
_ROUNDS = 60
_PRIOR = 10.0
"""Queries that what training showed counts as."""
_LEAST_SPREAD = 0.3
"""Of a kind's scores, beside 1 in training."""
_normal = NormalDist()


@dataclass(frozen=True)
class ScopeFit:
    """What an app's queries say of the out-of-scope threshold, each with a 90 % interval.

    Attributes:
        threshold: the new one.
        threshold_interval: its interval.
        before: the one that the router had.
        below: share of all queries under that one.
        below_interval: its interval.
        kept_before: share of the queries that belong somewhere which that one kept.
        kept_interval: its interval.
        in_scope: share of the queries that belong somewhere.
        promised: share of these that the threshold is drawn to keep.
        queries: how many there were.
        labelled: of how many it was known whether they belong somewhere.
    """

    threshold: float
    threshold_interval: tuple[float, float]
    before: float
    below: float
    below_interval: tuple[float, float]
    kept_before: float
    kept_interval: tuple[float, float]
    in_scope: float
    promised: float
    queries: int
    labelled: int

    @property
    def unlike_training(self) -> bool:
        """Whether more queries than in training are shown to lie under the old threshold.

        With labels, more of those that belong somewhere; without, more of all.
        """
        if self.labelled:
            return self.kept_interval[1] < self.promised
        return self.below_interval[0] > 1 - self.promised

    def __str__(self) -> str:
        low, high = self.kept_interval
        found = (
            f"{self.below:.1%} of {self.queries} queries scored below {self.before:.2f}, "
            f"{1 - self.promised:.1%} of queries like those in training do; about "
            f"{self.in_scope:.0%} belong somewhere, of which {self.kept_before:.1%} were kept "
            f"({low:.1%} to {high:.1%}); the new threshold is {self.threshold:.2f} "
            f"({self.threshold_interval[0]:.2f} to {self.threshold_interval[1]:.2f})"
        )
        if self.unlike_training and self.labelled:
            found += "; the queries no longer look like those in training"
        elif self.unlike_training:
            found += (
                "; the queries belong nowhere more often, or no longer look like those in "
                "training: a few labels (in_scope=) would tell which"
            )
        return found


def fit_scope(
    given: Sequence[float],
    reference: ScopeScores,
    threshold: float,
    belongs: Sequence[bool | None] | None = None,
    *,
    seed: int = 0,
) -> ScopeFit:
    """The threshold that keeps the promised share of an app's own queries.

    Args:
        given: the largest logit of each query.
        reference: the router's.
        threshold: the one that it has.
        belongs: whether each query belongs somewhere; `None` if nobody said.
        seed: of the half-samples that the intervals come from.

    Raises:
        DatasetError: too few queries or labels, or a router without reference.
    """
    scores = np.asarray(given, dtype=np.float64)
    known = np.array([np.nan if b is None else float(b) for b in belongs or [None] * len(scores)])
    labelled = np.isfinite(known)
    _check(len(scores), known, reference)
    scale = _Scale(reference)
    values = scale.standard(scores)
    edge = float(scale.standard(np.array([threshold]))[0])
    tail = _normal.inv_cdf(1 - reference.recall)
    outside = _outside(scale, reference)

    def fitted(weights: Float64) -> tuple[float, float]:
        """Where the new threshold lies, and what the old one kept."""
        if labelled.any():
            _, mean, spread = _moments(values, (known == 1) * weights, 0.0, 1.0, LABELS_WORTH)
        else:
            _, mean, spread = _mixture(values, weights, outside)
        return mean + spread * tail, 1 - _normal.cdf((edge - mean) / spread)

    whole = np.ones(len(values))
    cut, kept = fitted(whole)
    rng = np.random.default_rng(seed)
    drawn = np.array([fitted(rng.integers(0, 2, len(values)) * whole) for _ in range(DRAWS)])
    (low, least), (high, most) = np.quantile(drawn, [0.05, 0.95], axis=0)
    below = float((scores < threshold).mean())
    ends = _wilson(below, len(scores))
    if labelled.any():
        in_scope = float(known[labelled].mean())
    else:
        in_scope = _mixture(values, whole, outside)[0]
        low = min(low, float(np.quantile(values, 1 - reference.recall)))
        least, most = min(least, 1 - ends[1]), max(most, reference.recall)
    cuts = scale.score(np.array([cut, low, high]))
    return ScopeFit(
        threshold=float(cuts[0]),
        threshold_interval=(float(cuts[1]), float(cuts[2])),
        before=float(threshold),
        below=below,
        below_interval=ends,
        kept_before=kept,
        kept_interval=(float(least), float(most)),
        in_scope=in_scope,
        promised=reference.recall,
        queries=len(values),
        labelled=int(labelled.sum()),
    )


class _Scale:
    """Scores as the normal deviates of their shares among the in-scope scores of training."""

    def __init__(self, reference: ScopeScores) -> None:
        steps = len(reference.inside)
        self._z = np.array([_normal.inv_cdf((step + 0.5) / steps) for step in range(steps)])
        scores = np.asarray(reference.inside)
        self._scores = scores + 1e-9 * np.arange(steps) * max(1.0, float(np.ptp(scores)))
        self._slope = max(float(np.std(scores)), 1e-9)  # of the tails, which nobody saw

    def standard(self, scores: Float64) -> Float64:
        inner = np.interp(scores, self._scores, self._z)
        beyond = np.minimum(scores - self._scores[0], 0) + np.maximum(scores - self._scores[-1], 0)
        found: Float64 = inner + beyond / self._slope
        return found

    def score(self, z: Float64) -> Float64:
        inner = np.interp(z, self._z, self._scores)
        beyond = np.minimum(z - self._z[0], 0) + np.maximum(z - self._z[-1], 0)
        found: Float64 = inner + beyond * self._slope
        return found


def _outside(scale: _Scale, reference: ScopeScores) -> tuple[float, float]:
    """Mean and spread of the scores of queries that belong nowhere, as training showed them."""
    if not reference.outside:
        return -2.5, 1.0
    z = scale.standard(np.asarray(reference.outside))
    return min(float(z.mean()), -1.0), max(float(z.std()), _LEAST_SPREAD)


def _mixture(
    values: Float64, weights: Float64, outside: tuple[float, float]
) -> tuple[float, float, float]:
    """Share, mean and spread of the kind that belongs somewhere."""
    share, inside, other = 0.9, (0.0, 1.0), outside
    for _ in range(_ROUNDS):
        one = share * _density(values, *inside)
        likely = one / np.maximum(one + (1 - share) * _density(values, *other), 1e-300)
        likely = np.where(values >= inside[0], 1.0, likely)  # the lower kind has no upper half
        total, *moved = _moments(values, likely * weights, 0.0, 1.0, _PRIOR)
        inside = moved[0], moved[1]
        _, *moved = _moments(values, (1 - likely) * weights, *outside, _PRIOR)
        other = moved[0], moved[1]
        share = (total + 1.8) / (float(weights.sum()) + 2.0)
    return share, *inside


def _moments(
    values: Float64, weights: Float64, mean: float, spread: float, worth: float
) -> tuple[float, float, float]:
    """Total, mean and spread, with a prior of `worth` queries."""
    total = float(weights.sum())
    middle = float(weights @ values + worth * mean) / (total + worth)
    squares = float(weights @ (values - middle) ** 2) + worth * spread**2
    return total, middle, max(float(np.sqrt(squares / (total + worth))), _LEAST_SPREAD)


def _density(values: Float64, mean: float, spread: float) -> Float64:
    found: Float64 = np.exp(-0.5 * ((values - mean) / spread) ** 2) / spread
    return found


def _check(count: int, known: Float64, reference: ScopeScores) -> None:
    if not reference.inside:
        raise DatasetError("this router was saved without the scores to compare with: tune it anew")
    if np.isfinite(known).any():
        belong = int((known == 1).sum())
        if belong < MIN_LABELS:
            raise DatasetError(
                f"in_scope must name at least {MIN_LABELS} queries that belong somewhere, "
                f"got {belong}"
            )
    elif count < MIN_QUERIES:
        raise DatasetError(f"queries must hold at least {MIN_QUERIES}, got {count}")


def _wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's (1927) 90 % interval of a share."""
    z = _normal.inv_cdf(0.95)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / count / 2) ** 2)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
