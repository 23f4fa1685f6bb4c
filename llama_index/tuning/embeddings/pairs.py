"""Query vectors with their relevant documents, by row of a document matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """What an adapter learns from.

    Attributes:
        vectors: unit query (or sentence) vectors, shape `(n, dim)`, float32.
        positives: for each query the rows of its relevant documents, at least one.
        weights: weight of each query in the loss, shape `(n,)`; all 1 by default.
    """

    vectors: FloatArray
    positives: Sequence[IntArray]
    weights: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: IntArray) -> Pairs:
        """Some of the pairs, by position."""
        weights = None if self.weights is None else self.weights[rows]
        return Pairs(self.vectors[rows], [self.positives[row] for row in rows], weights)

    def renumbered(self, documents: IntArray) -> Pairs:
        """The same pairs where only `documents` (sorted rows, holding all positives) are kept."""
        positives = [np.searchsorted(documents, rows) for rows in self.positives]
        return Pairs(self.vectors, positives, self.weights)

    def flat(self) -> tuple[IntArray, IntArray]:
        """Query number and document row of each single pair, both of shape `(pairs,)`."""
        counts = [len(rows) for rows in self.positives]
        if not counts:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        owners = np.repeat(np.arange(len(self)), counts)
        return owners, np.concatenate(self.positives).astype(np.int64)

    def mean_positive(self, documents: FloatArray) -> FloatArray:
        """Mean of each query's relevant documents, shape `(n, dim)`."""
        owners, rows = self.flat()
        total = np.zeros((len(self), documents.shape[1]), dtype=np.float32)
        np.add.at(total, owners, np.asarray(documents[rows], dtype=np.float32))
        counts = np.bincount(owners, minlength=len(self)).astype(np.float32)
        mean: FloatArray = total / counts[:, None]
        return mean

    def weight_column(self) -> FloatArray:
        """*Shape:* `(n, 1)`."""
        weights = np.ones(len(self), np.float32) if self.weights is None else self.weights
        return weights[:, None]
