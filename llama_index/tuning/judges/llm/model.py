"""An evaluator with an LLM tuned for it, as it is served, saved and loaded."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.evaluation import BaseEvaluator
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    CustomLLM,
    LLMMetadata,
)
from pydantic import PrivateAttr

from llama_index.tuning import artifacts
from llama_index.tuning._checks import identity, plain_arguments
from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.judges.teacher import llm_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from llama_index.tuning.base import BaseLLMFinetuneEngine


KIND = "llm_judge"


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
        """Write its folder, atomically."""
        with artifacts.replacing_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write which evaluator it is; the LLM lies where its engine puts it."""
        config = {
            **identity(self.evaluator),
            "llm": self.llm_name,
            "details": dict(self.details),
        }
        card = _CARD.format(kind=config["teacher"], llm=self.llm_name)
        artifacts.write_component(folder, KIND, config, {}, card)


_CARD = """\
# {kind} with a tuned LLM

The LLM, `{llm}`, lies where the engine that tuned it put it: a folder for
`TunedHuggingFaceLLM.load`, or a server. This folder says which evaluator it was tuned for:

    load_llm_judge(folder, {kind}, llm)
"""


@plain_arguments
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
    artifacts.check_intact(path)
    return with_llm(evaluator, llm)


Messages = list[ChatMessage]


class StandIn(CustomLLM):
    """Takes an LLM's place in an evaluator, and passes each request to a function.

    It reports no LLM events, for no model is asked; the evaluator's own events are reported.

    Args:
        reply: messages → text.
        metadata: the real LLM's; its window decides how contexts are cut.
    """

    _reply: Callable[[Messages], str] = PrivateAttr()
    _metadata: LLMMetadata = PrivateAttr()

    def __init__(self, reply: Callable[[Messages], str], metadata: LLMMetadata) -> None:
        super().__init__()
        self._reply, self._metadata = reply, metadata

    @property
    def metadata(self) -> LLMMetadata:
        """The real LLM's."""
        return self._metadata

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The function's text."""
        text = self._reply(list(messages))
        return ChatResponse(message=ChatMessage(role="assistant", content=text))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The function's text."""
        return self.chat(messages)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The function's text to a user's only message, as a chat model completes."""
        text = self._reply([ChatMessage(role="user", content=prompt)])
        return CompletionResponse(text=text)

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """The function's text in one piece."""
        text = self._reply([ChatMessage(role="user", content=prompt)])
        return (piece for piece in (CompletionResponse(text=text, delta=text),))


def evaluator_of(form: Any) -> BaseEvaluator:
    """An evaluator of the form given: an instance, or a class that is made with its defaults.

    Raises:
        TypeError: it is none, or asks no LLM that could be put in the place of its own.
    """
    needed = (
        "form must be an evaluator, or its class, that keeps its LLM as `_llm`, as LlamaIndex's "
        "own do"
    )
    if isinstance(form, type) and issubclass(form, BaseEvaluator):
        if "llm" not in inspect.signature(form).parameters:
            raise TypeError(f"{needed}; {form.__name__} takes no llm")
        form = form(llm=StandIn(_never, LLMMetadata(is_chat_model=True)))  # type: ignore[call-arg]
    if not isinstance(form, BaseEvaluator):
        raise TypeError(f"{needed}; got {type(form).__name__}")
    if llm_of(form) is None:
        raise TypeError(f"{needed}; {type(form).__name__} has none")
    return form


def with_llm(evaluator: BaseEvaluator, llm: LLM, **settings: Any) -> BaseEvaluator:
    """A copy of the evaluator, its prompts and parsers included, that asks another LLM.

    Args:
        evaluator: stays as it is.
        llm: whom the copy asks.
        **settings: its other private attributes, if it has them, such as `_raise_error`.
    """
    double = copy.copy(evaluator)
    double._llm = llm  # type: ignore[attr-defined]
    for name, value in settings.items():
        if hasattr(double, name):
            setattr(double, name, value)
    return double


def _never(messages: Messages) -> str:
    raise RuntimeError("an evaluator made as a form was asked to judge")
