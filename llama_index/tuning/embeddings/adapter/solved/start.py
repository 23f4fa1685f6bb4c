"""The whitened start: where the prior of a solved map is centred, and where training begins.

The start dampens the directions in which pairs disagree. If queries scatter around their documents
with covariance `S`, the best ranking is by `-(q - d)ᵀ S⁻¹ (q - d)`, whose part that a query-side
map can carry is `q S⁻¹ d`. In speaker recognition this is within-class covariance normalisation
(Hatch et al. 2006), in metric learning the similar-pairs half of KISSME (Köstinger et al. 2012).
`S` is shrunk towards the identity, as with an inverse-Wishart prior: few pairs change little.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from llama_index.tuning._arrays import Float32, Float64
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.maps import LinearForm
from llama_index.tuning.embeddings.adapter.options import AdapterOptions

LEAST_SCALE, SPREAD = 20.0, 2.1
"""The softmax's factor: 20 would not tell apart the cosines of some models, so close they lie."""
DIRECTIONS = 512
"""Principal directions of the documents, and of as many pairs in the start."""
SPAN = 1024
"""Principal directions of the questions."""


class Whitening(NamedTuple):
    """A symmetric map `rest · I + (directions · (gains - rest)) @ directionsᵀ`."""

    directions: Float32
    """Orthonormal columns, the most dampened first, shape `(dim, m)`."""
    gains: Float32
    """Positive factors in these directions, shape `(m,)`."""
    rest: float
    """The factor in all other directions."""

    def low_rank(self, rank: int) -> tuple[Float32, Float32]:
        """`up`, `(dim, rank)`, and `down`, `(rank, dim)`: a multiple of about `I + up @ down`."""
        rank = min(rank, len(self.gains))
        rest = self.rest
        if len(self.gains) == len(self.directions):
            rest = float(self.gains[rank:].mean() if rank < len(self.gains) else self.gains[-1])
        down = self.directions[:, :rank].T
        up = self.directions[:, :rank] * (self.gains[:rank] / rest - 1)
        return up.astype(np.float32), np.ascontiguousarray(down, dtype=np.float32)


def softmax_scale(options: AdapterOptions, pairs: Pairs, documents: Float32) -> AdapterOptions:
    """The options with their `scale`, by the spread of the cosines if none is given."""
    if options.scale is not None:
        return options
    rng = np.random.default_rng([options.seed, 6])
    rows = rng.permutation(len(documents))[:2000]
    spread = float((pairs.vectors[:500] @ np.asarray(documents[rows]).T).std())
    return replace(options, scale=max(LEAST_SCALE, SPREAD / max(spread, 1e-3)))


def whitening(
    pairs: Pairs, documents: Float32, options: AdapterOptions, unlabelled: Pairs | None = None
) -> Whitening:
    """The start estimated from labelled pairs and, in equal parts, from unlabelled ones."""
    dim = documents.shape[1]
    strength, scattered = 0.0, []
    for source in (pairs, unlabelled):
        if source is None or not len(source):
            continue
        part = options.start_strength * len(source) / (len(source) + options.prior_pairs * dim)
        apart = (source.vectors - source.mean_positive(documents)) * np.sqrt(source.weight_column())
        trace = float((apart * apart).sum())
        if trace > 0:
            strength += part
            scattered.append(apart * np.float32(np.sqrt(part * dim / trace)))
    if not scattered:
        return Whitening(np.eye(dim, 1, dtype=np.float32), np.ones(1, np.float32), 1.0)
    directions, moments = principal(np.concatenate(scattered), DIRECTIONS)
    power = -1.0 if options.side == "query" else -0.5
    gains = (1 - strength + moments) ** power
    rest = (1 - strength) ** power
    inside = pairs.vectors @ directions
    outside = (pairs.vectors**2).sum(1) - (inside**2).sum(1)
    squares = ((inside * gains) ** 2).sum(1) + rest**2 * np.maximum(outside, 0)
    length = float(np.sqrt(squares).mean())
    return Whitening(directions, (gains / length).astype(np.float32), rest / length)


def whitened_form(start: Whitening) -> LinearForm:
    """A whitening as the centre of the prior."""
    up, down = start.directions * (start.gains / start.rest - 1), start.directions.T
    return LinearForm(start.rest, up.astype(np.float32), np.ascontiguousarray(down))


def principal(matrix: Float32, most: int) -> tuple[Float32, Float64]:
    """Directions of the rows' largest second moments, `(dim, m)`, and these, largest first.

    All of them if there are at most `SPAN`; of more rows and columns than that, `most`, by
    random projection (Halko et al. 2011).
    """
    rows, dim = matrix.shape
    if min(rows, dim) > SPAN:
        rng = np.random.default_rng(0)
        found = rng.standard_normal((dim, most + 16), dtype=np.float32)
        for _ in range(3):
            found, _ = np.linalg.qr(matrix.T @ (matrix @ found))
        inner, moments = principal(matrix @ found, most)
        return found @ inner[:, :most], moments[:most]
    if rows < dim:
        moments, vectors = np.linalg.eigh((matrix @ matrix.T).astype(np.float64))
        kept = moments > max(moments[-1], 1e-12) * 1e-6
        moments = moments[kept]
        directions = matrix.T @ (vectors[:, kept] / np.sqrt(moments))
    else:
        moments, directions = np.linalg.eigh((matrix.T @ matrix).astype(np.float64))
    return directions[:, ::-1].astype(np.float32), np.maximum(moments[::-1], 0)
