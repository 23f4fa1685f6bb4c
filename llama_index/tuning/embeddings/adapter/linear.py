"""The linear map, solved to its optimum instead of trained for some passes.

With documents fixed, the cross-entropy of softmax(scale · (W q)·d) is convex in `W`: multinomial
logistic regression, whose classes are the documents. The prior on `scale · W` is normal around the
whitened start, and its strength decides how much evidence a departure needs. Two maps are solved at
each strength. The *strong* one ranks against all documents. The *cautious* one ranks only documents
with training questions against each other, so that the others are not pushed away for having none.
Candidates are means of the two. Held-out questions choose by nDCG@10, the most careful one that
is near the best (see `choose`).

The optimum departs from the start only in the span of the training questions and of the documents,
so it is solved there: a map of 3,072 dimensions from 60 questions has 60 columns. In the principal
axes of both the Hessian is nearly diagonal, so that L-BFGS (Liu and Nocedal 1989) needs 10 to 20
steps. If documents are mapped too (`side="both"`), the same is solved by the same means, but is
no longer convex.

The start dampens the directions in which pairs disagree. If queries scatter around their documents
with covariance `S`, the best ranking is by `-(q - d)ᵀ S⁻¹ (q - d)`, whose part that a query-side
map can carry is `q S⁻¹ d`. In speaker recognition this is within-class covariance normalisation
(Hatch et al. 2006), in metric learning the similar-pairs half of KISSME (Köstinger et al. 2012).
`S` is shrunk towards the identity, as with an inverse-Wishart prior: few pairs change little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.maps import LinearForm
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.evaluate.retrieval import score_hits

STRENGTHS = (0.8, 0.4, 0.2, 0.1)
"""Of the prior, the most careful first: each is solved from the one before."""
CAUTIOUS = (1.0, 0.5, 0.0)
"""Shares of the cautious map in the mean."""
NEAR = 0.5
"""Standard errors below the best that a more careful candidate may be."""
LEAST_UNSEEN, UNSEEN_PRIOR = 0.6, 20
"""Least weight in the choice of questions on unseen documents, and how many earn half of it."""
K = 10
"""Held-out questions choose by nDCG@10."""
LEAST_SCALE, SPREAD = 20.0, 2.1
"""The softmax's factor: 20 would not tell apart the cosines of some models, so close they lie."""
DIRECTIONS = 512
"""Principal directions of the documents, and of as many pairs in the start."""
SPAN = 1024
"""Principal directions of the questions."""
FOLD_COSINES, SENTENCE_COSINES = 3_000_000, 1_000_000
"""A fold's solutions learn from as many questions, drawn at random, as make so many cosines with
the documents, and from as many sentences beside them; start and final map from all questions."""
TOLERANCE = 1e-5

Score = Callable[[Float32], tuple[Float32, Callable[[Float32], Float32]]]
"""Departure → logits `(queries, documents)`, and what turns their gradient into its gradient."""


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


@dataclass(frozen=True, eq=False)
class Departure:
    """A map's departure from its start, in coordinates of questions and documents.

    Attributes:
        steps: steps of the solver, of all solutions.
        strong: one solution for each of `STRENGTHS`, shape `(len(STRENGTHS), k, r)`.
        cautious: likewise.
    """

    steps: int
    strong: Float32
    cautious: Float32

    def at(self, choice: Choice) -> Float32:
        """The candidate, shape `(k, r)`."""
        share = np.float32(choice.cautious)
        mean = (1 - share) * self.strong[choice.strength]
        found: Float32 = mean + share * self.cautious[choice.strength]
        return found


class Choice(NamedTuple):
    """One of the candidates."""

    strength: int
    """Which of `STRENGTHS`."""
    cautious: float
    """Share of the cautious map in the mean."""


CHOICES = [Choice(strength, share) for strength in range(len(STRENGTHS)) for share in CAUTIOUS]


def choose(scores: Float64, seen: NDArray[np.bool_]) -> Choice:
    """The most careful candidate that is within half a standard error of the best one.

    After the one-standard-error rule (Breiman et al. 1984): with few questions the best is mostly
    luck. Half of it, since what is learnt should carry over to other documents too. Questions on
    unseen documents weigh more than their share: those must not pay for the others.

    Args:
        scores: nDCG@10 of each held-out question under each of `CHOICES`, shape `(choices, n)`.
        seen: whether a relevant document of the question has training questions, shape `(n,)`.
    """
    count = int((~seen).sum())
    weights = np.full(len(seen), 1 / len(seen))
    if 0 < count < len(seen):
        unseen = max(LEAST_UNSEEN * count / (count + UNSEEN_PRIOR), count / len(seen))
        weights = np.where(seen, (1 - unseen) / (len(seen) - count), unseen / count)
    apart = scores[(scores @ weights).argmax()] - scores
    means = apart @ weights
    errors = np.sqrt((apart - means[:, None]) ** 2 @ weights**2)
    return CHOICES[int((means <= NEAR * errors).argmax())]


class LinearProblem:
    """All that the folds share: vectors in the coordinates that a departure is solved in.

    Args:
        pairs: labelled queries.
        documents: unit vectors, shape `(N, dim)`, in memory.
        options: how to train; with a `scale`.
        unlabelled: sentences that teach in every fold.
        bias: whether the map adds a constant vector.
    """

    def __init__(
        self,
        pairs: Pairs,
        documents: Float32,
        options: AdapterOptions,
        unlabelled: Pairs | None,
        *,
        bias: bool,
    ) -> None:
        self.pairs, self.documents, self.options = pairs, documents, options
        self.sentences = unlabelled if options.unlabelled_weight > 0 else None
        few = self.sentences
        if few is not None:
            most = max(len(pairs), SENTENCE_COSINES // len(documents))
            few = few.take(self._drawn(np.arange(len(few)), most))
        self.few = few
        asked = pairs.vectors if few is None else np.concatenate([pairs.vectors, few.vectors])
        both = options.side == "both"
        searched = np.concatenate([documents, asked]) if both else documents
        self.directions = principal(searched, DIRECTIONS)[0][:, :DIRECTIONS]
        self.basis = self.directions if both else principal(asked, SPAN)[0]
        self.bias = bias
        self.y = documents @ self.directions

    def solve(
        self,
        rows: Ints,
        centre: LinearForm,
        only: Choice | None = None,
        start: Float32 | None = None,
    ) -> Departure:
        """The departures that some of the labelled queries teach; `only` what a choice needs."""
        if only is None:
            rows = self._drawn(rows, FOLD_COSINES // len(self.documents))
        taught, weights = self._taught(rows)
        owners, relevant = taught.flat()
        trained = np.unique(relevant)
        every = np.arange(len(self.documents))
        strengths = range(len(STRENGTHS)) if only is None else [only.strength]
        shape = len(STRENGTHS), self.y.shape[1], self.basis.shape[1] + self.bias
        strong, cautious = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        steps = 0
        for found, columns, share in ((strong, every, 0.0), (cautious, trained, 1.0)):
            if share and len(trained) == len(every):
                cautious = strong
                break
            if only is not None and only.cautious == 1 - share and len(trained) < len(every):
                continue
            score = self._score(centre, taught.vectors, columns)
            target = _Target(owners, np.searchsorted(columns, relevant), weights)
            axes = self._axes(taught.vectors, weights, columns)
            departure = found[0] if start is None else start
            for strength in strengths:
                if share and only is None:
                    departure = strong[strength]  # it is near
                departure, made = self._minimum(score, target, axes, strength, departure)
                found[strength] = departure
                steps += made
        return Departure(steps, strong, cautious)

    def scores(self, rows: Ints, centre: LinearForm, found: Departure) -> Float64:
        """nDCG@10 of queries under each candidate, shape `(choices, rows)`."""
        pairs = self.pairs.take(rows)
        score = self._score(centre, pairs.vectors, np.arange(len(self.documents)))
        owners, relevant = pairs.flat()
        counts = np.bincount(owners, minlength=len(rows))
        parts = []
        for choice in CHOICES:
            logits, _ = score(found.at(choice))
            ranks = np.array(
                [
                    np.count_nonzero(logits[owner] > logits[owner, row])
                    for owner, row in zip(owners, relevant, strict=True)
                ]
            )
            hits = np.zeros((len(rows), K), dtype=bool)
            hits[owners[ranks < K], ranks[ranks < K]] = True
            parts.append(score_hits(hits, counts, [K])[f"ndcg@{K}"])
        return np.array(parts)

    def form(self, centre: LinearForm, departure: Float32) -> LinearForm:
        """The whole map."""
        up = self.directions @ departure
        if not self.bias:
            return centre.plus(up, self.basis.T, None)
        return centre.plus(up[:, :-1], self.basis.T, up[:, -1])

    def _drawn(self, rows: Ints, most: int) -> Ints:
        if len(rows) <= most:
            return rows
        drawn = np.random.default_rng([self.options.seed, 5]).permutation(len(rows))[:most]
        found: Ints = np.sort(rows[drawn])
        return found

    def _taught(self, rows: Ints) -> tuple[Pairs, Float32]:
        """The queries of a solution and their weights; sentences weigh as their share says."""
        pairs = self.pairs.take(rows)
        weights = pairs.weight_column()[:, 0]
        if self.few is None:
            return pairs, weights
        share, few = self.options.unlabelled_weight, self.few.weight_column()[:, 0]
        total = min(len(pairs), len(self.few)) / few.sum()
        weights = np.concatenate([2 * (1 - share) * weights, 2 * share * total * few])
        vectors = np.concatenate([pairs.vectors, self.few.vectors])
        return Pairs(vectors, [*pairs.positives, *self.few.positives]), weights.astype(np.float32)

    def _coordinates(self, vectors: Float32) -> Float32:
        inside = vectors @ self.basis
        return np.pad(inside, ((0, 0), (0, 1)), constant_values=1) if self.bias else inside

    def _score(self, centre: LinearForm, queries: Float32, columns: Ints) -> Score:
        assert self.options.scale is not None
        scale = np.float32(self.options.scale)
        documents, y = self.documents[columns], self.y[columns]
        x = self._coordinates(queries)
        if self.options.side == "query":
            base = scale * (centre(queries) @ documents.T)

            def query_side(z: Float32) -> tuple[Float32, Callable[[Float32], Float32]]:
                logits: Float32 = base + (scale * (x @ z.T)) @ y.T
                return logits, lambda error: scale * ((error @ y).T @ x)

            return query_side
        mapped, stored = centre(queries), centre(documents)
        mapped_in, stored_in = mapped @ self.directions, stored @ self.directions
        outside = mapped @ stored.T - mapped_in @ stored_in.T
        length_outside = (stored**2).sum(1) - (stored_in**2).sum(1)
        own = self._coordinates(documents)

        def both_sides(z: Float32) -> tuple[Float32, Callable[[Float32], Float32]]:
            h, u = mapped_in + x @ z.T, stored_in + own @ z.T
            length = np.sqrt(np.maximum((u**2).sum(1) + length_outside, 1e-12))
            logits: Float32 = scale * (outside + h @ u.T) / length

            def back(error: Float32) -> Float32:
                turned = scale * error / length
                pulled = (error * logits).sum(0) / length**2
                towards = turned.T @ h - u * pulled[:, None]
                gradient: Float32 = (turned @ u).T @ x + towards.T @ own
                return gradient

            return logits, back

        return both_sides

    def _axes(self, queries: Float32, weights: Float32, columns: Ints) -> Float32:
        """The nearly diagonal Hessian of the loss, shape `(k, r)`."""
        assert self.options.scale is not None
        x = self._coordinates(queries)
        spread = self.y[columns].var(0)
        curvature: Float32 = spread[:, None] * (weights[:, None] * x * x).sum(0)[None]
        scaled: Float32 = np.float32(self.options.scale**2) * curvature
        return scaled

    def _minimum(
        self, score: Score, target: _Target, axes: Float32, strength: int, start: Float32
    ) -> tuple[Float32, int]:
        """The most likely departure under the prior, and the steps to it."""
        from scipy.optimize import minimize

        assert self.options.scale is not None
        prior = np.float32(STRENGTHS[strength] * self.options.scale**2)
        unit = 1 / np.sqrt(prior + axes)

        def loss(flat: Float64) -> tuple[float, Float64]:
            z = unit * flat.reshape(unit.shape).astype(np.float32)
            logits, back = score(z)
            value, error = target.loss(logits)
            gradient = unit * (back(error) + prior * z)
            value += 0.5 * float(prior) * float((z**2).sum(dtype=np.float64))
            return value, gradient.ravel().astype(np.float64)

        done = minimize(
            loss,
            (start / unit).ravel().astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": self.options.max_epochs or 200,
                "ftol": TOLERANCE,
                "gtol": 1e-8,
                "maxcor": 6,
            },
        )
        return unit * done.x.reshape(unit.shape).astype(np.float32), int(done.nit)


class _Target(NamedTuple):
    """What the softmax should be: relevant documents share each query's mass."""

    owners: Ints
    columns: Ints
    weights: Float32

    def loss(self, logits: Float32) -> tuple[float, Float32]:
        """The weighted cross-entropy and its gradient."""
        shares = 1 / np.bincount(self.owners, minlength=len(logits))[self.owners]
        shares = (shares * self.weights[self.owners]).astype(np.float32)
        wanted = float(shares @ logits[self.owners, self.columns])
        chances, normaliser = _softmax(logits)
        error = chances * self.weights[:, None]
        np.subtract.at(error, (self.owners, self.columns), shares)
        return float(self.weights @ normaliser) - wanted, error


def _softmax(logits: Float32) -> tuple[Float32, Float32]:
    """Each row's chances, and the logarithm of the sum of its exponentials."""
    top = logits.max(axis=1, keepdims=True)
    chances = np.exp(logits - top)
    total = chances.sum(axis=1, keepdims=True)
    chances /= total
    return chances, (top + np.log(total))[:, 0]
