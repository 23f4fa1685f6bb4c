"""A judge that is an evaluator of LlamaIndex with an LLM tuned for it.

The LLM student at work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning._checks import check_counts
from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.judges.data import JudgeData
from llama_index.tuning.judges.llm.model import LLMJudge, evaluator_of
from llama_index.tuning.judges.llm.rows import (
    CONTEXT_WINDOW,
    JudgeRows,
    TooLong,
    check_items,
    check_writing,
    judge_rows,
)
from llama_index.tuning.judges.llm.verdicts import Answer, Verdicts, kind_of, verdicts_of
from llama_index.tuning.judges.records import Predictions
from llama_index.tuning.judges.student import TrainingData, TrainingResult

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import LLMMetadata
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM

    from llama_index.tuning.judges.data import JudgeData
    from llama_index.tuning.judges.student import TrainingData, TrainingResult
    from llama_index.tuning.report import FinetuneReport


@dataclass(frozen=True, kw_only=True)
class LLMStudent:
    """An LLM that learns to judge in the words of one of LlamaIndex's evaluators.

    It learns the very requests that the evaluator sends, and answers which the evaluator reads as
    the recorded verdicts. What comes out is that evaluator with the tuned LLM. It gives verdicts
    without a probability: there is no calibration, no threshold and no deferral of uncertain
    answers, and the report has none.

    A fifth of the verdicts (one of `JudgeOptions(folds=5)`) is held out to measure on, unless
    there is a `val_dataset`; a reply without a verdict counts as wrong. The judge has to beat the
    shortcuts and its own LLM before tuning.

    Args:
        form: an evaluator, or its class: `FaithfulnessEvaluator`, `CorrectnessEvaluator`, …; its
            prompts, parser and settings are those that will serve.
        engine: makes the LLM's engine: called with the conversations and, by name, `evaluate`
            and `accept`, which it passes on; a `functools.partial` of an engine's class does.
        reasons: whether recorded feedback becomes part of the answers, see `judge_rows`.
        answer: judgment → answer, for evaluators other than LlamaIndex's own, or other parsers.
        context_window: tokens that the evaluator reckons with when it cuts contexts; at most the
            LLM's.
        too_long: what happens to a verdict on more contexts than one request holds: `"error"`,
            or `"drop"`.
        workers: requests at a time to a hosted LLM while it is measured.

    Example:
        student = LLMStudent(
            form=FaithfulnessEvaluator,
            engine=partial(HuggingFaceFinetuneEngine, model_id="Qwen/Qwen3-0.6B"),
        )
        engine = JudgeFinetuneEngine(verdicts, student=student)
    """

    name: ClassVar[str] = "LLM"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "trl", "peft", "openai")
    embeds: ClassVar[bool] = False

    form: Any
    engine: Callable[..., BaseLLMFinetuneEngine]
    reasons: bool = True
    answer: Answer | None = None
    context_window: int = CONTEXT_WINDOW
    too_long: TooLong = "error"
    workers: int = 4

    def __post_init__(self) -> None:
        evaluator = evaluator_of(self.form)
        check_writing(self.answer, self.reasons, self.too_long)
        check_counts(context_window=self.context_window, workers=self.workers)
        if self.answer is None and kind_of(evaluator) is None:
            raise TypeError(
                f"how {type(evaluator).__name__} reads its LLM's answers is not known: pass "
                "answer=, a function from a judgment to the answer"
            )
        _check_engine(self.engine)

    @property
    def base(self) -> BaseEvaluator | None:
        """The evaluator that was given, with its own LLM; of a class there is none."""
        return None if isinstance(self.form, type) else evaluator_of(self.form)

    def check(self, data: JudgeData, held_out: JudgeData | None) -> None:
        """Each verdict is of the evaluator's kind, and counts as much as the others."""
        evaluator = evaluator_of(self.form)
        for part in (data, held_out):
            if part is not None:
                check_items(part, evaluator)

    def learn(self, training: TrainingData) -> TrainingResult:
        """Write the conversations, tune the LLM, and judge what was held out."""

        return learn(self, training)


def _check_engine(engine: Any) -> None:
    called = "engine(conversations, evaluate=..., accept=...)"
    if not callable(engine) or isinstance(engine, BaseLLMFinetuneEngine):
        raise TypeError(
            f"engine must be a function that makes an LLM's engine, called as {called}, got "
            f"{engine!r}"
        )
    try:
        signature = inspect.signature(engine)
    except ValueError:  # one written in C: its call will tell
        return
    try:
        signature.bind(None, evaluate=None, accept="always")
    except TypeError as exc:
        raise TypeError(f"engine is called as {called}, which it does not take: {exc}") from exc


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
    data: JudgeData
    passing_score: float | None
    context_window: int
    workers: int = 4
    show_progress: bool = False
    runs: list[Verdicts] = field(default_factory=list)
    metadata: LLMMetadata | None = None

    def __call__(self, llm: LLM) -> Float64:
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
            self.data.items,
            llm,
            pairwise=self.data.pairwise,
            passing_score=self.passing_score,
            workers=self.workers,
            show_progress=self.show_progress,
        )
        self.runs.append(said)
        right: Float64 = (said.values == self.data.labels).astype(np.float64)
        return right


def learn(student: LLMStudent, training: TrainingData) -> TrainingResult:
    """Rows, the LLM's engine, verdicts before and after."""
    if training.options.target == "precision":
        raise ValueError(
            'target="precision" chooses a threshold, and an LLM\'s verdicts come without '
            "probabilities; choose another target"
        )
    evaluator = evaluator_of(student.form)
    passing_score = training.options.passing_score
    every = judge_rows(  # all verdicts, so that faults are named by their place in the dataset
        JudgmentDataset(list(training.data.items)),
        evaluator,
        passing_score=passing_score,
        answer=student.answer,
        reasons=student.reasons,
        context_window=student.context_window,
        too_long=student.too_long,
    )
    held_out, measured = _held_out(training)
    rows = every if measured is None else every.without(measured.tolist())
    scorer = VerdictScorer(
        evaluator,
        held_out,
        passing_score,
        student.context_window,
        student.workers,
        training.show_progress,
    )
    engine = _engine(student, rows, scorer)
    llm_report = engine.finetune()
    if len(scorer.runs) < 2:  # the engine did not measure the tuned LLM itself
        scorer(engine.get_finetuned_model())
    assert scorer.metadata is not None
    before, after = scorer.runs[:-1], scorer.runs[-1]
    return TrainingResult(
        model=LLMJudge(evaluator, engine, scorer.metadata.model_name),
        predictions=_predictions(after),
        method="held-out verdicts" if training.held_out is None else "validation verdicts",
        measured=measured,
        flip_rate=None if after.flips is None else float(after.flips.mean()),
        baselines={UNTUNED: _predictions(before[0])} if before else {},
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


def _held_out(training: TrainingData) -> tuple[JudgeData, Ints | None]:
    """What is measured on, and which rows of the data that is."""
    if training.held_out is not None:
        return training.held_out, None
    measured = np.flatnonzero(training.rows.fold == HELD_OUT_FOLD)
    return training.data[measured], measured


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


def _predictions(said: Verdicts) -> Predictions:
    unknown = np.full(len(said.values), np.nan)
    return Predictions(unknown, said.values, unknown, said.scores)


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
