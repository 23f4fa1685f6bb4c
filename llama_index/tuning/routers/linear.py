"""The convex fit: multinomial logistic regression in which similar choices share strength.

The weights of choices whose examples look alike are expected to be alike: a Gaussian prior over
the choices with covariance `tau (P Pᵀ + I)`, where a row of `P` is the mean direction of a
choice's examples. One L-BFGS run, preconditioned by the eigenvectors of both covariances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


BLOCK_VALUES = 8_000_000
"""Numbers of one block of logits: bounds the memory of a fit."""
MANY = 200_000
"""Numbers of all logits from which a fit stops earlier."""
SAMPLE_FROM = 200_000_000
"""Numbers of all logits from which a fit begins on a sample a tenth as large."""
CURVATURE = 0.005
"""How steep the loss is near its end, as a share of its steepness at the start."""


@dataclass(frozen=True)
class Rows:
    """Training rows: vectors, labels, weights and, optionally, words.

    Attributes:
        vectors: shape `(n, dim)`, float32; may be memory-mapped.
        labels: choice of each row, shape `(n,)`.
        weights: shape `(n,)`.
        words: shape `(n, terms)`, sparse.
    """

    vectors: Float32
    labels: Ints
    weights: Float32
    words: csr_matrix | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Ints) -> Rows:
        """Some of the rows."""
        words = None if self.words is None else self.words[rows]
        return Rows(self.vectors[rows], self.labels[rows], self.weights[rows], words)


@dataclass(frozen=True)
class Solution:
    """Weights of a fit, in the coordinates of the features.

    Attributes:
        weight: shape `(choices, dim)`.
        bias: shape `(choices,)`.
        words: shape `(terms, choices)`, or `None`.
        steps: evaluations of the loss.
    """

    weight: Float32
    bias: Float32
    words: Float32 | None
    steps: int

    def logits(self, rows: Rows) -> Float32:
        """Shape `(n, choices)`."""
        found: Float32 = np.asarray(rows.vectors, np.float32) @ self.weight.T + self.bias
        if self.words is not None and rows.words is not None:
            found += rows.words @ self.words
        return found


def prototypes(rows: Rows, choices: int) -> Float32:
    """The mean direction of each choice's rows, shape `(choices, dim)`; zero if it has none."""
    sums = np.zeros((choices, rows.vectors.shape[1]), dtype=np.float32)
    for block in _blocks(rows, choices):
        np.add.at(sums, block.labels, block.vectors * block.weights[:, None])
    return unit_rows(sums)


def fit(
    rows: Rows,
    choices: int,
    tau: float,
    *,
    centre: Float32 | None = None,
    start: Solution | None = None,
    max_steps: int = 200,
    tolerance: float | None = None,
) -> Solution:
    """Minimise the weighted cross-entropy plus the prior's penalty.

    Args:
        rows: the training rows.
        choices: how many choices there are.
        tau: variance of the prior; larger fits the rows more closely.
        centre: mean of the prior, shape `(choices, dim)`; zero by default.
        start: where to begin; the prior's mean by default.
        max_steps: the most evaluations of the loss.
        tolerance: relative change of the loss at which to stop; 0.0001 by default, and 0.001 for
            many rows, whose held-out loss has settled by then.
    """
    from scipy.optimize import minimize

    if start is None and len(rows) * choices >= SAMPLE_FROM:
        start = _fit_sample(rows, choices, tau, centre, max_steps, tolerance)
    if tolerance is None:
        tolerance = 1e-3 if len(rows) * choices >= MANY else 1e-4
    basis = _Basis.of(rows, choices, tau, centre)
    done = minimize(
        basis.loss,
        np.zeros(basis.size) if start is None else basis.inverse(start),
        jac=True,
        method="L-BFGS-B",
        options={"maxfun": max_steps, "maxiter": max_steps, "ftol": tolerance, "maxcor": 8},
    )
    return basis.solution(done.x, int(done.nfev))


def _fit_sample(
    rows: Rows,
    choices: int,
    tau: float,
    centre: Float32 | None,
    max_steps: int,
    tolerance: float | None,
) -> Solution:
    """Near the solution for a tenth of the work: every tenth row counts ten times."""
    kept = np.random.default_rng(0).permutation(len(rows))[: len(rows) // 10]
    part = rows.take(np.sort(kept))
    part = replace(part, weights=part.weights * np.float32(len(rows) / len(part)))
    return fit(part, choices, tau, centre=centre, max_steps=max_steps, tolerance=tolerance)


class _Basis:
    """Coordinates in which the loss is nearly round, and back.

    With `P Pᵀ + I = U diag(s) Uᵀ` and `XᵀX = V diag(x) Vᵀ` the weights are
    `U diag(√s) A Vᵀ` beside the prior's mean, the penalty is `|A|² / (2 tau)`, and each entry of
    `A` is scaled by the curvature that it can expect.
    """

    def __init__(
        self,
        rows: Rows,
        choices: int,
        tau: float,
        centre: Float32 | None,
        similar: Float32,
        gram: NDArray[Any],
    ) -> None:
        self.rows, self.choices, self.tau, self.centre = rows, choices, tau, centre
        spread, self.U = np.linalg.eigh(similar @ similar.T + np.eye(choices, dtype=np.float32))
        self.root = np.sqrt(np.maximum(spread, 1e-6))[:, None].astype(np.float32)
        size, self.V = np.linalg.eigh(gram)
        self.V = self.V.astype(np.float32)
        self.U = self.U.astype(np.float32)
        self.dim = len(size)
        self.terms = 0 if rows.words is None else int(rows.words.shape[1])
        if rows.words is not None:
            squares = rows.words.multiply(rows.words).T @ rows.weights
            size = np.concatenate([size, np.asarray(squares).ravel()])
        steep = CURVATURE / choices
        curve = steep * self.root**2 * np.maximum(size, 0)[None] + 1 / tau
        self.scale = (1 / np.sqrt(curve)).astype(np.float32)
        self.bias_scale = float(1 / np.sqrt(steep * rows.weights.sum() + 1e-6))

    @classmethod
    def of(cls, rows: Rows, choices: int, tau: float, centre: Float32 | None) -> _Basis:
        dim = rows.vectors.shape[1]
        gram = np.zeros((dim, dim))
        for block in _blocks(rows, choices):
            gram += (block.vectors * block.weights[:, None]).T @ block.vectors
        return cls(rows, choices, tau, centre, prototypes(rows, choices), gram)

    @property
    def size(self) -> int:
        return self.choices * (self.dim + self.terms + 1)

    def loss(self, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The loss and its gradient."""
        found = self.solution(point, 0)
        gradient = np.zeros((self.choices, self.dim + self.terms), dtype=np.float32)
        total, bias = 0.0, np.zeros(self.choices)
        for block in _blocks(self.rows, self.choices):
            value, slope = _cross_entropy(found.logits(block), block.labels, block.weights)
            total += value
            bias += slope.sum(axis=0)
            gradient[:, : self.dim] += slope.T @ block.vectors
            if block.words is not None:
                gradient[:, self.dim :] += (block.words.T @ slope).T
        gradient[:, : self.dim] = gradient[:, : self.dim] @ self.V
        inner = self._unpack(point)[0]
        gradient = self.root * (self.U.T @ gradient) + inner / np.float32(self.tau)
        flat = np.concatenate([(gradient * self.scale).ravel(), bias * self.bias_scale])
        penalty = float(np.einsum("ij,ij->", inner, inner, dtype=np.float64)) / (2 * self.tau)
        return total + penalty, flat.astype(np.float64)

    def solution(self, point: NDArray[np.float64], steps: int) -> Solution:
        """The weights at a point."""
        inner, bias = self._unpack(point)
        outer = self.U @ (self.root * inner)
        words = np.ascontiguousarray(outer[:, self.dim :].T) if self.terms else None
        weight = outer[:, : self.dim] @ self.V.T
        if self.centre is not None:
            weight += self.centre
        return Solution(weight, bias, words, steps)

    def inverse(self, given: Solution) -> NDArray[np.float64]:
        """The point of these weights; choices and terms that are new start at zero."""
        weight = _padded(given.weight, self.choices, self.dim)
        weight = (weight if self.centre is None else weight - self.centre) @ self.V
        terms = np.zeros((0, 0), np.float32) if given.words is None else given.words.T
        words = _padded(terms, self.choices, self.terms)
        bias = _padded(given.bias[:, None], self.choices, 1)[:, 0]
        outer = np.concatenate([weight, words], axis=1)
        inner = (self.U.T @ outer) / self.root / self.scale
        return np.concatenate([inner.ravel(), bias / self.bias_scale]).astype(np.float64)

    def _unpack(self, point: NDArray[np.float64]) -> tuple[Float32, Float32]:
        flat = point.astype(np.float32)
        inner = flat[: -self.choices].reshape(self.choices, self.dim + self.terms) * self.scale
        return inner, flat[-self.choices :] * np.float32(self.bias_scale)


def _cross_entropy(logits: Float32, labels: Ints, weights: Float32) -> tuple[float, Float32]:
    """The summed loss, and its slope for each logit (written over the logits)."""
    at = np.arange(len(labels))
    logits -= logits.max(axis=1, keepdims=True)
    right = logits[at, labels]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1)
    loss = float(np.dot((np.log(total) - right).astype(np.float64), weights))
    logits /= total[:, None]
    logits[at, labels] -= 1
    logits *= weights[:, None]
    return loss, logits


def _blocks(rows: Rows, choices: int) -> Iterator[Rows]:
    size = max(256, BLOCK_VALUES // choices)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        words = None if rows.words is None else rows.words[part]
        vectors = np.asarray(rows.vectors[part], dtype=np.float32)
        yield Rows(vectors, rows.labels[part], rows.weights[part], words)


def _padded(matrix: Float32, height: int, width: int) -> Float32:
    padded = np.zeros((height, width), dtype=np.float32)
    found = matrix[:height, :width]
    padded[: found.shape[0], : found.shape[1]] = found
    return padded
