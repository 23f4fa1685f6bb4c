"""Fitting a light judge: each choice on verdicts that were not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from llama_index.tuning._arrays import Float64
from llama_index.tuning.judges.light.model import LightJudge, Linear, novelty_of
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.records import TIE, DecisionRule, Predictions, Rows, log_odds
from llama_index.tuning.judges.training import TrainingData, TrainingResult

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
"""Inverse strengths of the L2 penalty; the cross-fitted best is taken."""
INNER_FOLDS = 3
SURE = 0.02
"""Probabilities of a judge that saw one class only stay this far from 0 and 1."""


@dataclass(frozen=True)
class Setting:
    """Inverse strength of the L2 penalty, and whether topics are used."""

    strength: float
    topics: bool


@dataclass(frozen=True, eq=False)
class Fitted:
    """A judge fitted on all rows, with what judges that did not see a row said of it.

    Attributes:
        linear: fitted on all rows.
        rule: calibration and threshold, from the held-out values.
        setting: what was chosen by cross-fitting.
        chances: held-out probabilities, shape `(n,)`.
        verdicts: held-out verdicts, shape `(n,)`.
        certainties: held-out distances from the threshold, in logits, shape `(n,)`.
    """

    linear: Linear
    rule: DecisionRule
    setting: Setting
    chances: Float64
    verdicts: Float64
    certainties: Float64


def fit(rows: Rows, options: JudgeOptions) -> Fitted:
    """Fit, calibrate and choose the rule; nothing held out had a part in its own choice."""
    setting = choose_setting(rows)
    logits = held_out(rows, lambda part: fit_linear(part, choose_setting(part)))
    values = held_out_predictions(rows, options, lambda _: logits)
    rule = with_margin(choose_rule(logits, rows, options), values, options)
    return Fitted(fit_linear(rows, setting), rule, setting, *values)


def held_out_predictions(
    rows: Rows, options: JudgeOptions, logits_by: Callable[[NDArray[np.bool_]], Float64]
) -> Float64:
    """Probability, verdict and certainty of each row by lines that its fold had no part in.

    Args:
        rows: what was not trained on.
        options: what the rule is chosen for.
        logits_by: logits of all rows, shape `(n,)`, with whatever is chosen chosen on these rows.

    Returns:
        Shape `(3, n)`.
    """
    values = np.zeros((3, len(rows.labels)))
    for number in np.unique(rows.fold):
        inside = rows.fold == number
        logits = logits_by(~inside)
        rule = choose_rule(logits[~inside], rows[~inside], options)
        chances = rule.chances(logits[inside])
        values[:, inside] = chances, rule.verdicts(chances), rule.certainties(chances)
    return values


def with_margin(rule: DecisionRule, predictions: Float64, options: JudgeOptions) -> DecisionRule:
    """The rule, with the margin under which the chosen share of held-out answers is uncertain."""
    margin = float(np.quantile(predictions[2], options.defer_share))
    return replace(rule, margin=margin if options.defer_share else 0.0)


def held_out(rows: Rows, train: Callable[[Rows], Linear]) -> Float64:
    """Each row's logit by a model fitted on the other folds, shape `(n,)`."""
    logits = np.zeros(len(rows.labels))
    for number in np.unique(rows.fold):
        inside = rows.fold == number
        logits[inside] = train(rows[~inside]).logits(rows.table[inside])
    return logits


def choose_setting(rows: Rows) -> Setting:
    """The penalty, and topics or none, with the least held-out log loss."""
    order = np.unique(rows.fold, return_inverse=True)[1]
    inner = replace(rows, fold=order % INNER_FOLDS)  # a query's rows stay together
    uses = (False, True) if len(rows.topics) else (False,)
    settings = [Setting(strength, topics) for topics in uses for strength in STRENGTHS]
    if len(np.unique(inner.fold)) < 2:
        return settings[0]
    return min(settings, key=lambda setting: _loss(inner, setting))


def _loss(rows: Rows, setting: Setting) -> float:
    return log_loss(held_out(rows, lambda part: fit_linear(part, setting)), rows)


def log_loss(logits: Float64, rows: Rows) -> float:
    """Weighted mean of the cross-entropy."""
    losses = np.logaddexp(0, logits) - rows.labels * logits
    return float(np.average(losses, weights=rows.weights))


def fit_linear(rows: Rows, setting: Setting) -> Linear:
    """A logistic regression with an L2 penalty; a tie counts half for either side."""
    from sklearn.linear_model import LogisticRegression

    seen = rows.table
    if len(rows.topics) and not setting.topics:
        seen = seen.copy()
        seen[:, rows.topics] = 0  # such columns get no weight
    count = seen.shape[1]
    centre = np.zeros(count) if rows.pairwise else seen.mean(axis=0)
    spread = np.sqrt(((seen - centre) ** 2).mean(axis=0))
    scale = np.where(spread > 1e-9, spread, 1.0)
    standard = (seen - centre) / scale
    reach = np.abs(standard).max(axis=0, initial=0.0)
    table, labels, weights = _hard(standard, rows.labels, rows.weights)
    if len(np.unique(labels)) < 2:
        bias = 0.0 if rows.pairwise else float(logit(np.clip(labels.mean(), SURE, 1 - SURE)))
        return Linear(np.zeros(count), bias, centre, scale, reach)
    model = LogisticRegression(C=setting.strength, fit_intercept=not rows.pairwise, max_iter=2000)
    model.fit(table, labels, sample_weight=weights / weights.mean())
    bias = 0.0 if rows.pairwise else float(model.intercept_[0])
    return Linear(model.coef_[0].astype(np.float64), bias, centre, scale, reach)


def choose_rule(logits: Float64, rows: Rows, options: JudgeOptions) -> DecisionRule:
    """Calibration, then threshold or band of ties, from held-out logits."""
    rule = calibrate(logits, rows)
    chances = rule.chances(logits)
    if rows.pairwise:
        return replace(rule, band=choose_band(chances, rows))
    return replace(rule, threshold=choose_threshold(chances, rows, options))


def calibrate(logits: Float64, rows: Rows) -> DecisionRule:
    """Platt's (1999) logistic calibration; without an intercept for pairs."""
    from sklearn.linear_model import LogisticRegression

    table, labels, weights = _hard(logits[:, None], rows.labels, rows.weights)
    if len(np.unique(labels)) < 2 or np.ptp(table) == 0:
        return DecisionRule()
    model = LogisticRegression(C=1.0, fit_intercept=not rows.pairwise)
    model.fit(table, labels, sample_weight=weights / weights.mean())
    slope = float(model.coef_[0, 0])
    if slope <= 0:  # worse than chance on held-out rows: nothing but the base rate is known
        spread = max(1e-9, float(np.abs(table).max()))
        slope = 1e-3 / spread
    offset = 0.0 if rows.pairwise else float(model.intercept_[0])
    return DecisionRule(slope, offset)


def choose_threshold(chances: Float64, rows: Rows, options: JudgeOptions) -> float:
    """The probability to pass from, for the target."""
    if options.target == "balanced accuracy":
        return _midpoint(chances, rows)
    order = np.argsort(-chances, kind="stable")
    sorted_chances = chances[order]
    right = rows.labels[order] * rows.weights[order]
    wrong = (1 - rows.labels[order]) * rows.weights[order]
    passed, leaked = np.cumsum(right), np.cumsum(wrong)
    ends = np.append(np.diff(sorted_chances) < 0, True)  # equal probabilities pass together
    if options.target == "precision":
        good = ends & (passed >= options.target_precision * (passed + leaked))
        last = np.flatnonzero(good)
        return _between(sorted_chances, int(last[-1])) if len(last) else 1.0
    values = np.where(ends, passed - leaked, -np.inf)
    if values.max() < 0:  # to pass nothing is better
        return 1.0
    best = np.flatnonzero(values >= values.max() - 1e-12)  # of several as good, the middle one
    return _between(sorted_chances, int(best[len(best) // 2]))


def _midpoint(chances: Float64, rows: Rows) -> float:
    """Halfway, in logits, between the mean passing and the mean failing answer.

    Fisher's (1936) rule. How many answers pass moves neither mean, so that the threshold holds
    if another share passes; the threshold with the best balanced accuracy on the training
    verdicts hangs on the few answers about it (`benchmarks/judge_threshold.py`).
    """
    logits = log_odds(chances)
    means = [
        float(np.average(logits[rows.labels == kind], weights=rows.weights[rows.labels == kind]))
        for kind in np.unique(rows.labels)
    ]
    return float(expit(np.mean(means)))


def choose_band(chances: Float64, rows: Rows) -> float:
    """The distance from 0.5 up to which a pair is a tie, for accuracy over three classes."""
    distance = np.abs(chances - 0.5)
    correct = np.where(rows.labels == TIE, False, (chances >= 0.5) == (rows.labels == 1))
    order = np.argsort(distance, kind="stable")
    won = ((rows.labels == TIE).astype(float) - correct)[order] * rows.weights[order]
    values = np.concatenate([[0.0], np.cumsum(won)])
    best = int(values.argmax())
    return float(distance[order][best - 1]) if best else 0.0


def _hard(table: Float64, labels: Float64, weights: Float64) -> tuple[Float64, Float64, Float64]:
    """Ties as two rows of half the weight."""
    tied = labels == TIE
    return (
        np.concatenate([table, table[tied]]),
        np.concatenate([np.where(tied, 1.0, labels), np.zeros(tied.sum())]),
        np.concatenate([np.where(tied, weights / 2, weights), weights[tied] / 2]),
    )


def _between(decreasing: Float64, last: int) -> float:
    """Halfway between the last that passes and the first that does not."""
    if last + 1 == len(decreasing):
        return float(decreasing[last])
    return float((decreasing[last] + decreasing[last + 1]) / 2)


def learn(training: TrainingData) -> TrainingResult:
    """Fit on all verdicts; predictions on the held-out ones, or cross-fitted ones on its own."""
    data = training.data
    fitted = fit(training.rows, training.options)
    table = training.rows.table if training.other is None else training.other
    model = LightJudge(
        training.maker,
        fitted.linear,
        fitted.rule,
        pairwise=data.pairwise,
        query=data.query,
        base_model=training.base_model,
        training_keys=tuple(dict.fromkeys(data.keys)),
        novelty=novelty_of(training.rows, training.as_new),
    )
    return TrainingResult(
        model=model,
        predictions=predictions(fitted, training.other),
        method="cross-fitting" if training.held_out is None else "validation verdicts",
        flip_rate=flips(fitted, table) if data.pairwise else None,
        settings=asdict(fitted.setting),
    )


def predictions(fitted: Fitted, table: Float64 | None) -> Predictions:
    """Held-out predictions on the training rows, or predictions on another table."""
    if table is None:
        return Predictions(fitted.chances, fitted.verdicts, fitted.certainties)
    chances = fitted.rule.chances(fitted.linear.logits(table))
    return Predictions(chances, fitted.rule.verdicts(chances), fitted.rule.certainties(chances))


def flips(fitted: Fitted, table: Float64) -> float:
    """Share of pairs whose verdict changes when the responses change places."""
    one, other = predictions(fitted, table), predictions(fitted, -table)
    return float((one.verdicts != 1 - other.verdicts).mean())
