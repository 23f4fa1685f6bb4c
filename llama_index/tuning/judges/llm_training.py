"""The LLM student at work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.judges.features import Floats
from llama_index.tuning.judges.llm_asking import evaluator_of
from llama_index.tuning.judges.llm_judge import LLMJudge
from llama_index.tuning.judges.llm_rows import JudgeRows, judge_rows
from llama_index.tuning.judges.llm_student import LLMStudent
from llama_index.tuning.judges.llm_verdicts import Verdicts, verdicts_of
from llama_index.tuning.judges.material import Material
from llama_index.tuning.judges.student import Ints, Learnt, Lesson, Opinions

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import LLMMetadata
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM

    from llama_index.tuning.report import FinetuneReport

HELD_OUT_FOLD = 0
UNTUNED = "the untuned LLM"
NO_CHANCES = (
    "an LLM's verdicts come without probabilities: no calibration, threshold or deferral is shown"
)


@dataclass(eq=False)
class VerdictScorer:
    """Scores an LLM as a judge: 1 for each held-out verdict that it comes to; for `evaluate=`.

    Attributes:
        runs: the verdicts of each LLM that was scored, in order.
        metadata: the last one's.
    """

    evaluator: BaseEvaluator
    material: Material
    passing_score: float | None
    context_window: int
    workers: int = 4
    show_progress: bool = False
    runs: list[Verdicts] = field(default_factory=list)
    metadata: LLMMetadata | None = None

    def __call__(self, llm: LLM) -> Floats:
        """One 0 or 1 for each verdict, shape `(n,)`.

        Raises:
            ValueError: the LLM's window is smaller than the requests were written for: with it,
                the evaluator would send others. Engines score their base before they train.
        """
        self.metadata = llm.metadata
        if self.metadata.context_window < self.context_window:
            raise ValueError(
                f"context_window of the student is {self.context_window} tokens, and that of the "
                f"LLM {self.metadata.context_window}: the evaluator would cut contexts otherwise "
                "than learnt; set it to at most the LLM's"
            )
        said = verdicts_of(
            self.evaluator,
            self.material.items,
            llm,
            pairwise=self.material.pairwise,
            passing_score=self.passing_score,
            workers=self.workers,
            show_progress=self.show_progress,
        )
        self.runs.append(said)
        right: Floats = (said.values == self.material.labels).astype(np.float64)
        return right


def learn(student: LLMStudent, lesson: Lesson) -> Learnt:
    """Rows, the LLM's engine, verdicts before and after."""
    if lesson.options.target == "precision":
        raise ValueError(
            'target="precision" chooses a threshold, and an LLM\'s verdicts come without '
            "probabilities; choose another target"
        )
    evaluator = evaluator_of(student.form)
    passing_score = lesson.options.passing_score
    every = judge_rows(  # all verdicts, so that faults are named by their place in the dataset
        JudgmentDataset(list(lesson.material.items)),
        evaluator,
        passing_score=passing_score,
        answer=student.answer,
        reasons=student.reasons,
        context_window=student.context_window,
        too_long=student.too_long,
    )
    held_out, measured = _held_out(lesson)
    rows = every if measured is None else every.without(measured.tolist())
    scorer = VerdictScorer(
        evaluator,
        held_out,
        passing_score,
        student.context_window,
        student.workers,
        lesson.show_progress,
    )
    engine = _engine(student, rows, scorer)
    llm_report = engine.finetune()
    if len(scorer.runs) < 2:  # the engine did not measure the tuned LLM itself
        scorer(engine.get_finetuned_model())
    assert scorer.metadata is not None
    before, after = scorer.runs[:-1], scorer.runs[-1]
    return Learnt(
        model=LLMJudge(evaluator, engine, scorer.metadata.model_name),
        opinions=_opinions(after),
        method="held-out verdicts" if lesson.held_out is None else "validation verdicts",
        measured=measured,
        flip_rate=None if after.flips is None else float(after.flips.mean()),
        baselines={UNTUNED: _opinions(before[0])} if before else {},
        settings={
            "trained_on": len(set(rows.numbers)),
            "conversations": len(rows.chats),
            "left_out": len(rows.left_out),
            "no_verdict": after.missing,
            "llm": scorer.metadata.model_name,
        },
        options=_options(student, evaluator),
        history=llm_report.history,
        notes=_notes(rows, after, llm_report),
    )


def _held_out(lesson: Lesson) -> tuple[Material, Ints | None]:
    """What is measured on, and which rows of the material that is."""
    if lesson.held_out is not None:
        return lesson.held_out, None
    measured = np.flatnonzero(lesson.rows.fold == HELD_OUT_FOLD)
    return lesson.material[measured], measured


def _engine(student: LLMStudent, rows: JudgeRows, scorer: VerdictScorer) -> BaseLLMFinetuneEngine:
    """The LLM's engine; whether the judge is taken is decided once, by the judge's gate."""
    engine = student.engine(rows.chats, evaluate=scorer, accept="always")
    if not isinstance(engine, BaseLLMFinetuneEngine):
        raise TypeError(f"engine must make an LLM's engine, got {type(engine).__name__}")
    for name, given in (("evaluate", scorer), ("accept", "always")):
        if getattr(engine, name, given) != given:
            raise TypeError(
                f"engine was called with {name}={given!r}, and the {type(engine).__name__} that "
                f"it made has {name}={getattr(engine, name)!r}: pass it on"
            )
    return engine


def _opinions(said: Verdicts) -> Opinions:
    unknown = np.full(len(said.values), np.nan)
    return Opinions(unknown, said.values, unknown, said.scores)


def _options(student: LLMStudent, evaluator: BaseEvaluator) -> dict[str, Any]:
    return {
        "form": type(evaluator).__name__,
        "reasons": student.reasons,
        "context_window": student.context_window,
        "too_long": student.too_long,
    }


def _notes(rows: JudgeRows, after: Verdicts, llm_report: FinetuneReport) -> list[str]:
    notes = [NO_CHANCES]
    if after.faults:
        most = ", ".join(f"{fault} ({n})" for fault, n in after.faults.most_common(3))
        notes.append(
            f"{sum(after.faults.values())} of {len(after.values)} measured items got no verdict "
            f"and count as wrong: {most}"
        )
    if rows.left_out:
        notes.append(f"{len(rows.left_out)} verdicts need several requests and were not learnt")
    return [*notes, *(f"the LLM: {note}" for note in llm_report.notes)]
