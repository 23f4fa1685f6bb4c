"""A judge that is an evaluator of LlamaIndex with an LLM tuned for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.generate.calls import check_counts
from llama_index.tuning.judges.llm_answers import Answer, kind_of
from llama_index.tuning.judges.llm_asking import evaluator_of
from llama_index.tuning.judges.llm_rows import (
    CONTEXT_WINDOW,
    TooLong,
    check_items,
    check_writing,
)

if TYPE_CHECKING:
    from llama_index.tuning.judges.material import Material
    from llama_index.tuning.judges.student import Learnt, Lesson


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

    def check(self, material: Material, held_out: Material | None) -> None:
        """Each verdict is of the evaluator's kind, and counts as much as the others."""
        evaluator = evaluator_of(self.form)
        for part in (material, held_out):
            if part is not None:
                check_items(part, evaluator)

    def learn(self, lesson: Lesson) -> Learnt:
        """Write the conversations, tune the LLM, and judge what was held out."""
        from llama_index.tuning.judges.llm_training import learn

        return learn(self, lesson)


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
