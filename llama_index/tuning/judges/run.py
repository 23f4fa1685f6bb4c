"""A run: features, the judge and its shortcuts fitted alike, measured, reported.

The report of a judge: what every report has, and what only judges have.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning.datasets.folds import fold_numbers
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.evaluate.routing import DeferralPoint, deferral_curve
from llama_index.tuning.judges.data import HUMAN, JudgeData, other_verdicts
from llama_index.tuning.judges.light.features import Topics, Vectors, main_directions
from llama_index.tuning.judges.light.fit import fit, predictions
from llama_index.tuning.judges.measure import METRICS, agreement_gains, summary_of
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.records import NO_VERDICT, TIE, Predictions, Rows
from llama_index.tuning.judges.training import TrainingData, TrainingResult
from llama_index.tuning.report import (
    FinetuneReport,
    Gain,
    QueryGain,
    installed_versions,
    most_changed,
    report_faults,
)

logger = logging.getLogger(__name__)

MIN_PEOPLE = 20
"""With this many verdicts of people or more, people are the truth that is measured against."""
MAJORITY = "most frequent verdict"
TEACHERS = "the teacher's verdicts"
ASKED = "people's verdicts where the teacher was asked"


def rows_of(
    data: JudgeData, table: Float64, options: JudgeOptions, columns: Sequence[str] = ()
) -> Rows:
    """The data's rows, dealt into folds by query."""
    members = [np.flatnonzero(data.clusters == c) for c in np.unique(data.clusters)]
    fold = fold_numbers([m.tolist() for m in members], options.folds, options.seed)
    topics = np.array([i for i, n in enumerate(columns) if n.startswith("topic: ")], dtype=np.int64)
    return Rows(table, data.labels, data.weights, fold, data.pairwise, topics)


def topics_of(vectors: Vectors, data: JudgeData) -> Topics:
    """Main directions of the training queries and responses."""
    texts = dict.fromkeys(item.response for item in data.items if item.response)
    known = [vectors.texts[text] for text in texts if text in vectors.texts]
    responses = main_directions(np.stack(known))
    asked = list(vectors.queries.values())
    return Topics(main_directions(np.stack(asked)) if asked else responses[:0], responses)


def shortcut_predictions(training: TrainingData) -> dict[str, Predictions]:
    """What needs no judge, fitted on the same folds: base rate, length, overlap."""
    rows, table = training.rows, training.other
    count = len(rows.labels) if table is None else len(table)
    found = {MAJORITY: _majority(rows, count)}
    for kind in ("length", "overlap"):
        columns = [i for i, n in enumerate(training.maker.columns) if n.startswith(f"{kind}: ")]
        other = None if table is None else table[:, columns]
        fitted = fit(rows.columns(columns), training.options)
        found[f"{kind} only"] = predictions(fitted, other)
    return found


def _majority(rows: Rows, count: int) -> Predictions:
    values = np.unique(rows.labels)
    sums = [rows.weights[rows.labels == value].sum() for value in values]
    rate = float(np.average(rows.labels, weights=rows.weights))
    verdict = float(values[int(np.argmax(sums))])
    return Predictions(np.full(count, rate), np.full(count, verdict), np.zeros(count))


def write_report(
    training: TrainingData,
    result: TrainingResult,
    shortcuts: dict[str, Predictions],
    dataset: JudgmentDataset,
) -> JudgeReport:
    """A report without a verdict, on the held-out predictions for what `dataset` holds."""
    data, options, judge = training.measured, training.options, result.predictions
    rows, others = _measured_rows(data)
    primary = "balanced accuracy"
    if data.pairwise or options.target == "accuracy":
        primary = "accuracy"
    compared = {n: _compare(data, rows, o, judge, options) for n, o in shortcuts.items()}
    best = max(compared, key=lambda name: compared[name][primary].base)
    gains = compared[best]
    slices = {}
    if len(others):
        slices[TEACHERS] = _compare(data, others, shortcuts[best], judge, options)
    truth, told = data.labels[rows], judge[rows]
    teacher = other_verdicts(data, rows) if len(others) else np.full(len(rows), np.nan)
    asked = np.flatnonzero(~np.isnan(teacher))
    if 0 < len(asked) < len(rows):
        slices[ASKED] = _compare(data, rows[asked], shortcuts[best], judge, options)
    right = np.where(np.isnan(teacher), np.nan, (teacher == truth).astype(float))
    summary = summary_of(data, rows, told, teacher)
    if result.flip_rate is not None:
        summary.values["flip_rate"] = result.flip_rate
    return JudgeReport(
        title=f"judge (light, {'pairwise' if data.pairwise else 'pointwise'})",
        method=result.method,
        primary=primary,
        gains=gains,
        slices=slices,
        model=training.base_model or "light",
        base=f"the shortcut {best!r}",
        data=_data(training, result, dataset, data.people[rows]),
        options=asdict(options),
        queries=_changed(data, rows, shortcuts[best], judge),
        seed=options.seed,
        notes=[
            *_notes(data, rows, others, compared, best),
            *_silence(teacher),
            *_mixture(training.data),
        ],
        versions=installed_versions("numpy", "scipy", "scikit-learn"),
        unit="verdicts",
        summary=summary.values,
        intervals=summary.intervals(data.clusters[rows], options.confidence, options.seed),
        shortcuts={n: {m: found[m].base for m in METRICS} for n, found in compared.items()},
        deferral=deferral_curve(
            told.certainties, told.verdicts == truth, right if len(others) else np.ones(len(rows))
        ),
    )


def _data(
    training: TrainingData,
    result: TrainingResult,
    dataset: JudgmentDataset,
    people: NDArray[np.bool_],
) -> dict[str, Any]:
    return {
        "verdicts": len(dataset),
        "trained_on": len(training.data.labels),
        "measured": len(people),
        "by_people": bool(people.all()),
        "fingerprint": dataset.fingerprint(),
        **result.settings,
        **asdict(result.model.rule),
    }


def _measured_rows(data: JudgeData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to measure on, and the teacher's if people are the truth."""
    people = np.flatnonzero(data.people)
    if MIN_PEOPLE <= len(people) < len(data.people):
        return people, np.flatnonzero(~data.people)
    return np.arange(len(data.people)), np.zeros(0, dtype=np.int64)


def _compare(
    data: JudgeData,
    rows: NDArray[np.int64],
    base: Predictions,
    judge: Predictions,
    o: JudgeOptions,
) -> dict[str, Gain]:
    return agreement_gains(
        data.labels[rows],
        base.verdicts[rows],
        judge.verdicts[rows],
        data.clusters[rows],
        confidence=o.confidence,
        seed=o.seed,
    )


def _changed(data: JudgeData, rows: Ints, base: Predictions, judge: Predictions) -> list[QueryGain]:
    """Items that only one of the two judges right, with what was answered."""
    truth = data.labels[rows]
    before, now = (said.verdicts[rows] for said in (base, judge))

    def described(row: int) -> tuple[str, str, list[str]]:
        item = data.items[rows[row]]
        answers = [f"answer: {item.response}"]
        if item.second_response is not None:
            answers.append(f"second answer: {item.second_response}")
        return data.keys[rows[row]], item.query or "(no query)", answers

    return most_changed(before == truth, now == truth, described)


def _notes(
    data: JudgeData,
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    compared: dict[str, dict[str, Gain]],
    best: str,
) -> list[str]:
    notes = [f"the base is the best shortcut: {best}"]
    if len(others):
        notes.append(f"measured against {len(rows)} verdicts of people")
    for name, gains in compared.items():
        for metric in ("accuracy", "balanced accuracy"):
            gain = gains[metric]
            if gain.low <= 0:
                said = "is not better than" if gain.mean <= 0 else "cannot be told from"
                notes.append(f"in {metric} the judge {said} the shortcut {name!r}")
    if data.pairwise and not (data.labels == TIE).any():
        notes.append("no verdict is a tie")
    return notes


def _silence(teacher: Float64) -> list[str]:
    """That the teacher's missing verdicts are counted, and how."""
    count = int((teacher == NO_VERDICT).sum())
    if not count:
        return []
    asked = int((~np.isnan(teacher)).sum())
    return [f"on {count} of {asked} items the teacher gave no verdict: there it counts as wrong"]


def _mixture(data: JudgeData) -> list[str]:
    """That several evaluators' verdicts are learnt as if they were one's."""
    said = Counter(item.judge for item in data.items if item.judge and item.source != HUMAN)
    if len(said) < 2:
        return []
    found = ", ".join(f"{name} {count}" for name, count in said.most_common())
    note = (
        f"the verdicts are those of several evaluators ({found}): each asks another question, and "
        "this judge learns a mixture; give it one's: "
        "JudgmentDataset([j for j in data.judgments if j.judge == name])"
    )
    logger.warning("%s", note)
    return [note]


def details_of(report: JudgeReport) -> dict[str, Any]:
    """What an artifact keeps of the report."""
    names = ("accepted", "reason", "options", "data", "summary", "intervals", "versions")
    return {name: getattr(report, name) for name in names}


@dataclass(frozen=True, kw_only=True, repr=False)
class JudgeReport(FinetuneReport):
    """How well a judge agrees with its teachers or with people, beside what needs no judge.

    `gains` compare it with the best shortcut, which is the base.

    Attributes:
        summary: the judge's agreement; `auroc`, `calibration_error`, `flip_rate` (share of pairs
            whose verdict depends on their order), `teacher_agreement` (of the teacher with
            people, on the items that it was asked about; no verdict is a wrong one),
            `people_agreement` (of people with one another), if there are any. If verdicts
            are scores, `pearson` and `spearman` of the judge's probability with them, and of the
            teacher's scores with people's (`teacher_pearson`, …).
        intervals: lower and upper end of those figures, at the level of the gains, queries drawn
            whole. The calibration error can only grow by chance, and grows again in each
            resample: its interval leans upwards, the more so the fewer the verdicts.
        shortcuts: baseline → its agreement, measured and fitted like the judge: the most frequent
            verdict, length only, overlap only.
        deferral: accuracy against the share of answers handed to the teacher.
    """

    summary: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    shortcuts: dict[str, dict[str, float]] = field(default_factory=dict)
    deferral: list[DeferralPoint] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            super().__str__(),
            "",
            f"  {'shortcut':<22}"
            + "".join(f"{name:>20}" for name in next(iter(self.shortcuts.values()), {})),
        ]
        for name, scores in self.shortcuts.items():
            lines.append(f"  {name:<22}" + "".join(f"{value:>20.4f}" for value in scores.values()))
        lines += ["", *(f"  {line}" for line in self.summary_lines())]
        if self.deferral:
            lines += ["", "  handed over   kept right   all right   at random"]
            first, last = self.deferral[0].accuracy, self.deferral[-1].accuracy
        for point in self.deferral:
            every = ""
            if point.accuracy is not None and first is not None and last is not None:
                drawn = first + point.share * (last - first)
                every = f"{point.accuracy:12.3f}{drawn:12.3f}"
            lines.append(f"  {point.share:>11.0%}{point.kept_accuracy:13.3f}{every}")
        return "\n".join(lines).rstrip()

    def summary_lines(self) -> list[str]:
        """The summary for people: a figure a line, with its interval."""
        lines = []
        for name, value in self.summary.items():
            line = f"{name:<22}{value:>8.4f}"
            if name in self.intervals:
                low, high = self.intervals[name]
                line += f"   {low:.4f} to {high:.4f}"
            lines.append(line)
        return lines

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JudgeReport:
        """The report that `to_dict` gave."""
        with report_faults():
            fields = dict(data)
            fields["intervals"] = {name: tuple(ends) for name, ends in fields["intervals"].items()}
            fields["deferral"] = [DeferralPoint(**item) for item in fields["deferral"]]
        found = super().from_dict(fields)
        assert isinstance(found, cls)
        return found
