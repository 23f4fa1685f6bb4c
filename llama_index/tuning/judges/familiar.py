"""Answers unlike any that a judge learned from: it should not judge them.

The distance is Mahalanobis' on the features (Lee et al. 2018, there of a network's layers), with a
shrunken covariance (Ledoit and Wolf 2004); how far is too far is read off answers that were held
out, as in conformal anomaly detection (Laxhammar and Falkman 2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_index.tuning.judges.features import Floats

if TYPE_CHECKING:
    from llama_index.tuning.judges.fitting import Rows

MIN_ROWS = 100
"""With fewer nothing is told apart."""
FARTHEST = 0.995
"""Share of the held-out answers within the distance that counts as usual."""
ROOM = 1.5
"""So many times that distance is still judged: only what is clearly elsewhere is refused."""
LEAST = 0.05
"""Least variance of a direction, beside 1 of a feature: thinner ones are chance."""


@dataclass(frozen=True, eq=False)
class Familiar:
    """Where the features lie that a judge learned from.

    Attributes:
        centre: their mean, shape `(columns,)`.
        whitening: turns differences from it into distances, shape `(columns, columns)`.
        limit: an answer farther away is refused.
    """

    centre: Floats
    whitening: Floats
    limit: float

    def distances(self, table: Floats) -> Floats:
        """Of features of shape `(n, columns)`, shape `(n,)`."""
        found: Floats = np.linalg.norm((table - self.centre) @ self.whitening, axis=1)
        return found


def familiar_of(rows: Rows) -> Familiar | None:
    """From the training's rows; the limit from each fold's distances to the others'.

    None for pairs, whose features are differences, and with fewer than `MIN_ROWS`.
    """
    if rows.pairwise or len(rows.table) < MIN_ROWS:
        return None
    held_out = [
        _fitted(rows.table[rows.fold != part]).distances(rows.table[rows.fold == part])
        for part in np.unique(rows.fold)
    ]
    usual = float(np.quantile(np.concatenate(held_out), FARTHEST, method="higher"))
    found = _fitted(rows.table)
    return Familiar(found.centre, found.whitening, ROOM * usual)


def _fitted(table: Floats) -> Familiar:
    from sklearn.covariance import LedoitWolf

    centre, spread = table.mean(axis=0), table.std(axis=0)
    # How far a change is in what never changed, the sample cannot tell: it counts for nothing.
    scale = np.where(spread > 0, 1 / np.maximum(spread, 1e-12), 0.0)
    shrunk = LedoitWolf(assume_centered=True).fit((table - centre) * scale)
    values, vectors = np.linalg.eigh(shrunk.covariance_)
    whitening = scale[:, None] * (vectors / np.sqrt(np.maximum(values, LEAST)))
    return Familiar(centre, whitening, np.inf)
