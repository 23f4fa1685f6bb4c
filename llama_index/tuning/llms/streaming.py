"""Replies as they are written: tokens out of a thread, pieces for the reader of a stream."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    MessageRole,
)

from llama_index.tuning.llms.generation import Generated
from llama_index.tuning.llms.prompts import Prompt
from llama_index.tuning.llms.responses import ReplyReader

_DONE = object()


class TokenStream:
    """A streamer of transformers that hands tokens to another thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Called by `generate`: the prompt first, then each token."""
        if self._prompt_seen:
            self._queue.put(int(value.reshape(-1)[-1]))
        self._prompt_seen = True

    def end(self) -> None:
        """Called by `generate` at the end; the result follows from `finish`."""

    def finish(self, result: Any) -> None:
        """The reply, or the error that ended it."""
        self._queue.put((_DONE, result))

    def __iter__(self) -> Iterator[Any]:
        """Each token, then the result."""
        while True:
            item = self._queue.get()
            if isinstance(item, tuple):
                if isinstance(item[1], BaseException):
                    raise item[1]
                yield item[1]
                return
            yield item


def streamed(
    generate: Callable[..., Generated], prompt: Prompt, reader: ReplyReader, end_ids: Sequence[int]
) -> ChatResponseGen:
    """A reply piece by piece; tool calls and counts come with the last.

    Args:
        generate: makes the reply to the prompt, with `streamer=` and `cancelled=`.
        prompt: what the model reads.
        reader: of what it writes.
        end_ids: tokens that end a reply.
    """
    shown, ids = "", list[int]()
    for item in _tokens(generate):
        if isinstance(item, Generated):
            final = reader.response(prompt, item)
            content = final.message.content or ""
            final.delta = content[len(shown) :] if content.startswith(shown) else ""
            yield final
            return
        if item in end_ids:
            continue
        ids.append(item)
        visible = reader.visible(prompt, ids)
        if len(visible) > len(shown):
            delta, shown = visible[len(shown) :], visible
            message = ChatMessage(role=MessageRole.ASSISTANT, content=shown)
            yield ChatResponse(message=message, delta=delta)


async def in_thread(pieces: Iterator[Any]) -> AsyncGenerator[Any, None]:
    """An iterator whose waiting happens in a thread."""
    done = object()
    try:
        while (piece := await asyncio.to_thread(next, pieces, done)) is not done:
            yield piece
    finally:
        await asyncio.to_thread(pieces.close)  # type: ignore[attr-defined]


def _tokens(generate: Callable[..., Generated]) -> Iterator[Any]:
    """Tokens, then the whole reply; leaving early ends the generation too."""
    stream, cancelled = TokenStream(), threading.Event()

    def work() -> None:
        try:
            result: Any = generate(streamer=stream, cancelled=cancelled)
        except BaseException as exc:
            result = exc  # raised where the stream is read
        stream.finish(result)

    thread = threading.Thread(target=work, name="tuned-llm", daemon=True)
    thread.start()
    try:
        yield from stream
    finally:
        cancelled.set()
        thread.join()
