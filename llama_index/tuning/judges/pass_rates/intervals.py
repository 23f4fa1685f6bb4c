"""Prediction-powered means: a few labels and many predictions, by ppi-python.

PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453) with its power tuned on the data. The
library's variances are those of independent items; here a cluster of items (the answers to one
query) counts as one, and small samples pay for what was estimated from them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.errors import MissingExtraError


@dataclass(frozen=True)
class PoweredMean:
    """A mean estimated from labels and predictions, beside the labels' own.

    Attributes:
        value: the estimate.
        error: its standard error.
        classical: the labels' mean.
        classical_error: its standard error.
        correlation: of labels with predictions, over clusters; 0 if one is constant.
        clusters: number of independent labelled units.
        powered: whether predictions were used; they are not if they would only add noise.
    """

    value: float
    error: float
    classical: float
    classical_error: float
    correlation: float
    clusters: int
    powered: bool

    @property
    def gain(self) -> float:
        """How many labels each label is worth with the predictions beside it, at least 1."""
        return (self.classical_error / self.error) ** 2 if self.powered and self.error else 1.0


def powered_mean(
    labels: Float64,
    predicted: Float64,
    unlabelled: Float64,
    groups: Sequence[Hashable] | None = None,
    unlabelled_groups: Sequence[Hashable] | None = None,
) -> PoweredMean:
    """The mean label of the population that both samples come from.

    Args:
        labels: what people said, shape `(n,)`.
        predicted: predictions for the same items, shape `(n,)`, by a model that was not trained
            on them.
        unlabelled: predictions for further items, shape `(N,)`.
        groups: the cluster of each labelled item, such as its query; each its own by default.
        unlabelled_groups: the same for the others.
    """
    weights, (labels, predicted) = _clustered([labels, predicted], groups)
    others, (unlabelled,) = _clustered([unlabelled], unlabelled_groups)
    n = len(labels)
    classical = float(np.average(labels, weights=weights))
    error = math.sqrt(_variance(weights * (labels - classical), 1))
    correlation = _correlation(labels, predicted)
    plain = PoweredMean(classical, error, classical, error, correlation, n, False)
    if n < 3 or np.ptp(np.concatenate([predicted, unlabelled])) == 0:
        return plain
    # Shifts leave the estimate as it is; with weights they make the library's variance that of
    # a ratio.
    middle = float(np.average(predicted, weights=weights))
    value, powered = _by_library(
        labels - classical, predicted - middle, unlabelled - middle, weights, others
    )
    powered *= math.sqrt(n / (n - 2))  # its variances divide by n; mean and power are estimated
    if not 0 < powered < error:
        return plain
    return PoweredMean(value + classical, powered, classical, error, correlation, n, True)


def wilson_interval(rate: float, effective: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate known as well as from `effective` independent labels.

    Stays within 0 and 1 and keeps its coverage near them, unlike the normal interval;
    with an effective sample size it is that of Korn and Graubard (1998) for designed samples.
    """
    _library()  # it brings statsmodels along
    from statsmodels.stats.proportion import proportion_confint

    rate = min(1.0, max(0.0, rate))
    low, high = proportion_confint(rate * effective, effective, 1 - confidence, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def mean_interval(estimate: PoweredMean, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean that is no rate, such as a difference of rates."""
    from scipy.stats import t

    half = float(t.ppf(0.5 + confidence / 2, max(1, estimate.clusters - 1))) * estimate.error
    return estimate.value - half, estimate.value + half


def _by_library(
    labels: Float64, predicted: Float64, unlabelled: Float64, weights: Float64, others: Float64
) -> tuple[float, float]:
    """Estimate and standard error of PPI++ with the power that the data suggest."""
    from scipy.stats import norm

    one_sigma = 2 * float(norm.sf(1.0))
    low, high = _library().ppi_mean_ci(
        labels, predicted, unlabelled, alpha=one_sigma, w=weights, w_unlabeled=others
    )
    low, high = float(np.ravel(low)[0]), float(np.ravel(high)[0])
    return (low + high) / 2, (high - low) / 2


def _library() -> Any:
    """ppi-python, whose import switches every warning of the process off: put back here."""
    with warnings.catch_warnings():
        try:
            import ppi_py
        except ImportError as exc:
            raise MissingExtraError("estimating a pass rate", "ppi-python", "judges") from exc
    return ppi_py


def _clustered(
    columns: list[Float64], groups: Sequence[Hashable] | None
) -> tuple[Float64, list[Float64]]:
    """Weights (mean 1) and means of the clusters, in the order of their first item."""
    if groups is None or len(set(groups)) == len(groups):
        return np.ones(len(columns[0])), columns
    numbers: dict[Hashable, int] = {}
    rows = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    sizes = np.bincount(rows).astype(np.float64)
    means = [np.bincount(rows, weights=column) / sizes for column in columns]
    return sizes / sizes.mean(), means


def _variance(values: Float64, estimated: int) -> float:
    """Of the mean of values that are centred already."""
    n = len(values)
    return float((values**2).sum()) / max(1, n - estimated) / n


def _correlation(one: Float64, other: Float64) -> float:
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
