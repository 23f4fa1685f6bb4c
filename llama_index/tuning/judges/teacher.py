"""An evaluator as a teacher: what it needs, who it is, and what one verdict of it costs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from pydantic import PrivateAttr

from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
    from llama_index.core.llms import LLM

FIELDS = ("query", "response", "contexts", "reference", "second_response")
NEITHER = "neither"
PAIRWISE = "PairwiseComparisonEvaluator"
_NEEDS = {
    "AnswerRelevancyEvaluator": ("query", "response"),
    "ContextRelevancyEvaluator": ("query", "contexts"),
    "CorrectnessEvaluator": ("query", "response"),
    "FaithfulnessEvaluator": ("response", "contexts"),
    "GuidelineEvaluator": ("query", "response"),
    PAIRWISE: ("query", "response", "second_response"),
    "RelevancyEvaluator": ("query", "response", "contexts"),
    "SemanticSimilarityEvaluator": ("response", "reference"),
}
# A reply that as many of LlamaIndex's parsers as possible can read, so that an evaluator which
# asks twice does so in a dry run too.
_REPLY = "4\nYES [[A]] Feedback: fine [RESULT] 1"


def needs(teacher: BaseEvaluator) -> tuple[str, ...]:
    """The fields without which LlamaIndex's own evaluators can't judge; of others, none known."""
    for kind in type(teacher).__mro__:
        if kind.__name__ in _NEEDS:
            return _NEEDS[kind.__name__]
    return ()


def check_samples(samples: Sequence[Judgment], teacher: BaseEvaluator) -> None:
    """Every sample can be judged.

    Raises:
        DatasetError: naming each sample and the field that it lacks.
    """
    wanted = needs(teacher)
    faults = [
        f"sample {number} has no {name}"
        for number, sample in enumerate(samples)
        for name in wanted
        if not getattr(sample, name)
    ]
    if faults:
        raise DatasetError(f"{type(teacher).__name__} needs {', '.join(wanted)}:", faults)


async def evaluate(teacher: BaseEvaluator, sample: Judgment) -> EvaluationResult:
    """One evaluation; fields that the sample lacks are left to the evaluator's own defaults."""
    arguments = {name: getattr(sample, name) for name in FIELDS}
    return await teacher.aevaluate(**{k: v for k, v in arguments.items() if v is not None})


def as_given(result: EvaluationResult) -> EvaluationResult:
    """The result for the order in which the pair was given.

    If one order is a tie, `PairwiseComparisonEvaluator` hands back the result of the turned
    pair as it is, whose first answer is the second one.
    """
    if source_of(result) != "flipped":
        return result
    passing = None if result.passing is None else not result.passing
    score = None if result.score is None else 1.0 - result.score
    return result.model_copy(update={"passing": passing, "score": score})


def source_of(result: EvaluationResult) -> str:
    """Which order of a pair the result is of: `original`, `flipped`, `neither`, or empty."""
    source = result.pairwise_source
    return "" if source is None else str(getattr(source, "value", source))


def turned(sample: Judgment) -> Judgment:
    """The pair in its other order; its verdict is left as it is."""
    return replace(sample, response=sample.second_response, second_response=sample.response)


def llm_of(teacher: BaseEvaluator) -> LLM | None:
    """The LLM of an evaluator that keeps it where LlamaIndex's own do."""
    from llama_index.core.llms import LLM

    llm = getattr(teacher, "_llm", None)
    return llm if isinstance(llm, LLM) else None


def name_of(teacher: BaseEvaluator) -> str:
    """The model that judges, else the evaluator's class."""
    llm = llm_of(teacher)
    return llm.metadata.model_name if llm is not None else type(teacher).__name__


def prompts_of(teacher: BaseEvaluator) -> tuple[BaseEvaluator, list[str]] | None:
    """A copy of the teacher that asks nobody, and the list its prompts will be noted in.

    `None` for an evaluator whose LLM is not known.
    """
    llm = llm_of(teacher)
    if llm is None:
        return None
    notes: list[str] = []
    double = copy.copy(teacher)
    double._llm = _Noting(llm.metadata, notes)  # type: ignore[attr-defined]
    return double, notes


class _Noting(CustomLLM):
    """Notes each prompt and gives one reply to all."""

    _metadata: LLMMetadata = PrivateAttr()
    _notes: list[str] = PrivateAttr()

    def __init__(self, metadata: LLMMetadata, notes: list[str]) -> None:
        super().__init__()
        self._metadata = metadata
        self._notes = notes

    @property
    def metadata(self) -> LLMMetadata:
        """The real LLM's: its window decides how contexts are cut."""
        return self._metadata

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Note the prompt."""
        self._notes.append(prompt)
        return CompletionResponse(text=_REPLY)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Note the prompt."""
        self._notes.append(prompt)
        return (text for text in (CompletionResponse(text=_REPLY, delta=_REPLY),))
