"""An LLM's replies to many conversations: in batches where it can, else several at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse

from llama_index.tuning._async import own_work
from llama_index.tuning._progress import progress
from llama_index.tuning.datasets.thoughts import without_thoughts

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

T = TypeVar("T")

Conversation = str | Sequence[Mapping[str, Any]]
"""A question, or messages in OpenAI's shape."""


def messages_of(conversation: Conversation) -> list[dict[str, Any]]:
    """The messages, a question as the user's only one."""
    if isinstance(conversation, str):
        return [{"role": "user", "content": conversation}]
    return [dict(message) for message in conversation]


def conversation_fault(conversation: Any) -> str | None:
    """What is wrong with a question or messages as they were given, or None."""
    if isinstance(conversation, str):
        return None if conversation.strip() else "the question is empty"
    if not isinstance(conversation, Sequence):
        return f"messages must be a question or a list, got {type(conversation).__name__}"
    if not conversation:
        return "it has no messages"
    wrong = next((m for m in conversation if not isinstance(m, Mapping)), None)
    return None if wrong is None else f"messages must hold objects, got {type(wrong).__name__}"


def check_teacher(teacher: Any) -> None:
    """It is an LLM: a name of one is not."""
    from llama_index.core.llms import LLM

    if not isinstance(teacher, LLM):
        raise TypeError(f"teacher must be an LLM of LlamaIndex, got {type(teacher).__name__}")


def chat_message(message: Mapping[str, Any]) -> ChatMessage:
    """LlamaIndex's message of one in OpenAI's shape."""
    from llama_index.core.base.llms.types import TextBlock, ToolCallBlock

    content, calls = message.get("content"), message.get("tool_calls") or []
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content must be a text to be asked here, got {content!r}")
    blocks: list[Any] = [TextBlock(text=content)] if content or not calls else []
    blocks += [
        ToolCallBlock(
            tool_call_id=call["id"],
            tool_name=call["function"]["name"],
            tool_kwargs=json.loads(call["function"]["arguments"]),
        )
        for call in calls
    ]
    extra = {key: message[key] for key in ("tool_call_id", "name") if key in message}
    return ChatMessage(role=message["role"], blocks=blocks, additional_kwargs=extra)


@own_work
def texts_of(
    llm: LLM, conversations: Sequence[Conversation], *, workers: int = 4, **settings: Any
) -> list[str]:
    """The texts that an LLM replies with, without its thoughts.

    Args:
        llm: any LLM.
        conversations: what it is asked.
        workers: requests at a time, where the LLM has no `chat_batch`.
        **settings: of each call, such as `max_tokens`.
    """
    asked = [[chat_message(m) for m in messages_of(c)] for c in conversations]
    batch = getattr(llm, "chat_batch", None)
    if batch is not None:
        responses: list[ChatResponse] = batch(asked, batch_size=64, **settings)
    else:
        responses = at_once(lambda messages: llm.chat(messages, **settings), asked, workers)
    return [without_thoughts(response.message.content or "") for response in responses]


def at_once(
    call: Callable[[Any], T], given: Sequence[Any], workers: int, show_progress: bool = False
) -> list[T]:
    """The responses in the order asked; the first error ends it."""
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ValueError(f"workers must be a whole number >= 1, got {workers!r}")
    pool = ThreadPoolExecutor(workers, thread_name_prefix="task-replies")
    try:
        # Each thread sees what the caller has set, such as that this is no traffic of the app.
        contexts = [copy_context() for _ in given]
        found = pool.map(lambda item, context: context.run(call, item), given, contexts)
        return list(progress(found, show_progress, "Asking", total=len(given)))
    finally:
        pool.shutdown(cancel_futures=True)
