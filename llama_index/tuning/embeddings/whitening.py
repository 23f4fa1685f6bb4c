"""The closed-form start of an adapter: dampen the directions in which pairs disagree.

If queries scatter around their documents with covariance `S`, the best ranking is by
`-(q - d)ᵀ S⁻¹ (q - d)`, whose part that a query-side map can carry is `q S⁻¹ d`. In speaker
recognition this is within-class covariance normalisation (Hatch et al. 2006), in metric learning
the similar-pairs half of KISSME (Köstinger et al. 2012). `S` is shrunk towards the identity, as
with an inverse-Wishart prior: few pairs change little.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llama_index.tuning.embeddings.options import AdapterOptions
from llama_index.tuning.embeddings.pairs import FloatArray, Pairs


class Whitening(NamedTuple):
    """A symmetric map `(directions * gains) @ directionsᵀ`, most dampened direction first."""

    directions: FloatArray
    """Orthonormal columns, shape `(dim, dim)`."""
    gains: FloatArray
    """Positive factors, shape `(dim,)`."""

    def matrix(self) -> FloatArray:
        """*Shape:* `(dim, dim)`."""
        product: FloatArray = (self.directions * self.gains) @ self.directions.T
        return product

    def low_rank(self, rank: int) -> tuple[FloatArray, FloatArray]:
        """`up`, `(dim, rank)`, and `down`, `(rank, dim)`: the map is nearly `I + up @ down`."""
        rank = min(rank, len(self.gains))
        rest = self.gains[rank:].mean() if rank < len(self.gains) else self.gains[-1]
        down = self.directions[:, :rank].T
        up = self.directions[:, :rank] * (self.gains[:rank] / rest - 1)
        return up.astype(np.float32), down.astype(np.float32)


def whitening(
    pairs: Pairs, documents: FloatArray, options: AdapterOptions, unlabelled: Pairs | None = None
) -> Whitening:
    """The map estimated from labelled pairs and, in equal parts, from unlabelled ones."""
    dim = documents.shape[1]
    strength = 0.0
    shrunk = np.zeros((dim, dim), dtype=np.float64)
    for source in (pairs, unlabelled):
        if source is None or not len(source):
            continue
        part = options.start_strength * len(source) / (len(source) + options.prior_pairs * dim)
        shrunk += part * _scatter(source, documents)
        strength += part
    shrunk += (1 - strength) * np.eye(dim)
    values, vectors = np.linalg.eigh(shrunk)
    power = -1.0 if options.side == "query" else -0.5
    gains = values[::-1] ** power
    directions = vectors[:, ::-1]
    length = np.linalg.norm((pairs.vectors @ directions) * gains, axis=1).mean()
    return Whitening(directions.astype(np.float32), (gains / length).astype(np.float32))


def _scatter(pairs: Pairs, documents: FloatArray) -> FloatArray:
    """Second moment of query minus mean relevant document, scaled to trace `dim`."""
    apart = pairs.vectors - pairs.mean_positive(documents)
    moment = (apart * pairs.weight_column()).T @ apart
    trace = float(np.trace(moment))
    dim = documents.shape[1]
    scaled: FloatArray = moment * (dim / trace) if trace > 0 else np.eye(dim, dtype=np.float32)
    return scaled
