"""Whether two samples of answers come from one population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64

ALARM = 0.005
"""p-value below which the samples count as different; the smaller of two tests, doubled."""


_FOLDS = 5


_LEAST = 2 * _FOLDS


@dataclass(frozen=True)
class TwoSampleTest:
    """What the test found.

    Attributes:
        p_value: of the hypothesis that both samples come from one population.
        auc: how well a classifier tells the samples apart, out of fold; 0.5 is not at all.
        feature: the feature that differs most, by name.
    """

    p_value: float
    auc: float
    feature: str

    @property
    def found(self) -> bool:
        """Whether the samples differ beyond what chance explains."""
        return self.p_value < ALARM


def two_sample_test(
    first: Float64, second: Float64, names: Sequence[str], *, seed: int = 0
) -> TwoSampleTest | None:
    """Lopez-Paz and Oquab (2017): can a classifier tell which sample an item is from?

    Logistic regression, cross-fitted, on the features and their squares; its scores are compared
    by a rank test. A Kolmogorov-Smirnov test of each feature by itself stands beside it.

    Args:
        first: features, shape `(n, features)`.
        second: features, shape `(N, features)`.
        names: of the features.
        seed: of the folds.

    Returns:
        `None` if a sample has fewer than 10 items, too few to tell.
    """
    from scipy.stats import ks_2samp, mannwhitneyu

    if min(len(first), len(second)) < _LEAST:
        return None
    both = np.concatenate([first, second])
    spread = np.ptp(both, axis=0) > 0
    if not spread.any():
        return TwoSampleTest(1.0, 0.5, names[0])
    single = [
        float(ks_2samp(first[:, column], second[:, column]).pvalue) if spread[column] else 1.0
        for column in range(both.shape[1])
    ]
    scores = _scores(both[:, spread], np.arange(len(both)) < len(first), seed)
    mine, others = scores[: len(first)], scores[len(first) :]
    told = mannwhitneyu(mine, others, alternative="greater")
    p_value = min(1.0, 2 * min(float(told.pvalue), min(single) * int(spread.sum())))
    auc = float(told.statistic) / (len(mine) * len(others))
    return TwoSampleTest(p_value, auc, names[int(np.argmin(single))])


def _scores(features: Float64, is_first: NDArray[np.bool_], seed: int) -> Float64:
    """Out of fold, each fold's scaled alike so that folds can be ranked together."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = np.concatenate([features, features**2], axis=1)
    scores = np.zeros(len(table))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(table, is_first):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
        )
        scores[test] = model.fit(table[train], is_first[train]).decision_function(table[test])
    return scores
