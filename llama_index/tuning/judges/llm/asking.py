"""Evaluators on an LLM that stands in for the real one: what they ask, and what they make of it."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    CustomLLM,
    LLMMetadata,
)
from pydantic import PrivateAttr

from llama_index.tuning._running import own_work, run_async
from llama_index.tuning.asking.calls import at_once
from llama_index.tuning.collect.records import message_record
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.datasets.thoughts import without_thoughts
from llama_index.tuning.judges.teacher import as_given, evaluate, llm_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Messages = list[ChatMessage]
Outcome = EvaluationResult | Exception
"""A result, or the error that an evaluation ended in."""


class RequestFailedError(Exception):
    """A request to the LLM failed; no ValueError, which LlamaIndex's synthesizers pass over."""


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
        **settings: its other private attributes, where it has them, such as `_raise_error`.
    """
    double = copy.copy(evaluator)
    double._llm = llm  # type: ignore[attr-defined]
    for name, value in settings.items():
        if hasattr(double, name):
            setattr(double, name, value)
    return double


def asked_and_read(
    evaluator: BaseEvaluator, item: Judgment, answer: str, metadata: LLMMetadata
) -> tuple[list[Messages], Outcome]:
    """What an evaluator asks about an item, and its result where each reply is `answer`.

    A pairwise evaluator asks about the order that is given only.
    """
    asked: list[Messages] = []

    def reply(messages: Messages) -> str:
        asked.append(messages)
        return answer

    double = with_llm(
        evaluator, StandIn(reply, metadata), _raise_error=False, _enforce_consensus=False
    )
    return asked, run_async(_outcome(double, item))


@own_work
def evaluate_all(
    evaluator: BaseEvaluator,
    items: Sequence[Judgment],
    llm: LLM,
    *,
    replies: dict[str, str | Exception] | None = None,
    workers: int = 4,
    show_progress: bool = False,
) -> list[Outcome]:
    """Results of an evaluator with an LLM, whose requests are sent in batches.

    Each evaluation runs until it asks for what is not known yet; then all these requests are
    sent, and the evaluations run again: two rounds for most, three for pairs in both orders.

    Args:
        evaluator: any that keeps its LLM as `_llm`.
        items: what is judged.
        llm: a chat model.
        replies: requests whose reply is known; new ones are added.
        workers: requests at a time, where the LLM has no `chat_batch`.
        show_progress: show a bar for each round.

    Returns:
        One result for each item. An error stands for one whose request failed, or whose reply the
        evaluator's parser does not take.

    Raises:
        Exception: the first error, where every request of a round failed.
    """
    if not llm.metadata.is_chat_model:
        raise TypeError(f"the LLM must be a chat model, got {type(llm).__name__} that is none")
    known = {} if replies is None else replies
    found: dict[int, Outcome] = {}
    waiting = list(range(len(items)))
    while waiting:
        wanted: dict[str, Messages] = {}
        unready = []
        for number in waiting:
            missing: dict[str, Messages] = {}
            stand_in = StandIn(_known_replies(known, missing), llm.metadata)
            double = with_llm(evaluator, stand_in, _raise_error=False)
            outcome = run_async(_outcome(double, items[number]))
            if missing:  # whatever the evaluator made of the error
                unready.append(number)
                wanted |= missing
            else:
                found[number] = outcome
        if wanted:
            sent = _replies(llm, list(wanted.values()), workers, show_progress)
            known.update(zip(wanted, sent, strict=True))
        waiting = unready
    return [found[number] for number in range(len(items))]


def _known_replies(
    known: Mapping[str, str | Exception], missing: dict[str, Messages]
) -> Callable[[Messages], str]:
    def reply(messages: Messages) -> str:
        key = json.dumps([message_record(message) for message in messages])
        if key not in known:
            missing[key] = messages
            raise RequestFailedError("a request whose reply is not known yet")
        said = known[key]
        if isinstance(said, Exception):
            raise RequestFailedError(f"the request failed: {type(said).__name__}: {said}") from said
        return said

    return reply


def _replies(
    llm: LLM, conversations: list[Messages], workers: int, show_progress: bool
) -> list[str | Exception]:
    """The texts that an LLM replies with; an error where a request failed."""
    batch = getattr(llm, "chat_batch", None)
    if batch is not None:
        try:
            return [_text(response) for response in batch(conversations)]
        except ValueError:  # one prompt that leaves no room fails its batch: each by itself
            workers = 1

    def one(messages: Messages) -> Any:
        try:
            return _text(llm.chat(messages))
        except Exception as exc:  # kept, and counted against the judge
            return exc

    said: list[str | Exception] = at_once(one, conversations, workers, show_progress)
    if all(isinstance(text, Exception) for text in said):
        raise next(error for error in said if isinstance(error, Exception))
    return said


def _text(response: ChatResponse) -> str:
    return without_thoughts(response.message.content or "")


async def _outcome(evaluator: BaseEvaluator, item: Judgment) -> Outcome:
    try:
        return as_given(await evaluate(evaluator, item))
    except Exception as exc:  # what parsers raise on a reply that they cannot read is data here
        return exc


def _never(messages: Messages) -> str:
    raise RuntimeError("an evaluator made as a form was asked to judge")
