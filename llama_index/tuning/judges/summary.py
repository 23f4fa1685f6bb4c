"""What one figure says of a judge, and the ceilings beside it, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llama_index.tuning.evaluate.routing import calibration_error
from llama_index.tuning.judges.features import Floats
from llama_index.tuning.judges.light import TIE
from llama_index.tuning.judges.material import (
    MIN_VERDICTS,
    Ints,
    Material,
    other_scores,
    people_pairs,
)
from llama_index.tuning.judges.measuring import agreement_measures
from llama_index.tuning.judges.resampling import (
    Measure,
    among,
    auroc_of,
    calibration_error_of,
    intervals,
    mean_of,
    pearson_of,
    spearman_of,
)
from llama_index.tuning.judges.student import Opinions


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
    material: Material,
    rows: Ints,
    told: Opinions,
    teacher: Floats,
) -> Summary:
    """How a judge agrees with the verdicts of `rows`, beside the ceilings.

    Args:
        material: the verdicts.
        rows: those that are measured on, ascending.
        told: what the judge said of these.
        teacher: its verdicts on the same items, NaN where it was not asked or is itself the
            truth, shape `(rows,)`.
    """
    found = Summary()
    truth = material.labels[rows]
    whole = np.ones((1, len(rows)))
    for name, measure in agreement_measures(truth, told.verdicts).items():
        found.add(name.replace(" ", "_"), float(measure(whole)[0]), measure)
    if not np.isnan(told.chances).any():
        _add_probabilities(found, truth, told.chances)
    if not material.pairwise:
        given = told.chances if told.scores is None else told.scores
        _add_correlations(found, "", material.scores[rows], given)
    asked = np.flatnonzero(~np.isnan(teacher))
    if len(asked):
        same = (teacher[asked] == truth[asked]).astype(np.float64)
        found.add("teacher_agreement", float(same.mean()), mean_of(same, asked))
        if not material.pairwise:
            said = other_scores(material, rows)
            _add_correlations(found, "teacher_", material.scores[rows], said)
    firsts, agree = people_pairs(material)
    if len(agree) >= MIN_VERDICTS:
        places = np.searchsorted(rows, firsts)  # people's rows are always measured on
        found.add("people_agreement", float(agree.mean()), mean_of(agree, places))
    return found


def _add_probabilities(found: Summary, truth: Floats, chances: Floats) -> None:
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


def _add_correlations(found: Summary, prefix: str, scores: Floats, given: Floats) -> None:
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
