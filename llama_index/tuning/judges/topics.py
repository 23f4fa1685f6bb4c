"""What a query and a response are about: their vectors' main directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

DIRECTIONS = 32
ITEMS_A_DIRECTION = 10
"""Fewer items give fewer directions."""


@dataclass(frozen=True, eq=False)
class Topics:
    """Principal directions of the vectors that a judge was trained on; no label was looked at.

    For single responses; between two to one query they made cross-fitted judges worse.

    Attributes:
        queries: shape `(a, dim)`; `a` is 0 where there are no queries.
        responses: shape `(b, dim)`.
    """

    queries: Vectors
    responses: Vectors

    @property
    def columns(self) -> list[str]:
        """A feature's name for each direction."""
        return [f"topic: query {i}" for i in range(len(self.queries))] + [
            f"topic: response {i}" for i in range(len(self.responses))
        ]

    def of(self, query: Vectors | None, response: Vectors) -> list[float]:
        """Where one query and one response lie along each, shape `(a + b,)`."""
        asked = np.zeros(len(self.queries)) if query is None else self.queries @ query
        return [*asked.tolist(), *(self.responses @ response).tolist()]


def main_directions(vectors: Vectors) -> Vectors:
    """The principal directions of distinct vectors (Pearson 1901), shape `(k, dim)`."""
    count = min(DIRECTIONS, len(vectors) // ITEMS_A_DIRECTION)
    centred = vectors - vectors.mean(axis=0)
    directions: Vectors = np.linalg.svd(centred, full_matrices=False)[2][:count]
    return directions.astype(np.float32)
