"""Tokens from a model: settings of a call, and a reply that can be stopped.

From what a model wrote to LlamaIndex's responses: text, tool calls, counts.

Replies as they are written: tokens out of a thread, pieces for the reader of a stream.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from llama_index.tuning.datasets.formats.messages import message_record
from llama_index.tuning.llms.serving.prompts import Prompt
from llama_index.tuning.llms.serving.replies import read_reply, visible_reply
from llama_index.tuning.llms.serving.template import ChatTemplate
from llama_index.tuning.llms.serving.tool_parsers import ToolParser

_RENAMED = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
_GREEDY = {"temperature": 1.0, "top_p": 1.0, "top_k": 50}  # the model's own would give warnings


@dataclass(frozen=True)
class Generated:
    """What a model wrote.

    Attributes:
        ids: its tokens, without the end token.
        stopped: whether it stopped by itself, by an end token or a stop word.
        prompt_length: tokens of the prompt.
    """

    ids: list[int]
    stopped: bool
    prompt_length: int

    @property
    def raw(self) -> dict[str, Any]:
        """Token counts and the reason of the end, as OpenAI's answers have them."""
        return {
            "usage": {
                "prompt_tokens": self.prompt_length,
                "completion_tokens": len(self.ids),
                "total_tokens": self.prompt_length + len(self.ids),
            },
            "finish_reason": "stop" if self.stopped else "length",
        }


def generation_settings(
    defaults: Mapping[str, Any], call: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str], int | None]:
    """(arguments of `generate`, stop words, seed) of one call, greedy unless it says otherwise.

    Raises:
        TypeError: an argument that `generate` does not know.
        ValueError: a value out of range.
    """
    from transformers import GenerationConfig

    settings: dict[str, Any] = {}
    for given in (defaults, call):
        said = {key: value for key, value in given.items() if value is not None}
        settings |= {_RENAMED.get(key, key): value for key, value in said.items()}
    stop = settings.pop("stop", [])
    seed = settings.pop("seed", None)
    _check_call(settings, stop, seed)
    temperature = settings.get("temperature")
    cut = "top_p" in settings or "top_k" in settings  # of a distribution: to sample from
    settings.setdefault("do_sample", cut if temperature is None else temperature > 0)
    if not settings["do_sample"]:
        settings |= _GREEDY
    known = GenerationConfig()  # type: ignore[no-untyped-call,unused-ignore]
    unknown = [key for key in settings if not hasattr(known, key)]
    if unknown:
        raise TypeError(f"unknown argument {unknown[0]!r}: it is none of generate()'s")
    return settings, [stop] if isinstance(stop, str) else list(stop), seed


def _check_call(settings: Mapping[str, Any], stop: Any, seed: Any) -> None:
    """Raise if a value is of the wrong kind or out of range."""
    temperature, top_p = settings.get("temperature", 1.0), settings.get("top_p", 1.0)
    if not (_is_number(temperature) and 0 <= temperature < math.inf):
        raise ValueError(f"temperature must be >= 0, got {temperature!r}")
    if not (_is_number(top_p) and 0 < top_p <= 1):
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p!r}")
    for name, key in (("max_tokens", "max_new_tokens"), ("top_k", "top_k")):
        value = settings.get(key, 1)
        if not (_is_number(value) and isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} must be >= 1, got {value!r}")
    if settings.get("num_return_sequences", 1) != 1:
        raise ValueError(
            "num_return_sequences must be 1: an answer is one text; call several times"
        )
    texts = [stop] if isinstance(stop, str) else stop
    if not (isinstance(texts, Sequence) and all(isinstance(t, str) and t for t in texts)):
        raise ValueError(f"stop must be a text or a list of texts, none empty, got {stop!r}")
    if seed is not None and not (_is_number(seed) and isinstance(seed, int)):
        raise ValueError(f"seed must be a whole number, got {seed!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    end_ids: Sequence[int],
    settings: Mapping[str, Any],
    *,
    stop: Sequence[str] = (),
    seed: int | None = None,
    streamer: Any = None,
    cancelled: threading.Event | None = None,
) -> list[Generated]:
    """What a model writes after each of some prompts, as one batch.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: tokens of each prompt.
        end_ids: tokens that end a reply.
        settings: arguments of `generate`.
        stop: texts that end a reply.
        seed: for sampling; the global random state stays as it was.
        streamer: gets the tokens as they come.
        cancelled: ends the reply once it is set.
    """
    import torch
    from transformers import StoppingCriteriaList

    longest = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    rows = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    extra: dict[str, Any] = {"tokenizer": tokenizer} if stop else {}
    if cancelled is not None:
        extra["stopping_criteria"] = StoppingCriteriaList([_when(cancelled)])
    training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        output = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=_config(model, settings, pad, end_ids, stop),
            streamer=streamer,
            **extra,
        )
    model.train(training)
    return [
        _generated(ids[longest:], len(prompt), end_ids, stop, tokenizer)
        for ids, prompt in zip(output.tolist(), prompts, strict=True)
    ]


def _config(
    model: Any, settings: Mapping[str, Any], pad: int, end_ids: Sequence[int], stop: Sequence[str]
) -> Any:
    from transformers import GenerationConfig

    start = getattr(model.generation_config, "bos_token_id", None)
    tokens = {"bos_token_id": start, "pad_token_id": pad, "eos_token_id": list(end_ids)}
    return GenerationConfig(  # type: ignore[no-untyped-call,unused-ignore]
        **settings, **tokens, stop_strings=list(stop) or None, use_cache=True
    )


def _when(cancelled: threading.Event) -> Any:
    import torch
    from transformers import StoppingCriteria

    class Cancelled(StoppingCriteria):  # type: ignore[misc,unused-ignore]
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            stop = cancelled.is_set()
            return torch.full((len(input_ids),), stop, dtype=torch.bool, device=input_ids.device)

    return Cancelled()


def _generated(
    ids: list[int], prompt_length: int, end_ids: Sequence[int], stop: Sequence[str], tokenizer: Any
) -> Generated:
    ended = next((place for place, token in enumerate(ids) if token in end_ids), None)
    if ended is not None:
        return Generated(ids[:ended], True, prompt_length)
    stopped = bool(stop) and any(word in tokenizer.decode(ids) for word in stop)
    return Generated(ids, stopped, prompt_length)


@dataclass(frozen=True, repr=False)
class ReplyReader:
    """From the tokens of a reply to its text and its tool calls.

    Attributes:
        template: the model's, with its tokenizer.
        parser: how the model writes tool calls; None: it cannot be told.
    """

    template: ChatTemplate
    parser: ToolParser | None

    def response(self, prompt: Prompt, reply: Generated) -> ChatResponse:
        """A whole reply."""
        text = self._text(prompt, reply.ids)
        thoughts, parsed = read_reply(text, self.template, self.parser, prompt.tools)
        blocks: list[Any] = [TextBlock(text=parsed.content)] if parsed.content else []
        blocks += [
            ToolCallBlock(
                tool_call_id=uuid.uuid4().hex[:9],
                tool_name=call.name,
                tool_kwargs=call.arguments,
            )
            for call in (parsed.calls[:1] if prompt.first_call_only else parsed.calls)
        ]
        thought = [ThinkingBlock(content=thoughts)] if thoughts else []
        said = [*thought, *(blocks or [TextBlock(text="")])]
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=said)
        return ChatResponse(message=message, raw=reply.raw)

    def visible(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """What can be shown of an unfinished reply; empty while it ends in half a character."""
        text = self._text(prompt, ids)
        if text.endswith("\ufffd"):
            return ""
        return visible_reply(text, self.template, self.parser, prompt.tools)

    def _text(self, prompt: Prompt, ids: Sequence[int]) -> str:
        # Models mark thoughts, channels and calls by special tokens: left out once they are read.
        written: str = self.template.tokenizer.decode(list(ids))
        return prompt.opening + written


def completion_of(response: ChatResponse) -> CompletionResponse:
    """A reply, or a piece of one, as the completion that it is to a question."""
    text = response.message.content or ""
    return CompletionResponse(text=text, delta=response.delta, raw=response.raw)


def tool_selections(response: ChatResponse, *, required: bool) -> list[ToolSelection]:
    """The tool calls of a reply.

    Raises:
        ValueError: there is none, and one is required.
    """
    blocks = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
    if not blocks and required:
        raise ValueError(f"the reply calls no tool: {(response.message.content or '')[:200]!r}")
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=block.tool_kwargs if isinstance(block.tool_kwargs, dict) else {},
        )
        for block in blocks
    ]


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
            calls = message_record(final.message).get("tool_calls")
            if calls:  # where LlamaIndex's programs look for the calls of a stream
                final.message.additional_kwargs["tool_calls"] = calls
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
