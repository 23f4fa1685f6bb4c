"""How well verdicts agree, with intervals over queries.

What one figure says of a judge, and the ceilings beside it, each with its interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning.evaluate.bootstrap import (
    Measure,
    among,
    auroc_of,
    calibration_error_of,
    intervals,
    mean_of,
    pearson_of,
    spearman_of,
)
from llama_index.tuning.evaluate.routing import calibration_error
from llama_index.tuning.judges.data import MIN_VERDICTS, JudgeData, other_scores, people_pairs
from llama_index.tuning.judges.records import TIE, Predictions
from llama_index.tuning.report import Gain

METRICS = ("balanced accuracy", "accuracy", "kappa")
_KINDS = 4


def agreement_gains(
    truth: Float64,
    base: Float64,
    tuned: Float64,
    clusters: Ints,
    *,
    confidence: float = 0.9,
    seed: int = 0,
) -> dict[str, Gain]:
    """Agreement with the truth of two judges, and the difference with its interval.

    All verdicts on a query are taken or left together (`evaluate.bootstrap`). `n` counts the
    queries.

    Args:
        truth: 1, 0, or 0.5 for a tie, shape `(n,)`.
        base: verdicts of one judge, `NO_VERDICT` if there is none, shape `(n,)`.
        tuned: verdicts of the other, shape `(n,)`.
        clusters: the query of each, shape `(n,)`.
        confidence: level of the intervals.
        seed: the same seed gives the same intervals.

    Example:
        >>> found = agreement_gains([1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 2, 3])
        >>> found["accuracy"].base, found["accuracy"].tuned, found["kappa"].tuned
        (0.5, 1.0, 1.0)
    """
    rows = np.asarray(clusters)
    before, after = (
        agreement_measures(np.asarray(truth), np.asarray(said)) for said in (base, tuned)
    )
    ends = intervals(
        {name: _difference(after[name], before[name]) for name in METRICS},
        rows,
        confidence=confidence,
        seed=seed,
    )
    whole, count = np.ones((1, len(rows))), len(np.unique(rows))
    return {
        name: Gain(
            float(before[name](whole)[0]),
            float(after[name](whole)[0]),
            *ends[name],
            count,
            confidence,
        )
        for name in METRICS
    }


def agreement(tables: Float64) -> Float64:
    """Balanced accuracy, accuracy and Cohen's (1960) kappa, shape `(m, 3)`.

    Args:
        tables: weights of truth (row) by verdict (column), shape `(m, K, K)`.
    """
    total = tables.sum(axis=(1, 2))
    truth, said = tables.sum(axis=2), tables.sum(axis=1)
    right = np.diagonal(tables, axis1=1, axis2=2)
    recall = np.divide(right, truth, out=np.zeros_like(right), where=truth > 0)
    balanced = recall.sum(axis=1) / (truth > 0).sum(axis=1)
    accuracy = right.sum(axis=1) / total
    chance = (truth * said).sum(axis=1) / total**2
    kappa = np.divide(accuracy - chance, 1 - chance, out=np.zeros_like(chance), where=chance < 1)
    return np.stack([balanced, accuracy, kappa], axis=1)


def agreement_measures(truth: Float64, verdicts: Float64) -> dict[str, Measure]:
    """Each of `METRICS` as a measure of resampled rows."""
    rows = _cells(truth, verdicts)

    def measure(column: int) -> Measure:
        return lambda weights: agreement((weights @ rows).reshape(-1, _KINDS, _KINDS))[:, column]

    return {name: measure(column) for column, name in enumerate(METRICS)}


def _difference(one: Measure, other: Measure) -> Measure:
    return lambda weights: one(weights) - other(weights)


def equal_length_auroc(
    labels: Float64, chances: Float64, words: NDArray[np.int64]
) -> tuple[float, int] | None:
    """Of a right and a wrong answer with equally many words, how often the right one is higher.

    Length alone is at 0.5 here, however well it does elsewhere.

    Args:
        labels: 1 or 0, shape `(n,)`.
        chances: what was said of each, shape `(n,)`.
        words: length of each answer, shape `(n,)`.

    Returns:
        The share, equal values counting half, and the number of such pairs; None: there are none.

    Example:
        >>> one = np.array([1.0, 0.0, 1.0, 0.0])
        >>> equal_length_auroc(one, np.array([0.9, 0.1, 0.2, 0.3]), np.array([5, 5, 7, 7]))
        (0.5, 2)
    """
    from sklearn.metrics import roc_auc_score

    won, total = 0.0, 0
    for count in np.unique(words):
        here = words == count
        right, wrong = int((labels[here] == 1).sum()), int((labels[here] == 0).sum())
        if right and wrong:
            won += float(roc_auc_score(labels[here], chances[here])) * right * wrong
            total += right * wrong
    return (won / total, total) if total else None


def _cells(truth: Float64, verdicts: Float64) -> Float64:
    """Which cell of truth by verdict (0, tie, 1, none) each row is in, shape `(n, 16)`."""
    found = np.zeros((len(truth), _KINDS * _KINDS))
    cells = _KINDS * (2 * truth).astype(int) + (2 * verdicts).astype(int)
    found[np.arange(len(truth)), cells] = 1.0
    return found


@dataclass(frozen=True)
class Summary:
    """Figures by name, and how each varies from resample to resample of the queries."""

    values: dict[str, float] = field(default_factory=dict)
    measures: dict[str, Measure] = field(default_factory=dict)

    def add(self, name: str, value: float, measure: Measure) -> None:
        """One more figure."""
        self.values[name], self.measures[name] = value, measure

    def intervals(
        self, clusters: Ints, confidence: float, seed: int
    ) -> dict[str, tuple[float, float]]:
        """The figures' intervals, over the clusters of the measured rows."""
        return intervals(self.measures, clusters, confidence=confidence, seed=seed)


def summary_of(
    data: JudgeData,
    rows: Ints,
    told: Predictions,
    teacher: Float64,
) -> Summary:
    """How a judge agrees with the verdicts of `rows`, beside the ceilings.

    Args:
        data: the verdicts.
        rows: those that are measured on, ascending.
        told: what the judge said of these.
        teacher: its verdicts on the same items, NaN if it was not asked or is itself the
            truth, shape `(rows,)`.
    """
    found = Summary()
    truth = data.labels[rows]
    whole = np.ones((1, len(rows)))
    for name, measure in agreement_measures(truth, told.verdicts).items():
        found.add(name.replace(" ", "_"), float(measure(whole)[0]), measure)
    _add_probabilities(found, truth, told.chances)
    if not data.pairwise:
        _add_correlations(found, "", data.scores[rows], told.chances)
    asked = np.flatnonzero(~np.isnan(teacher))
    if len(asked):
        same = (teacher[asked] == truth[asked]).astype(np.float64)
        found.add("teacher_agreement", float(same.mean()), mean_of(same, asked))
        if not data.pairwise:
            said = other_scores(data, rows)
            _add_correlations(found, "teacher_", data.scores[rows], said)
    firsts, agree = people_pairs(data)
    if len(agree) >= MIN_VERDICTS:
        places = np.searchsorted(rows, firsts)  # people's rows are always measured on
        found.add("people_agreement", float(agree.mean()), mean_of(agree, places))
    return found


def _add_probabilities(found: Summary, truth: Float64, chances: Float64) -> None:
    """Discrimination and calibration, on what is no tie."""
    from sklearn.metrics import roc_auc_score

    decided = np.flatnonzero(truth != TIE)
    labels, given = truth[decided], chances[decided]
    if len(np.unique(labels)) == 2:
        area = float(roc_auc_score(labels, given))
        found.add("auroc", area, among(decided, auroc_of(labels, given)))
    if len(decided):
        error = calibration_error(given, labels)
        found.add("calibration_error", error, among(decided, calibration_error_of(given, labels)))


def _add_correlations(found: Summary, prefix: str, scores: Float64, given: Float64) -> None:
    """Of verdicts that are scores on a scale of more than two steps, with what is given."""
    from scipy.stats import pearsonr, spearmanr

    both = np.flatnonzero(np.isfinite(scores) & np.isfinite(given))
    if len(both) < MIN_VERDICTS or len(np.unique(scores[both])) < 3:
        return
    one, other = scores[both], given[both]
    if np.ptp(other) == 0:
        return
    for name, correlation, measure in (
        ("pearson", pearsonr, pearson_of),
        ("spearman", spearmanr, spearman_of),
    ):
        value = float(correlation(one, other).statistic)
        found.add(f"{prefix}{name}", value, among(both, measure(one, other)))
