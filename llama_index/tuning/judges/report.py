"""The report of a judge: what every report has, and what only judges have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.tuning.evaluate.routing import DeferralPoint
from llama_index.tuning.report import FinetuneReport


@dataclass(frozen=True, kw_only=True)
class JudgeReport(FinetuneReport):
    """How well a judge agrees with its teachers or with people, beside what needs no judge.

    `gains` compare it with the best shortcut, which is the base.

    Attributes:
        summary: the judge's agreement; `auroc`, `calibration_error`, `flip_rate` (share of pairs
            whose verdict depends on their order), `teacher_agreement` (of the teacher with
            people, on the items that it was asked about; no verdict is a wrong one),
            `people_agreement` (of people with one another), where there are any. Where verdicts
            are scores, `pearson` and `spearman` of the judge's probability with them, and of the
            teacher's scores with people's (`teacher_pearson`, …).
        intervals: lower and upper end of those figures, at the level of the gains, queries drawn
            whole. The calibration error can only grow by chance, and grows again in each
            resample: its interval leans upwards, the more so the fewer the verdicts.
        shortcuts: baseline → its agreement, measured and fitted like the judge: the most frequent
            verdict, length only, overlap only; of an LLM also the same LLM untuned.
        deferral: accuracy against the share of answers handed to the teacher.

    A judge that gives verdicts only (`LLMStudent`) has neither `auroc`, `calibration_error` nor
    `deferral`; its correlations are those of its own scores.
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
        fields = dict(data)
        fields["intervals"] = {name: tuple(ends) for name, ends in fields["intervals"].items()}
        fields["deferral"] = [DeferralPoint(**item) for item in fields["deferral"]]
        found = super().from_dict(fields)
        assert isinstance(found, cls)
        return found
