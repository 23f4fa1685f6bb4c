"""The linear map, solved to its optimum instead of trained for some passes.

With documents fixed, the cross-entropy of softmax(scale · (W q)·d) is convex in `W`: multinomial
logistic regression, whose classes are the documents. The prior on `scale · W` is normal around the
whitened start, and its strength decides how much evidence a departure needs. Two maps are solved at
each strength. The *strong* one ranks against all documents. The *cautious* one ranks only documents
with training questions against each other, so that the others are not pushed away for having none.
Candidates are means of the two, with or without a memory of single questions (`memory.py`).
Held-out questions choose by nDCG@10, the most careful one that is near the best (`choice.py`).

The optimum departs from the start only in the span of the training questions and of the documents,
so it is solved there: a map of 3,072 dimensions from 60 questions has 60 columns. In the principal
axes of both the Hessian is nearly diagonal, so that L-BFGS (Liu and Nocedal 1989) needs 10 to 20
steps. If documents are mapped too (`side="both"`), the same is solved by the same means, but is
no longer convex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.maps import LinearForm
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.solved.choice import STRENGTHS, Choice, K
from llama_index.tuning.embeddings.adapter.solved.memory import MOST, Memory
from llama_index.tuning.embeddings.adapter.solved.start import DIRECTIONS, SPAN, principal
from llama_index.tuning.evaluate.retrieval import score_hits

FOLD_COSINES, SENTENCE_COSINES = 3_000_000, 1_000_000
"""A fold's solutions learn from as many questions, drawn at random, as make so many cosines with
the documents, and from as many sentences beside them; start and final map from all questions."""
TOLERANCE = 1e-5

Score = Callable[[Float32], tuple[Float32, Callable[[Float32], Float32]]]
"""Departure → logits `(queries, documents)`, and what turns their gradient into its gradient."""


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
        self.remembers = options.memory and not both and len(pairs) <= MOST
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

    def scores(
        self,
        rows: Ints,
        centre: LinearForm,
        found: Departure,
        memory: Memory | None,
        choices: Sequence[Choice],
    ) -> tuple[Float64, Float64]:
        """nDCG@10 of queries under each of the choices, `(choices, rows)`, and without a map."""
        pairs = self.pairs.take(rows)
        score = self._score(centre, pairs.vectors, np.arange(len(self.documents)))
        pulled = np.zeros((1, len(self.documents)), np.float32)
        if memory is not None:
            pulled = np.float32(self.options.scale or 1) * (
                memory(pairs.vectors) @ self.documents.T
            )
        parts = np.empty((len(choices), len(rows)))
        places: dict[Choice, list[int]] = {}
        for place, choice in enumerate(choices):
            places.setdefault(choice._replace(pull=0.0), []).append(place)
        for linear, same in places.items():
            logits = score(found.at(linear))[0]
            for place in same:
                moved = logits + np.float32(choices[place].pull) * pulled
                parts[place] = self._ndcg(moved, pairs)
        return parts, self._ndcg(pairs.vectors @ self.documents.T, pairs)

    def _ndcg(self, logits: Float32, pairs: Pairs) -> Float64:
        owners, relevant = pairs.flat()
        wanted = logits[owners, relevant]
        ranks = np.array(
            [np.count_nonzero(logits[o] > least) for o, least in zip(owners, wanted, strict=True)]
        )
        hits = np.zeros((len(pairs), K), dtype=bool)
        hits[owners[ranks < K], ranks[ranks < K]] = True
        counts = np.bincount(owners, minlength=len(pairs))
        return score_hits(hits, counts, [K])[f"ndcg@{K}"]

    def form(self, centre: LinearForm, departure: Float32) -> LinearForm:
        """The whole map."""
        up = self.directions @ departure
        if not self.bias:
            return centre.plus(up, self.basis.T, None)
        return centre.plus(up[:, :-1], self.basis.T, up[:, -1])

    def memory(self, rows: Ints) -> Memory | None:
        """Of some of the labelled queries, if there is one."""
        return Memory.of(self.pairs.take(rows), self.documents) if self.remembers else None

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
