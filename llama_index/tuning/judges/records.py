"""What the rooms of judges share: examples, predictions and the decision rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64, Ints

NO_VERDICT = 1.5
"""Stands where a judge came to none: a kind of its own, and always wrong."""


TIE = 0.5


_SURE = 1e-9
"""Probabilities count as no nearer than this to 0 and 1."""


@dataclass(frozen=True)
class DecisionRule:
    """How a probability becomes a verdict.

    Attributes:
        slope: of the calibration (Platt 1999), above 0.
        offset: its intercept; 0 for a pairwise judge.
        threshold: an answer passes from this probability on; 0.5 for a pairwise judge.
        band: a pair is a tie up to this distance from 0.5; None for single responses.
        margin: an answer is uncertain below this distance from the threshold, in logits.
    """

    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    band: float | None = None
    margin: float = 0.0

    def chances(self, logits: Float64) -> Float64:
        """Calibrated probabilities, shape `(n,)`."""
        found: Float64 = np.exp(-np.logaddexp(0.0, -(self.slope * logits + self.offset)))
        return found

    def verdicts(self, chances: Float64) -> Float64:
        """1 for pass (or the first), 0 for fail (or the second), 0.5 for a tie; shape `(n,)`."""
        found = (chances >= self.threshold).astype(np.float64)
        if self.band is not None:
            found[np.abs(chances - self.threshold) <= self.band] = TIE
        return found

    def certainties(self, chances: Float64) -> Float64:
        """Distance of each probability from the nearest threshold, in logits, shape `(n,)`.

        A distance in probability would rank every answer that is almost certain to fail behind
        those a little above the threshold, if that is low: the two sides would not be alike.
        """
        band = self.band or 0.0
        lines = log_odds(np.array([self.threshold - band, self.threshold + band]))
        found: Float64 = np.abs(log_odds(chances)[:, None] - lines).min(axis=1)
        return found


def log_odds(chances: Float64) -> Float64:
    """The logits of probabilities, finite at 0 and 1 too."""
    sure = np.clip(chances, _SURE, 1 - _SURE)
    found: Float64 = np.log(sure) - np.log1p(-sure)
    return found


@dataclass(frozen=True, eq=False)
class Rows:
    """What is learnt from, a row for each verdict.

    Attributes:
        table: features, shape `(n, columns)`.
        labels: 1, 0, or 0.5 for a tie, shape `(n,)`.
        weights: how much each counts, shape `(n,)`.
        fold: the part that each is held out with, shape `(n,)`; one query, one fold.
        pairwise: whether features are differences of two responses.
        topics: columns that are only used if that helps, shape `(m,)`.
    """

    table: Float64
    labels: Float64
    weights: Float64
    fold: Ints
    pairwise: bool
    topics: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __getitem__(self, rows: NDArray[np.bool_] | Ints) -> Rows:
        kept = {name: getattr(self, name)[rows] for name in ("table", "labels", "weights", "fold")}
        return replace(self, **kept)

    def columns(self, chosen: Sequence[int]) -> Rows:
        """The same rows with some of the features, all of them used."""
        return replace(self, table=self.table[:, list(chosen)], topics=self.topics[:0])


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a judge said of items that it was not trained on; all of shape `(n,)`.

    Attributes:
        chances: probabilities that the answer passes, or that the first response is better.
        verdicts: 1 for pass (or the first), 0 for fail (or the second), 0.5 for a tie.
        certainties: distances from the threshold, in logits; the least certain go to a person or
            to `defer_to` first.
    """

    chances: Float64
    verdicts: Float64
    certainties: Float64

    def __getitem__(self, rows: Ints) -> Predictions:
        return Predictions(self.chances[rows], self.verdicts[rows], self.certainties[rows])
