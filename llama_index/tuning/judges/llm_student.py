"""A judge that is an evaluator of LlamaIndex with an LLM tuned for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.tuning import artifacts
from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.generate.calls import check_counts
from llama_index.tuning.judges.llm_answers import Answer, kind_of
from llama_index.tuning.judges.llm_asking import evaluator_of, with_llm
from llama_index.tuning.judges.llm_rows import (
    CONTEXT_WINDOW,
    TooLong,
    check_items,
    check_writing,
)
from llama_index.tuning.judges.teacher import identity

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM

    from llama_index.tuning.judges.material import Material
    from llama_index.tuning.judges.student import Learnt, Lesson

KIND = "llm_judge"


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


@dataclass(frozen=True, eq=False)
class LLMJudge:
    """An evaluator and the engine of its tuned LLM.

    Attributes:
        evaluator: the form, with any LLM.
        engine: has tuned the LLM.
        llm_name: the tuned LLM's.
        details: how it came about, for people.
    """

    evaluator: BaseEvaluator
    engine: BaseLLMFinetuneEngine
    llm_name: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def serve(self, **llm_kwargs: Any) -> BaseEvaluator:
        """The evaluator with the tuned LLM.

        Args:
            **llm_kwargs: for the LLM engine's `get_finetuned_model()`.
        """
        return with_llm(self.evaluator, self.engine.get_finetuned_model(**llm_kwargs))

    def save(self, path: artifacts.PathLike) -> None:
        """Write which evaluator it is; the LLM lies where its engine puts it."""
        config = {
            **identity(self.evaluator),
            "llm": self.llm_name,
            "details": dict(self.details),
        }
        card = _CARD.format(kind=config["teacher"], llm=self.llm_name)
        with artifacts.replacing_folder(path) as folder:
            artifacts.write_component(folder, KIND, config, {}, card)


_CARD = """\
# {kind} with a tuned LLM

The LLM, `{llm}`, lies where the engine that tuned it put it: a folder for
`TunedHuggingFaceLLM.load`, or a server. This folder says which evaluator it was tuned for:

    load_llm_judge(folder, {kind}, llm)
"""


def load_llm_judge(path: artifacts.PathLike, form: Any, llm: LLM) -> BaseEvaluator:
    """The evaluator with the LLM that was tuned for it.

    Args:
        path: the folder that `JudgeFinetuneEngine` saved with an `LLMStudent`.
        form: the evaluator, or its class, with the prompts and settings of the training.
        llm: the tuned LLM, from where its engine put it: `TunedHuggingFaceLLM.load(folder)`, or
            the hosted model.

    Raises:
        ArtifactError: another evaluator, or one with other prompts or settings than learnt.
    """
    config = artifacts.read_config(path, KIND)
    evaluator = evaluator_of(form)
    for name, value in identity(evaluator).items():
        if config.get(name) != value:
            what = "prompts or settings" if name == "settings" else f"class ({config.get(name)})"
            raise ArtifactError(
                f"{path}: the LLM was tuned for an evaluator of other {what} than the "
                f"{type(evaluator).__name__} given as form"
            )
    return with_llm(evaluator, llm)


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
