"""Evaluators on an LLM that stands in for the real one: what they ask, and what they make of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms import (
    ChatResponse,
    LLMMetadata,
)

from llama_index.tuning._running import own_work, run_async
from llama_index.tuning.asking.calls import at_once
from llama_index.tuning.datasets.formats.messages import message_record
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.judges.llm.model import Messages, StandIn, with_llm
from llama_index.tuning.judges.teacher import as_given, evaluate

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Outcome = EvaluationResult | Exception
"""A result, or the error that an evaluation ended in."""


class RequestFailedError(Exception):
    """A request to the LLM failed; no ValueError, which LlamaIndex's synthesizers pass over."""


def asked_and_read(
    evaluator: BaseEvaluator, item: Judgment, answer: str, metadata: LLMMetadata
) -> tuple[list[Messages], Outcome]:
    """What an evaluator asks about an item, and its result if each reply is `answer`.

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
        workers: requests at a time, if the LLM has no `chat_batch`.
        show_progress: show a bar for each round.

    Returns:
        One result for each item. An error stands for one whose request failed, or whose reply the
        evaluator's parser does not take.

    Raises:
        Exception: the first error, if every request of a round failed.
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
    """The texts that an LLM replies with; an error if a request failed."""
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
