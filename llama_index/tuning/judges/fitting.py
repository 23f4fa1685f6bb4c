"""Fitting a light judge: each choice on verdicts that were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from llama_index.tuning.judges.features import Floats
from llama_index.tuning.judges.light import TIE, Line, Linear
from llama_index.tuning.judges.options import JudgeOptions

Ints = NDArray[np.int64]

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
"""Inverse strengths of the L2 penalty; the cross-fitted best is taken."""
INNER_FOLDS = 3
SURE = 0.02
"""Probabilities of a judge that saw one class only stay this far from 0 and 1."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What is learnt from, a row for each verdict.

    Attributes:
        table: features, shape `(n, columns)`.
        labels: 1, 0, or 0.5 for a tie, shape `(n,)`.
        weights: how much each counts, shape `(n,)`.
        fold: the part that each is held out with, shape `(n,)`; one query, one fold.
        pairwise: whether features are differences of two responses.
        topics: columns that are only used where that helps, shape `(m,)`.
    """

    table: Floats
    labels: Floats
    weights: Floats
    fold: Ints
    pairwise: bool
    topics: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __getitem__(self, rows: NDArray[np.bool_] | Ints) -> Rows:
        kept = {name: getattr(self, name)[rows] for name in ("table", "labels", "weights", "fold")}
        return replace(self, **kept)

    def columns(self, chosen: Sequence[int]) -> Rows:
        """The same rows with some of the features, all of them used."""
        return replace(self, table=self.table[:, list(chosen)], topics=self.topics[:0])


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
        line: calibration and threshold, from the held-out values.
        setting: what was chosen by cross-fitting.
        chances: held-out probabilities, shape `(n,)`.
        verdicts: held-out verdicts, shape `(n,)`.
        certainties: held-out distances from the line, shape `(n,)`.
    """

    linear: Linear
    line: Line
    setting: Setting
    chances: Floats
    verdicts: Floats
    certainties: Floats


def fit(rows: Rows, options: JudgeOptions) -> Fitted:
    """Fit, calibrate and draw the line; everything held out is chosen without its own fold."""
    setting = choose_setting(rows)
    logits = held_out(rows, lambda part: fit_linear(part, choose_setting(part)))
    values = held_out_opinions(rows, options, lambda _: logits)
    line = with_margin(draw_line(logits, rows, options), values, options)
    return Fitted(fit_linear(rows, setting), line, setting, *values)


def held_out_opinions(
    rows: Rows, options: JudgeOptions, logits_by: Callable[[NDArray[np.bool_]], Floats]
) -> Floats:
    """Probability, verdict and certainty of each row by lines that its fold had no part in.

    Args:
        rows: what was not trained on.
        options: what the line is drawn for.
        logits_by: logits of all rows, shape `(n,)`, with whatever is chosen chosen on these rows.

    Returns:
        Shape `(3, n)`.
    """
    values = np.zeros((3, len(rows.labels)))
    for number in np.unique(rows.fold):
        inside = rows.fold == number
        logits = logits_by(~inside)
        line = draw_line(logits[~inside], rows[~inside], options)
        chances = line.chances(logits[inside])
        values[:, inside] = chances, line.verdicts(chances), line.certainties(chances)
    return values


def with_margin(line: Line, opinions: Floats, options: JudgeOptions) -> Line:
    """The line, with the margin under which the chosen share of held-out answers is uncertain."""
    margin = float(np.quantile(opinions[2], options.defer_share))
    return replace(line, margin=margin if options.defer_share else 0.0)


def held_out(rows: Rows, train: Callable[[Rows], Linear]) -> Floats:
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


def log_loss(logits: Floats, rows: Rows) -> float:
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


def draw_line(logits: Floats, rows: Rows, options: JudgeOptions) -> Line:
    """Calibration, then threshold or band of ties, from held-out logits."""
    line = calibrate(logits, rows)
    chances = line.chances(logits)
    if rows.pairwise:
        return replace(line, band=choose_band(chances, rows))
    return replace(line, threshold=choose_threshold(chances, rows, options))


def calibrate(logits: Floats, rows: Rows) -> Line:
    """Platt's (1999) logistic calibration; without an intercept for pairs."""
    from sklearn.linear_model import LogisticRegression

    table, labels, weights = _hard(logits[:, None], rows.labels, rows.weights)
    if len(np.unique(labels)) < 2 or np.ptp(table) == 0:
        return Line()
    model = LogisticRegression(C=1.0, fit_intercept=not rows.pairwise)
    model.fit(table, labels, sample_weight=weights / weights.mean())
    slope = float(model.coef_[0, 0])
    if slope <= 0:  # worse than chance where it did not train: nothing but the base rate is known
        spread = max(1e-9, float(np.abs(table).max()))
        slope = 1e-3 / spread
    offset = 0.0 if rows.pairwise else float(model.intercept_[0])
    return Line(slope, offset)


def choose_threshold(chances: Floats, rows: Rows, options: JudgeOptions) -> float:
    """The probability to pass from, for the target; of several as good, the middle one."""
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
    all_right, all_wrong = max(passed[-1], 1e-12), max(leaked[-1], 1e-12)
    if options.target == "accuracy":
        all_right = all_wrong = 1.0
    values = np.where(ends, passed / all_right - leaked / all_wrong, -np.inf)
    if values.max() < 0:  # to pass nothing is better
        return 1.0
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return _between(sorted_chances, int(best[len(best) // 2]))


def choose_band(chances: Floats, rows: Rows) -> float:
    """The distance from 0.5 up to which a pair is a tie, for accuracy over three classes."""
    distance = np.abs(chances - 0.5)
    correct = np.where(rows.labels == TIE, False, (chances >= 0.5) == (rows.labels == 1))
    order = np.argsort(distance, kind="stable")
    won = ((rows.labels == TIE).astype(float) - correct)[order] * rows.weights[order]
    values = np.concatenate([[0.0], np.cumsum(won)])
    best = int(values.argmax())
    return float(distance[order][best - 1]) if best else 0.0


def _hard(table: Floats, labels: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Ties as two rows of half the weight."""
    tied = labels == TIE
    return (
        np.concatenate([table, table[tied]]),
        np.concatenate([np.where(tied, 1.0, labels), np.zeros(tied.sum())]),
        np.concatenate([np.where(tied, weights / 2, weights), weights[tied] / 2]),
    )


def _between(decreasing: Floats, last: int) -> float:
    """Halfway between the last that passes and the first that does not."""
    if last + 1 == len(decreasing):
        return float(decreasing[last])
    return float((decreasing[last] + decreasing[last + 1]) / 2)
