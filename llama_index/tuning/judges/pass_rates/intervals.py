"""Prediction-powered means: a few labels and many predictions, by ppi-python.

PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453) with its power tuned on the data. The
library's variances are those of independent items; here a cluster of items (the answers to one
query) counts as one, and small samples pay for what was estimated from them.

A judge's probabilities, put right for answers that pass more or less often than it learned.

Whether two samples look as if they came from one population: a classifier two-sample test.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from llama_index.tuning._arrays import Float64
from llama_index.tuning.errors import DatasetError, MissingExtraError
from llama_index.tuning.judges.data import JudgeData, judge_data_of
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.records import TIE, DecisionRule

if TYPE_CHECKING:
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.judges.judge import TunedJudge


@dataclass(frozen=True)
class PoweredMean:
    """A mean estimated from labels and predictions, beside the labels' own.

    Attributes:
        value: the estimate.
        error: its standard error.
        classical: the labels' mean.
        classical_error: its standard error.
        correlation: of labels with predictions, over clusters; 0 where one is constant.
        clusters: number of independent labelled units.
        powered: whether predictions were used; they are not where they would only add noise.
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

    Stays within 0 and 1 and keeps its coverage near them, where the normal interval does not;
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


Method = Literal["platt", "prior"]

MIN_ITEMS = 50
MIN_OF_A_KIND = 5
_SURE = 1e-6


def recalibrate_judge(
    judge: TunedJudge,
    labelled: JudgmentDataset,
    *,
    method: Method | None = None,
    passing_score: float | None = None,
) -> TunedJudge:
    """The judge with probabilities that hold for the answers that `labelled` is a sample of.

    A judge's probabilities import how often answers passed where it was trained. On other answers
    they are off by the ratio of the odds, which is a shift of the logit (Saerens, Latinne and
    Decaestecker 2002); where the judge is also more or less sure than it should be, the logit
    has another slope too (Platt 1999). 200 labelled answers tell both well enough.

    Verdicts stay as they are – threshold and band of ties move along – and so does the share of
    answers that are handed to `defer_to`.

    Args:
        judge: left as it is.
        labelled: verdicts on a random sample of the new answers, at least 50, none of which the
            judge was trained on.
        method: `"prior"` fits the shift alone, which needs fewer labels and is right where nothing
            but the pass rate differs; `"platt"` the slope too. The first by default; for pairs,
            which have no pass rate, the second, and a slope only.
        passing_score: a verdict with a score and no `passing` passes from this score on.

    Returns:
        A new judge on the same models.

    Raises:
        DatasetError: too few verdicts, of one kind only, of another form than the judge takes, or
            on items that it was trained on.

    Example:
        >>> from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset
        >>> def answers(start, rate):
        ...     return JudgmentDataset.from_records(
        ...         {
        ...             "query": f"Fee of plan {n}?",
        ...             "response": "I don't know." if n % 4 == 0 else f"It is {n} euros.",
        ...             "passing": n % 10 < 10 * rate if n % 4 else n % 10 < 2,
        ...         }
        ...         for n in range(start, start + 200)
        ...     )
        >>> engine = JudgeFinetuneEngine(answers(0, 0.7), accept="always")
        >>> _ = engine.finetune()
        >>> judge, others = engine.get_finetuned_model(), answers(1000, 0.4)
        >>> new = recalibrate_judge(judge, others)
        >>> rate = np.mean([item.passing for item in others.judgments])
        >>> [round(float(j.probabilities(others).mean() - rate), 1) for j in (judge, new)]
        [0.2, 0.0]
    """
    if method is not None and method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; choose one of: {', '.join(get_args(Method))}")
    material = judge_data_of(labelled, JudgeOptions(passing_score=passing_score), "labelled")
    method = method or ("platt" if material.pairwise else "prior")
    _check(judge, material, method)
    chances = judge.probabilities(material.items)
    slope, shift = fit_scale(
        chances, material.labels, material.weights, method, shifted=not material.pairwise
    )
    return judge.with_line(scaled(judge.model.line, slope, shift))


def fit_scale(
    chances: Float64, labels: Float64, weights: Float64, method: Method, *, shifted: bool = True
) -> tuple[float, float]:
    """Slope and shift of the logits with the greatest likelihood of the labels.

    The slope is held near 1 by a weak prior (its logarithm normal, standard deviation 1), for
    labels that the judge separates without error would make it grow without end.

    Args:
        chances: a judge's probabilities, shape `(n,)`.
        labels: 1, 0, or 0.5 for a tie, shape `(n,)`.
        weights: shape `(n,)`.
        method: whether the slope is fitted or stays 1.
        shifted: whether there is a shift; pairs have none, so that their order cannot matter.
    """
    from scipy.optimize import minimize

    logits = logit(np.clip(chances, _SURE, 1 - _SURE))
    share = weights / weights.mean()

    def loss(values: Float64) -> float:
        stretch = values[0] if method == "platt" else 0.0
        moved = np.exp(stretch) * logits + (values[-1] if shifted else 0.0)
        return float((share * (np.logaddexp(0, moved) - labels * moved)).sum() + stretch**2 / 2)

    start = np.zeros(int(method == "platt") + int(shifted))
    found = minimize(loss, start, method="BFGS").x
    slope = float(np.exp(found[0])) if method == "platt" else 1.0
    return slope, float(found[-1]) if shifted else 0.0


def scaled(line: DecisionRule, slope: float, shift: float) -> DecisionRule:
    """The line for logits that are stretched and shifted: no verdict changes, and none's certainty.

    Args:
        line: the judge's.
        slope: above 0.
        shift: 0 for pairs.
    """

    def moved(value: float) -> float:
        return float(expit(slope * logit(value) + shift))

    band = line.band
    return replace(
        line,
        slope=line.slope * slope,
        offset=line.offset * slope + shift,
        threshold=moved(line.threshold),
        band=None if band is None else moved(TIE + band) - TIE,
        margin=line.margin * slope,
    )


def _check(judge: TunedJudge, material: JudgeData, method: Method) -> None:
    """Before any work: enough, of both kinds, of the judge's form, and new to it."""
    if material.pairwise != judge.model.pairwise:
        wanted = "pairs" if judge.model.pairwise else "single responses"
        raise DatasetError(f"labelled must hold verdicts on {wanted}, as the judge was trained on")
    if material.pairwise and method == "prior":
        raise ValueError('method="prior" is for single responses: pairs have no pass rate')
    count = len(material.labels)
    if count < MIN_ITEMS:
        raise DatasetError(f"labelled must hold at least {MIN_ITEMS} verdicts, got {count}")
    for kind, label in (("passes", 1), ("fails", 0)):
        found = int((material.labels == label).sum())
        if found < MIN_OF_A_KIND:
            raise DatasetError(
                f"labelled must hold at least {MIN_OF_A_KIND} {kind}, got {found} of {count}"
            )
    trained = set(judge.training_keys)
    known = sum(key in trained for key in material.keys)
    if known:
        raise DatasetError(
            f"{known} of {count} labelled items were used to train the judge, which is surer of "
            "them than of others: leave them out"
        )


ALARM = 0.005
"""p-value below which the samples count as different; the smaller of two tests, doubled."""
_FOLDS = 5
_LEAST = 2 * _FOLDS


@dataclass(frozen=True)
class Shift:
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


def sample_shift(
    first: Float64, second: Float64, names: Sequence[str], *, seed: int = 0
) -> Shift | None:
    """Lopez-Paz and Oquab (2017): can a classifier tell which sample an item is from?

    Logistic regression, cross-fitted, on the features and their squares; its scores are compared
    by a rank test. A Kolmogorov-Smirnov test of each feature by itself stands beside it.

    Args:
        first: features, shape `(n, features)`.
        second: features, shape `(N, features)`.
        names: of the features.
        seed: of the folds.

    Returns:
        `None` where a sample has fewer than 10 items, too few to tell.
    """
    from scipy.stats import ks_2samp, mannwhitneyu

    if min(len(first), len(second)) < _LEAST:
        return None
    both = np.concatenate([first, second])
    spread = np.ptp(both, axis=0) > 0
    if not spread.any():
        return Shift(1.0, 0.5, names[0])
    single = [
        float(ks_2samp(first[:, column], second[:, column]).pvalue) if spread[column] else 1.0
        for column in range(both.shape[1])
    ]
    scores = _scores(both[:, spread], np.arange(len(both)) < len(first), seed)
    mine, others = scores[: len(first)], scores[len(first) :]
    told = mannwhitneyu(mine, others, alternative="greater")
    p_value = min(1.0, 2 * min(float(told.pvalue), min(single) * int(spread.sum())))
    auc = float(told.statistic) / (len(mine) * len(others))
    return Shift(p_value, auc, names[int(np.argmin(single))])


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
