"""How the light re-ranker is fitted: convex losses by Newton's method, chosen by cross-fitting.

Scores of queries that were not trained on, with every choice made inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.evaluate.retrieval import RetrievalScores, score_grades
from llama_index.tuning.rerankers.light.features import LinearRanker, sigmoid, softmax_logits

Loss = Literal["listwise", "pairwise"]
Rows = Sequence[int] | Ints

STEPS = 30
TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class FeatureList:
    """One query's candidates as numbers.

    Attributes:
        features: shape `(n, F)`.
        relevance: how relevant each is, shape `(n,)`, from 0.
        missed: how relevant each relevant node is that is not in the list, shape `(m,)`.
    """

    features: Float64
    relevance: Float64
    missed: Float64 = field(default_factory=lambda: np.zeros(0))

    @property
    def trainable(self) -> bool:
        """Whether there is an order to learn."""
        return bool(len(self.relevance) > 1 and np.ptp(self.relevance) > 0)


class ListwiseLoss:
    """Cross-entropy between the relevance in a list and the softmax of its scores.

    ListNet's top-one loss (Cao et al. 2007).
    """

    def __init__(self, lists: Sequence[FeatureList], standard: Sequence[Float64]) -> None:
        sizes = [len(x) for x in standard]
        self.x = np.concatenate(standard)
        self.targets = np.concatenate([item.relevance / item.relevance.sum() for item in lists])
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.owner = np.repeat(np.arange(len(sizes)), sizes)

    def value(self, weights: Float64) -> float:
        """The loss, summed over queries."""
        scores = self.x @ weights
        top = np.maximum.reduceat(scores, self.starts)
        total = np.add.reduceat(np.exp(scores - top[self.owner]), self.starts)
        return float((top + np.log(total)).sum() - self.targets @ scores)

    def derivatives(self, weights: Float64) -> tuple[Float64, Float64]:
        """Gradient `(F,)` and Hessian `(F, F)`."""
        scores = self.x @ weights
        share = np.exp(scores - np.maximum.reduceat(scores, self.starts)[self.owner])
        share /= np.add.reduceat(share, self.starts)[self.owner]
        weighted = self.x * share[:, None]
        means = np.add.reduceat(weighted, self.starts)
        return self.x.T @ (share - self.targets), self.x.T @ weighted - means.T @ means


class PairwiseLoss:
    """Logistic loss on each pair of differently relevant candidates; a query weighs one.

    RankNet's (Burges et al. 2005). Pairs are kept as two positions, not as differences of
    features: a list of thirty grades has 435 of them.
    """

    def __init__(self, lists: Sequence[FeatureList], standard: Sequence[Float64]) -> None:
        pairs = [np.nonzero(item.relevance[:, None] > item.relevance[None]) for item in lists]
        starts = np.cumsum([0, *(len(x) for x in standard[:-1])])
        self.x = np.concatenate(standard)
        self.better, self.worse = (
            np.concatenate([both[side] + start for both, start in zip(pairs, starts, strict=True)])
            for side in (0, 1)
        )
        self.share = np.concatenate([np.full(len(b), 1 / len(b)) for b, _ in pairs])

    def value(self, weights: Float64) -> float:
        """The loss, summed over queries."""
        scores = self.x @ weights
        return float(np.logaddexp(0, scores[self.worse] - scores[self.better]) @ self.share)

    def derivatives(self, weights: Float64) -> tuple[Float64, Float64]:
        """Gradient `(F,)` and Hessian `(F, F)`."""
        from scipy.sparse import csr_array

        scores = self.x @ weights
        wrong = sigmoid(scores[self.worse] - scores[self.better])
        pull, curve = self.share * wrong, self.share * wrong * (1 - wrong)
        n = len(self.x)
        up, down = (np.bincount(side, pull, n) for side in (self.better, self.worse))
        touched = np.bincount(self.better, curve, n) + np.bincount(self.worse, curve, n)
        # Σ c (x₁ - x₂)(x₁ - x₂)ᵀ over the pairs, in products with x.
        mixed = self.x.T @ (csr_array((curve, (self.better, self.worse)), shape=(n, n)) @ self.x)
        return self.x.T @ (down - up), (self.x.T * touched) @ self.x - mixed - mixed.T


LOSSES: dict[Loss, type[ListwiseLoss] | type[PairwiseLoss]] = {
    "listwise": ListwiseLoss,
    "pairwise": PairwiseLoss,
}


def usual_loss(lists: Sequence[FeatureList]) -> Loss:
    """Listwise, and pairwise where a list has more than two grades.

    The listwise loss takes grades as shares of their sum. Those of a teacher's raw scores depend on
    where its scale begins: with a long tail of middling scores they hardly tell the best apart.
    """
    graded = any(len(np.unique(item.relevance)) > 2 for item in lists)
    return "pairwise" if graded else "listwise"


def fit(
    lists: Sequence[FeatureList],
    prior: LinearRanker,
    *,
    loss: Loss = "listwise",
    freedom: float = 1.0,
) -> LinearRanker:
    """The ranker that minimises loss + |w − w₀|² / (2 · freedom).

    Args:
        lists: trainable ones.
        prior: gives w₀ and the scale of the features; metadata features are scaled here.
        loss: `"listwise"` or `"pairwise"`.
        freedom: how far the weights may move from the prior's; more with more queries.
    """
    mean, scale = prior.mean.astype(np.float64), prior.scale.astype(np.float64)
    standard = [(item.features - mean) / scale for item in lists]
    objective = LOSSES[loss](lists, standard)
    start = prior.weights.astype(np.float64)
    weights = start.copy()
    current = objective.value(weights)
    for _ in range(STEPS):
        gradient, hessian = objective.derivatives(weights)
        gradient = gradient + (weights - start) / freedom
        step = np.linalg.solve(hessian + np.eye(len(start)) / freedom, gradient)
        length = 1.0
        while True:  # halve the step until the loss falls
            tried = weights - length * step
            value = objective.value(tried) + ((tried - start) ** 2).sum() / (2 * freedom)
            if value <= current or length < 1e-4:
                break
            length /= 2
        weights, previous, current = tried, current, value
        if previous - current < TOLERANCE * max(1.0, abs(current)):
            break
    none = np.zeros(0, np.float32)
    fitted = weights.astype(np.float32)
    return replace(
        prior, weights=fitted, calibration=none, thresholds=none, precisions=none, errors=none
    )


def standardised(lists: Sequence[FeatureList], prior: LinearRanker) -> LinearRanker:
    """The prior, with the mean and scale that these lists have wherever its weight is zero."""
    features = np.concatenate([item.features for item in lists])
    spread = features.std(axis=0)
    free = (prior.weights == 0) & (spread > 1e-9)
    return replace(
        prior,
        mean=np.where(free, features.mean(axis=0), prior.mean).astype(np.float32),
        scale=np.where(free, spread, prior.scale).astype(np.float32),
    )


def calibrate(
    ranker: LinearRanker, scored: Sequence[tuple[Float64, Float64]], *, highest: float = 1.0
) -> LinearRanker:
    """Probabilities from out-of-fold scores, by logistic regression (Platt 1999).

    Relevance from 0 to 1, a teacher's probabilities say, is learnt as it is; grades beyond 1 as
    shares of the highest. What comes out is then the expected share.

    Args:
        ranker: the ranker that the calibration is for.
        scored: for each query the candidates' out-of-fold scores and their relevance.
        highest: the dataset's highest grade, which these queries need not reach.
    """
    from scipy.optimize import minimize

    scored = [pair for pair in scored if len(pair[0])]  # the retriever may find nothing
    x = np.concatenate(
        [np.column_stack([softmax_logits(s), s, np.ones(len(s))]) for s, _ in scored]
    )
    y = np.concatenate([relevance for _, relevance in scored]).astype(np.float64)
    y /= max(1.0, highest, y.max(initial=0.0))

    def loss(w: Float64) -> tuple[float, Float64]:
        z = x @ w
        return float(np.mean(np.logaddexp(0, z) - y * z)), x.T @ (sigmoid(z) - y) / len(y)

    bounds = [(0.0, None), (0.0, None), (None, None)]
    found = minimize(loss, np.array([0.5, 0.0, -1.0]), jac=True, bounds=bounds, method="L-BFGS-B")
    calibrated = replace(ranker, calibration=found.x.astype(np.float32))
    probabilities = np.concatenate([calibrated.probabilities(s) for s, _ in scored])
    owner = np.repeat(np.arange(len(scored)), [len(s) for s, _ in scored])
    thresholds, precisions, errors = precision_curve(probabilities, y, owner)
    return replace(calibrated, thresholds=thresholds, precisions=precisions, errors=errors)


def precision_curve(
    probabilities: Float64, relevant: Float64, owner: Ints, *, least: int = 50
) -> tuple[Float32, Float32, Float32]:
    """Up to 200 thresholds with at least `least` candidates above, the precision there and its
    standard error. Of graded candidates the precision is the mean of their shares.

    Fewer candidates could not tell a precision to within ten points. Candidates of one query
    hang together, so the error is that of a ratio over queries, and never below the one that
    independent candidates would have (with one more of each kind, lest all right mean no error).

    Args:
        probabilities: of each candidate.
        relevant: 1 where it is relevant, else 0; or a share of that.
        owner: number of the query that it belongs to.
        least: smallest number of candidates.
    """
    order = np.argsort(-probabilities, kind="stable")
    hits = relevant[order]
    precision = np.cumsum(hits) / np.arange(1, len(order) + 1)
    kept = np.arange(min(least, len(order)) - 1, len(order))
    if len(kept) > 200:
        kept = kept[np.unique(np.geomspace(1, len(kept), 200).astype(int)) - 1]
    kept = kept[::-1]
    errors = [ratio_error(hits[: last + 1], owner[order[: last + 1]]) for last in kept.tolist()]
    thresholds = probabilities[order][kept]
    return (
        thresholds.astype(np.float32),
        precision[kept].astype(np.float32),
        np.array(errors, dtype=np.float32),
    )


def ratio_error(hits: Float64, owner: Ints) -> float:
    """Standard error of the mean of hits that come in groups (Cochran 1977, section 6.4).

    Hits may be fractions of one: alone they vary less than whole ones of the same mean.
    """
    n, found = len(hits), hits.sum()
    right = np.bincount(owner, hits)
    spread = ((right - found / n * np.bincount(owner)) ** 2).sum() / n**2
    share = (found + 1) / (n + 2)
    alone = share * (1 - share) - (found - (hits**2).sum()) / (n + 2)
    return float(np.sqrt(max(spread, alone / n)))


INNER_FOLDS = 3
FREEDOMS = (0.03, 0.3, 3.0)
"""How far weights may move from the prior; the cross-fitted best is taken."""
FEW = 50
"""With fewer queries cross-fitting cannot tell, and the weights move little."""
LITTLE = 0.01


def choose_freedom(
    lists: Sequence[FeatureList], fold: Ints, prior: LinearRanker, loss: Loss, *, few: bool = False
) -> float:
    """The freedom whose rankers, cross-fitted, order best by nDCG@10; little of few queries.

    Of those that are about as good, the one that stays nearer to the prior.
    """
    if few:
        return LITTLE
    merged = fold % INNER_FOLDS  # outer folds become inner ones, groups still kept together
    if len(np.unique(merged)) < 2:
        return FREEDOMS[0]
    means = []
    for freedom in FREEDOMS:
        scores = held_out_scores(lists, merged, prior, loss, freedom)
        means.append(float(ndcg(lists, scores).mean()))
    best = max(means)
    return next(f for f, mean in zip(FREEDOMS, means, strict=True) if mean >= best - 0.001)


def fit_freely(
    lists: Sequence[FeatureList],
    fold: Ints,
    prior: LinearRanker,
    loss: Loss,
    *,
    few: bool | None = None,
) -> tuple[LinearRanker, float]:
    """Fitted on all lists, with the freedom that was best in cross-fitting; and that freedom.

    Args:
        lists, fold, prior, loss: of `fit` and of the folds.
        few: whether the lists, or those that they are a part of, are few; counted by default.
    """
    few = len(lists) < FEW if few is None else few
    freedom = choose_freedom(lists, fold, prior, loss, few=few)
    return fit_rows(lists, range(len(lists)), prior, loss, freedom), freedom


def held_out_scores(
    lists: Sequence[FeatureList], fold: Ints, prior: LinearRanker, loss: Loss, freedom: float
) -> list[Float64]:
    """Each list's scores by a ranker fitted on the other folds."""
    scores: list[Float64] = [np.zeros(0)] * len(lists)
    for number in np.unique(fold):
        ranker = fit_rows(lists, np.flatnonzero(fold != number), prior, loss, freedom)
        for row in np.flatnonzero(fold == number).tolist():
            scores[row] = ranker.scores(lists[row].features)
    return scores


def fold_rankers(
    lists: Sequence[FeatureList], fold: Ints, prior: LinearRanker, loss: Loss
) -> list[LinearRanker]:
    """For each fold a ranker that never saw it, its freedom chosen without it."""
    rankers = []
    for number in range(int(fold.max()) + 1):
        rows = np.flatnonzero(fold != number)
        rest = [lists[row] for row in rows.tolist()]
        remaining = np.unique(fold[rows], return_inverse=True)[1]
        rankers.append(fit_freely(rest, remaining, prior, loss, few=len(lists) < FEW)[0])
    return rankers


def fit_rows(
    lists: Sequence[FeatureList], rows: Rows, prior: LinearRanker, loss: Loss, freedom: float
) -> LinearRanker:
    """Fitted on some lists; the prior where none of them teaches anything."""
    usable = [lists[row] for row in rows if lists[row].trainable]
    return fit(usable, prior, loss=loss, freedom=freedom) if usable else prior


def ranking_scores(
    lists: Sequence[FeatureList], scores: Sequence[Float64], ks: Sequence[int] = (1, 5, 10)
) -> RetrievalScores:
    """Metrics of the lists in the order of these scores; missed nodes count as not found.

    nDCG takes the relevance as graded; to the other metrics all above 0 is relevant.
    """
    # A list without any relevant node measures nothing.
    measured = [row for row, item in enumerate(lists) if item.relevance.any() or item.missed.any()]
    found = [lists[row].relevance[np.argsort(-scores[row], kind="stable")] for row in measured]
    missed = [lists[row].missed for row in measured]
    return score_grades([str(row) for row in measured], found, missed, ks)


def ndcg(lists: Sequence[FeatureList], scores: Sequence[Float64]) -> Float64:
    """nDCG@10 of each measured list."""
    return ranking_scores(lists, scores, (10,)).values["ndcg@10"]
