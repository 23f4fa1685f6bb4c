"""The pass rate of an app, from a judge's probabilities and a few labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import plain_arguments, share
from llama_index.tuning._running import own_work
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.answers import (
    FEATURES,
    groups_of,
    item_keys,
    items_of,
    labels_of,
    text_features,
)
from llama_index.tuning.judges.pass_rates.intervals import (
    PoweredMean,
    powered_mean,
    wilson_interval,
)
from llama_index.tuning.judges.pass_rates.two_sample import two_sample_test

logger = logging.getLogger(__name__)

Interval = tuple[float, float]

MIN_LABELS = 10
FEW_LABELS = 100
EXTREME = 0.8
WEAK = 0.3
WIDEST = 1.03


class ProbabilityJudge(Protocol):
    """A judge as it is needed here; `TunedJudge` is one."""

    def probabilities(self, dataset: Any, /) -> Any:
        """Probability that each item passes, shape `(n,)`."""


@dataclass(frozen=True, kw_only=True)
class PassRate:
    """The share of an app's answers that people would pass.

    Attributes:
        estimate: the rate.
        interval: lower and upper end.
        classical: the rate from the labels alone.
        classical_interval: its interval, Wilson's.
        correlation: of labels and judge over the labelled items; what the judge is worth here.
        n: labelled items.
        unlabelled: items that only the judge has seen.
        effective_n: labels that alone would have been worth as much.
        confidence: level of the intervals.
        method: `"ppi++"`, `"ppi++, cross-fitted"`, or `"classical"` if the judge adds nothing.
        warnings: what a reader should know before trusting the interval.
    """

    estimate: float
    interval: Interval
    classical: float
    classical_interval: Interval
    correlation: float
    n: int
    unlabelled: int
    effective_n: float
    confidence: float
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def half_width(self) -> float:
        """Half the interval's width."""
        return (self.interval[1] - self.interval[0]) / 2

    @property
    def classical_half_width(self) -> float:
        """Half the width of the labels' own interval."""
        return (self.classical_interval[1] - self.classical_interval[0]) / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"pass rate {_shown(self.estimate, self.interval)} ({self.confidence:.0%} interval, "
            f"{self.method}: {self.n} labels, {self.unlabelled} items judged)",
            f"labels alone {_shown(self.classical, self.classical_interval)}; judge and labels "
            f"correlate at {self.correlation:.2f}: as good as {self.effective_n:.0f} labels",
        ]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


@own_work
@plain_arguments
def estimate_pass_rate(
    judge: ProbabilityJudge | None,
    unlabelled: Any,
    labelled: JudgmentDataset,
    *,
    train: Callable[[JudgmentDataset], ProbabilityJudge] | None = None,
    folds: int = 5,
    confidence: float = 0.95,
    seed: int = 0,
) -> PassRate:
    """How often an app's answers pass, from a judge on many of them and labels on a few.

    Prediction-powered inference: the judge's mean over all answers, put right by its errors on
    the labelled ones (Angelopoulos et al. 2023). The interval covers whatever the judge is worth,
    and is about √(1 − correlation²) as wide as the labels' own if there are many unlabelled
    answers. It holds for random samples: draw the labelled answers at random from those the
    rate is about. Answers to one query count as one cluster.

    Args:
        judge: `probabilities(dataset)` gives each item's probability to pass. `None` with
            `train`.
        unlabelled: the app's other answers, as the judge takes them; verdicts in there are not
            looked at.
        labelled: answers with people's `passing`.
        train: if no judge is at hand that was trained on other data: makes one from verdicts.
            The labelled items are then cross-fitted, so that they both train and put right
            (Zrnic and Candès 2024).
        folds: of the cross-fitting.
        confidence: level of the interval, between 0 and 1.
        seed: of the folds.

    Returns:
        Estimate and interval beside the labels' own, with warnings – logged too – if the
        samples differ, the judge was trained on labelled items, or the numbers are small.

    Raises:
        DatasetError: fewer than 10 labelled items, or one without `passing`.
        MissingExtraError: the extra `judges` is not installed.

    Example:
        >>> from llama_index.tuning import JudgmentDataset
        >>> rows = [{"query": f"q{i}", "response": "a " * (i % 9 + 1), "passing": i % 9 > 3}
        ...         for i in range(240)]
        >>> class Length:
        ...     def probabilities(self, dataset):
        ...         return [min(1, len(j.response) / 14) for j in dataset.judgments]
        >>> people, others = map(JudgmentDataset.from_records, (rows[:60], rows[60:]))
        >>> rate = estimate_pass_rate(Length(), others, people)
        >>> rate.half_width < rate.classical_half_width
        True
    """
    _check_options(judge, train, folds)
    # Before the judge is asked, which may take long or cost.
    confidence = share("confidence", confidence)
    labels = labels_of(labelled, "labelled")
    if len(labels) < MIN_LABELS:
        raise DatasetError(f"labelled must hold at least {MIN_LABELS} items, got {len(labels)}")
    items_of(unlabelled, "unlabelled")
    groups, other_groups = groups_of(labelled), groups_of(unlabelled)
    if train is not None:
        predicted, others = _cross_fitted(train, unlabelled, labelled, groups, folds, seed)
    else:
        assert judge is not None
        predicted = probabilities_of(judge, labelled, "labelled")
        others = probabilities_of(judge, unlabelled, "unlabelled")
    known = trained_on(judge, labelled)
    found = pass_rate_of(
        labels,
        predicted,
        others,
        groups=groups,
        unlabelled_groups=other_groups,
        features=text_features(labelled),
        unlabelled_features=text_features(unlabelled),
        confidence=confidence,
        cross_fitted=train is not None,
        more_warnings=known,
        seed=seed,
    )
    for text in found.warnings:
        logger.warning("pass rate: %s", text)
    return found


def pass_rate_of(
    labels: ArrayLike,
    predicted: ArrayLike,
    unlabelled: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    unlabelled_groups: Sequence[Hashable] | None = None,
    features: Float64 | None = None,
    unlabelled_features: Float64 | None = None,
    confidence: float = 0.95,
    cross_fitted: bool = False,
    two_sample: bool = True,
    more_warnings: Sequence[str] = (),
    seed: int = 0,
) -> PassRate:
    """`estimate_pass_rate` on plain arrays.

    Args:
        labels: 1 for each labelled item that passes, 0 for the others (a share, if several
            people judged it), shape `(n,)`.
        predicted: probabilities of the same items, shape `(n,)`.
        unlabelled: probabilities of the other items, shape `(N,)`.
        groups: the cluster of each labelled item, such as its query; each its own by default.
        unlabelled_groups: the same for the others.
        features: what else the two samples are compared by, shape `(n, features)`.
        unlabelled_features: the same of the others.
        confidence: level of the interval, between 0 and 1.
        cross_fitted: whether the probabilities come from cross-fitting.
        two_sample: whether to test that the two samples are alike; nearly all of the time.
        more_warnings: put before those found here.
        seed: of the comparison's folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> chance = rng.random(1100)
        >>> truth = rng.random(1100) < chance
        >>> rate = pass_rate_of(truth[:100], chance[:100], chance[100:])
        >>> rate.interval[0] < 0.5 < rate.interval[1], rate.method
        (True, 'ppi++')
    """
    confidence = share("confidence", confidence)
    y = _shares("labels", labels, MIN_LABELS)
    given, others = _shares("predicted", predicted, 1), _shares("unlabelled", unlabelled, 1)
    if len(y) != len(given):
        raise ValueError(f"{len(y)} labels were given with {len(given)} predicted probabilities")
    found = powered_mean(y, given, others, groups, unlabelled_groups)
    worth = _independent(found, len(y))
    plain = wilson_interval(found.classical, worth, confidence)
    interval = wilson_interval(found.value, worth * found.gain, confidence)
    powered = found.powered and _width(interval) <= WIDEST * _width(plain)
    # Means over several judges are spread less than one judge's: not to be compared.
    judged = None if cross_fitted else (given, others)
    compared = judged, features, unlabelled_features
    test = _difference_warning(*compared, seed) if two_sample else []
    name = "ppi++, cross-fitted" if cross_fitted else "ppi++"
    return PassRate(
        estimate=min(1.0, max(0.0, found.value)) if powered else found.classical,
        interval=interval if powered else plain,
        classical=found.classical,
        classical_interval=plain,
        correlation=found.correlation,
        n=len(y),
        unlabelled=len(others),
        effective_n=worth * found.gain if powered else worth,
        confidence=confidence,
        method=name if powered else "classical",
        warnings=(*more_warnings, *test, *_number_warnings(found, powered)),
    )


def _number_warnings(found: PoweredMean, powered: bool) -> list[str]:
    told = []
    if found.correlation < WEAK:
        told.append(
            f"judge and labels correlate at {found.correlation:.2f} only: below {WEAK} the judge "
            "narrows the interval by less than 5 %; label more, or tune a better judge"
        )
    elif not powered:
        told.append("the judge would only widen the interval: the labels alone are used")
    rate = found.value if powered else found.classical
    if found.clusters < FEW_LABELS and not 1 - EXTREME <= rate <= EXTREME:
        told.append(
            f"{found.clusters} independent labels are few for a rate of {rate:.2f}: below "
            f"{FEW_LABELS}, rates below {1 - EXTREME:.1f} or beyond {EXTREME} can be covered less "
            "often than the interval says"
        )
    return told


def _independent(found: PoweredMean, n: int) -> float:
    """How many independent labels the clustered ones are worth; at most `n` of them."""
    spread = found.classical * (1 - found.classical)
    if found.clusters == n or spread == 0 or found.classical_error == 0:
        return float(found.clusters)
    return min(float(n), spread / found.classical_error**2)


def _difference_warning(
    predicted: tuple[Float64, Float64] | None,
    features: Float64 | None,
    others: Float64 | None,
    seed: int,
) -> list[str]:
    if (features is None) != (others is None):
        raise ValueError("features and unlabelled_features must be given together")
    names: list[str] = []
    samples: tuple[list[Float64], list[Float64]] = ([], [])
    if predicted is not None:
        names.append("the judge's probability")
        for sample, column in zip(samples, predicted, strict=True):
            sample.append(column[:, None])
    if features is not None and others is not None:
        if predicted and (len(features), len(others)) != tuple(map(len, predicted)):
            raise ValueError("features must have one row for each item")
        width = features.shape[1]
        names += FEATURES if width == len(FEATURES) else [f"feature {i}" for i in range(width)]
        for sample, table in zip(samples, (features, others), strict=True):
            sample.append(table)
    if not names:
        return []
    first, second = (np.hstack(sample) for sample in samples)
    test = two_sample_test(first, second, names, seed=seed)
    if test is None:
        return [f"{min(len(first), len(second))} items are too few to compare the samples"]
    if not test.found:
        return []
    return [
        f"labelled and unlabelled items differ (p = {test.p_value:.1g}; most in {test.feature}; "
        f"a classifier tells them apart with AUC {test.auc:.2f}): the interval holds for items "
        "like the labelled ones; label a random sample of the items that the rate is about"
    ]


def trained_on(judge: ProbabilityJudge | None, *labelled: JudgmentDataset) -> list[str]:
    """A warning if the judge learnt from labelled items, by the keys that it has kept."""
    trained = set(getattr(judge, "training_keys", None) or ())
    keys = [key for dataset in labelled for key in item_keys(dataset)]
    both = sum(key in trained for key in keys)
    if not both:
        return []
    return [
        f"{both} of {len(keys)} labelled items were used to train the judge: it looks better on "
        "them than it is, and the interval is too narrow; leave them out, or cross-fit (train=)"
    ]


def _cross_fitted(
    train: Callable[[JudgmentDataset], ProbabilityJudge],
    unlabelled: Any,
    labelled: JudgmentDataset,
    groups: Sequence[Hashable],
    folds: int,
    seed: int,
) -> tuple[Float64, Float64]:
    """Each labelled item judged by a judge that did not see its query; the others by all."""
    distinct = list(dict.fromkeys(groups))
    if len(distinct) < folds:
        raise DatasetError(
            f"{len(distinct)} different queries are labelled; {folds} folds need as many"
        )
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold_of = {distinct[row]: place % folds for place, row in enumerate(order)}
    fold = np.array([fold_of[group] for group in groups])
    predicted = np.zeros(len(groups))
    others: list[Float64] = []
    for number in range(folds):
        inside = [j for j, f in zip(labelled.judgments, fold, strict=True) if f == number]
        outside = [j for j, f in zip(labelled.judgments, fold, strict=True) if f != number]
        judge = train(JudgmentDataset(outside))
        predicted[fold == number] = probabilities_of(judge, JudgmentDataset(inside), "labelled")
        others.append(probabilities_of(judge, unlabelled, "unlabelled"))
    return predicted, np.mean(others, axis=0)


def probabilities_of(judge: ProbabilityJudge, dataset: Any, name: str) -> Float64:
    """A judge's checked answer on the argument of that name, shape `(n,)`."""
    n = len(items_of(dataset, name))
    values = np.asarray(judge.probabilities(dataset), dtype=np.float64)
    if values.shape != (n,) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"the judge must give a probability from 0 to 1 for each of the {n} items of {name}, "
            f"got {_described(values, n)}"
        )
    return values


def _described(values: Float64, n: int) -> str:
    if values.shape != (n,):
        return f"shape {values.shape}"
    bad = int(np.flatnonzero(~((values >= 0) & (values <= 1)))[0])
    return f"{values[bad]} for item {bad}"


def _shares(name: str, values: ArrayLike, least: int) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise DatasetError(f"{name} must be a list of at least {least}, got shape {array.shape}")
    bad = np.flatnonzero(~((array >= 0) & (array <= 1)))  # NaN too
    if len(bad):
        raise DatasetError(f"{name}[{bad[0]}] must be from 0 to 1, got {array[bad[0]]}")
    return array


def check_judge(judge: object) -> None:
    """It gives probabilities; an LLM evaluator, for one, does not."""
    if not callable(getattr(judge, "probabilities", None)):
        raise TypeError(
            f"judge must have probabilities(dataset), as a TunedJudge has, got "
            f"{type(judge).__name__}; an evaluator's verdicts can be distilled by "
            "JudgeFinetuneEngine"
        )


def _check_options(judge: object, train: object, folds: int) -> None:
    if (judge is None) == (train is None):
        raise ValueError("give either a judge or train=, which makes judges by cross-fitting")
    if train is not None and not callable(train):
        raise TypeError(f"train must be a function dataset → judge, got {type(train).__name__}")
    if judge is not None:
        check_judge(judge)
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise ValueError(f"folds must be a whole number >= 2, got {folds!r}")


def _width(interval: Interval) -> float:
    return interval[1] - interval[0]


def _shown(rate: float, interval: Interval) -> str:
    return f"{rate:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
