"""Maps between the vector spaces of two embedding models, in closed form.

A query of the new model is compared with stored vectors of the old one. If `W` predicts a text's
new vector from its old one, then `q · (W d) = (Wᵀ q) · d`: the query map that keeps the *new*
model's ranking is the transpose of a regression from old to new. (A regression of queries from
new to old, as in Drift-Adapter, arXiv 2509.23471, would at its best give the old model's ranking.
For an orthogonal map both are the same.) A constant in `W` shifts all of a query's scores alike,
so both sides are centred and no constant is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.drift.options import DriftKind
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import evaluate_vectors
from llama_index.tuning.report import Gain
from llama_index.tuning.vectors.search import top_k, unit_rows

RANK = 64
"""Of the correction of `"low_rank"`."""
PRIORS = (0.0, 0.3)
STRENGTHS = (30.0, 3.0)
TIE = 0.002
KEPT = "re-indexed by the new model, against its mapped queries"
KEPT_OF_OTHERS = f"{KEPT}: texts that the map was not fitted to"
MIN_OTHERS = 20


@dataclass(frozen=True)
class DriftChoice:
    """What a fit is made with.

    Attributes:
        kind: `"procrustes"`, orthogonal (Schönemann 1966); `"linear"`, that and a ridge
            correction; `"low_rank"`, the correction cut to a rank.
        prior: weight of the identity, for directions of which the sample says nothing, in units
            of the singular values' root mean square; for models of one dimension, such as a base
            and its tuned version.
        strength: the ridge penalty of the correction.
        rank: of `"low_rank"`.
    """

    kind: DriftKind
    prior: float = 0.0
    strength: float = 3.0
    rank: int = RANK


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts in both spaces: `new`, shape `(n, new_dim)`, and `old`, `(n, old_dim)`."""

    new: Float32
    old: Float32

    def __len__(self) -> int:
        return len(self.new)

    def take(self, rows: Ints) -> Texts:
        """Some of them."""
        return Texts(self.new[rows], self.old[rows])


@dataclass(frozen=True, eq=False)
class Probes:
    """Queries in both spaces, and the row of the text that each is from.

    `themselves` says that the texts stand in for queries; each then leaves itself out.
    """

    queries: Texts
    source: Ints
    themselves: bool

    def of(self, rows: Ints) -> Probes:
        """The probes from some texts, which are renumbered from 0."""
        place = {int(row): number for number, row in enumerate(rows)}
        kept = np.array([i for i, row in enumerate(self.source) if int(row) in place], np.int64)
        source = np.array([place[int(self.source[i])] for i in kept], np.int64)
        return Probes(self.queries.take(kept), source, self.themselves)


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries of the new model whose relevant texts are known.

    Attributes:
        queries: unit vectors of the new model, shape `(n, new_dim)`.
        relevant: rows of each one's relevant texts.
        what: they are, in the plural.
    """

    queries: Float32
    relevant: Sequence[Ints]
    what: str


def fit_query_map(texts: Texts, choice: DriftChoice) -> LinearMap:
    """The query map in closed form, new space → old space."""
    new, old = texts.new - texts.new.mean(axis=0), texts.old - texts.old.mean(axis=0)
    cross = (new.T @ old).astype(np.float64)
    if choice.prior:
        spread = np.linalg.norm(cross) / np.sqrt(len(cross))
        cross += choice.prior * spread * np.eye(len(cross))
    left, _, right = np.linalg.svd(cross, full_matrices=False)
    turn = left @ right  # (new_dim, old_dim): q → q @ turn
    if choice.kind != "procrustes":
        gram = (old.T @ old).astype(np.float64) + choice.strength * np.eye(old.shape[1])
        missing = np.linalg.solve(gram, old.T @ (new - old @ turn.T))  # (old_dim, new_dim)
        if choice.kind == "low_rank":
            _, _, directions = np.linalg.svd(old @ missing, full_matrices=False)
            main = directions[: choice.rank]
            missing = missing @ main.T @ main
        turn = turn + missing.T
    return LinearMap(np.ascontiguousarray(turn.T, dtype=np.float32))


def fit_document_map(texts: Texts, strength: float = 1.0) -> LinearMap:
    """Where a new model's vector of a text lies in the old space: ridge around Procrustes."""
    middle_new, middle_old = texts.new.mean(axis=0), texts.old.mean(axis=0)
    new, old = texts.new - middle_new, texts.old - middle_old
    left, _, right = np.linalg.svd((new.T @ old).astype(np.float64), full_matrices=False)
    turn = left @ right
    gram = (new.T @ new).astype(np.float64) + strength * np.eye(new.shape[1])
    turn = turn + np.linalg.solve(gram, new.T @ (old - new @ turn))
    weight = np.ascontiguousarray(turn.T, dtype=np.float32)
    return LinearMap(weight, (middle_old - middle_new @ weight.T).astype(np.float32))


def choose(
    kind: DriftKind | Literal["auto"], texts: Texts, probes: Probes, k: int, seed: int
) -> DriftChoice:
    """What agrees best with the new model on texts that it was not fitted to.

    The prior is chosen for the orthogonal map, then kind and strength with that prior; of equals
    (within `TIE`) the simplest.
    """
    square = texts.new.shape[1] == texts.old.shape[1]
    folds = [
        (texts.take(train), texts.take(test), probes.of(test))
        for train, test in _folds(len(texts), seed)
    ]
    rank = min(RANK, len(texts))
    turns = [DriftChoice("procrustes", p, 0.0, rank) for p in (PRIORS if square else PRIORS[:1])]
    turn, score = _best(turns, folds, k)
    kinds: list[DriftKind] = ["low_rank", "linear"] if kind == "auto" else [kind]
    if kind == "procrustes":
        return turn
    finer = [DriftChoice(name, turn.prior, s, rank) for name in kinds for s in STRENGTHS]
    corrected, better = _best(finer, folds, k)
    return corrected if kind != "auto" or better > score + TIE else turn


def _best(
    tried: list[DriftChoice], folds: list[tuple[Texts, Texts, Probes]], k: int
) -> tuple[DriftChoice, float]:
    scores = np.array(
        [
            np.mean([agreement(fit_query_map(a, c), b, asked, k).mean() for a, b, asked in folds])
            for c in tried
        ]
    )
    place = int(np.argmax(scores >= scores.max() - TIE))
    return tried[place], float(scores[place])


def agreement(
    query_map: LinearMap | None, texts: Texts, probes: Probes, k: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Share of the new model's `k` nearest texts that are found in the old space, per query.

    With a map the new model's queries go through it; without, the old model's are used.
    """
    asked = probes.queries.old if query_map is None else query_map(probes.queries.new)
    wanted = _nearest(probes.queries.new, texts.new, probes, k)
    found = _nearest(asked, texts.old, probes, k)
    return np.array([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)])


def kept_of(
    query_map: LinearMap, texts: Texts, asked: Asked, held: Ints, k: int, seed: int
) -> dict[str, Gain]:
    """Recall by the new model on vectors of its own, against its mapped queries on the old ones.

    Args:
        query_map: fitted to all texts but `held`.
        texts: all.
        asked: the queries.
        held: sorted rows of the texts that it was not fitted to.
        k: how many are found.
        seed: of the intervals.

    Returns:
        For all queries and, if there are enough, for those that only held-out texts answer.
    """
    name = f"recall@{k}"
    fresh = evaluate_vectors(asked.queries, texts.new, asked.relevant, ks=[k]).values[name]
    mapped = evaluate_vectors(query_map(asked.queries), texts.old, asked.relevant, ks=[k])
    found = mapped.values[name]
    kept = {KEPT: paired_gain(fresh, found, seed=seed)}
    others = np.array([bool(np.isin(rows, held).all()) for rows in asked.relevant])
    if MIN_OTHERS <= others.sum() < len(others):
        kept[KEPT_OF_OTHERS] = paired_gain(fresh[others], found[others], seed=seed)
    return kept


def _nearest(queries: Float32, documents: Float32, probes: Probes, k: int) -> list[Ints]:
    ranked, _ = top_k(unit_rows(queries), documents, k + int(probes.themselves))
    if not probes.themselves:
        return list(ranked)
    return [row[row != own][:k] for row, own in zip(ranked, probes.source, strict=True)]


def _folds(n: int, seed: int, folds: int = 3) -> Iterator[tuple[Ints, Ints]]:
    order = np.random.default_rng(seed).permutation(n)
    for number in range(folds):
        test = np.sort(order[number::folds])
        yield np.setdiff1d(np.arange(n), test), test
