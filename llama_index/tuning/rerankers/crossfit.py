"""Scores of queries that were not trained on, with every choice made inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llama_index.tuning.evaluate.metrics import RetrievalScores, score_grades
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList, IntArray, Loss, Rows, fit
from llama_index.tuning.rerankers.ranker import LightRanker

INNER_FOLDS = 3
FREEDOMS = (0.03, 0.3, 3.0)
"""How far weights may move from the prior; the cross-fitted best is taken."""


def fold_numbers(groups: Sequence[Sequence[int]], folds: int, seed: int) -> IntArray:
    """A fold for each list, groups kept together, folds of about equal size."""
    count = min(folds, len(groups))
    order = np.random.default_rng(seed).permutation(len(groups))
    sizes = np.zeros(count, dtype=np.int64)
    numbers = np.zeros(sum(map(len, groups)), dtype=np.int64)
    for group in sorted((groups[i] for i in order), key=len, reverse=True):
        fold = int(sizes.argmin())
        numbers[list(group)] = fold
        sizes[fold] += len(group)
    return numbers


def choose_freedom(
    lists: Sequence[FeatureList], fold: IntArray, prior: LightRanker, loss: Loss
) -> float:
    """The freedom whose rankers, cross-fitted, order best by nDCG@10.

    Of those that are about as good, the one that stays nearer to the prior.
    """
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
    lists: Sequence[FeatureList], fold: IntArray, prior: LightRanker, loss: Loss
) -> tuple[LightRanker, float]:
    """Fitted on all lists, with the freedom that was best in cross-fitting; and that freedom."""
    freedom = choose_freedom(lists, fold, prior, loss)
    return fit_rows(lists, range(len(lists)), prior, loss, freedom), freedom


def held_out_scores(
    lists: Sequence[FeatureList], fold: IntArray, prior: LightRanker, loss: Loss, freedom: float
) -> list[FloatArray]:
    """Each list's scores by a ranker fitted on the other folds."""
    scores: list[FloatArray] = [np.zeros(0)] * len(lists)
    for number in np.unique(fold):
        ranker = fit_rows(lists, np.flatnonzero(fold != number), prior, loss, freedom)
        for row in np.flatnonzero(fold == number).tolist():
            scores[row] = ranker.scores(lists[row].features)
    return scores


def fold_rankers(
    lists: Sequence[FeatureList], fold: IntArray, prior: LightRanker, loss: Loss
) -> list[LightRanker]:
    """For each fold a ranker that never saw it, its freedom chosen without it."""
    rankers = []
    for number in range(int(fold.max()) + 1):
        rows = np.flatnonzero(fold != number)
        rest = [lists[row] for row in rows.tolist()]
        remaining = np.unique(fold[rows], return_inverse=True)[1]
        rankers.append(fit_freely(rest, remaining, prior, loss)[0])
    return rankers


def fit_rows(
    lists: Sequence[FeatureList], rows: Rows, prior: LightRanker, loss: Loss, freedom: float
) -> LightRanker:
    """Fitted on some lists; the prior where none of them teaches anything."""
    usable = [lists[row] for row in rows if lists[row].trainable]
    return fit(usable, prior, loss=loss, freedom=freedom) if usable else prior


def ranking_scores(
    lists: Sequence[FeatureList], scores: Sequence[FloatArray], ks: Sequence[int] = (1, 5, 10)
) -> RetrievalScores:
    """Metrics of the lists in the order of these scores; missed nodes count as not found.

    nDCG takes the relevance as graded; to the other metrics all above 0 is relevant.
    """
    # A list without any relevant node measures nothing.
    measured = [row for row, item in enumerate(lists) if item.relevance.any() or item.missed.any()]
    found = [lists[row].relevance[np.argsort(-scores[row], kind="stable")] for row in measured]
    missed = [lists[row].missed for row in measured]
    return score_grades([str(row) for row in measured], found, missed, ks)


def ndcg(lists: Sequence[FeatureList], scores: Sequence[FloatArray]) -> FloatArray:
    """nDCG@10 of each measured list."""
    return ranking_scores(lists, scores, (10,)).values["ndcg@10"]
