"""From what a model wrote to LlamaIndex's responses: text, tool calls, counts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from llama_index.tuning.llms.generation import Generated
from llama_index.tuning.llms.prompts import Prompt
from llama_index.tuning.llms.tool_parsers import ParsedReply, ToolParser


@dataclass(frozen=True, repr=False)
class ReplyReader:
    """From the tokens of a reply to its text and its tool calls.

    Attributes:
        tokenizer: the model's.
        parser: how the model writes tool calls.
    """

    tokenizer: Any
    parser: ToolParser

    def response(self, prompt: Prompt, reply: Generated) -> ChatResponse:
        """A whole reply."""
        text = self._text(prompt, reply.ids)
        parsed = self.parser.parse(text) if prompt.tools else ParsedReply(text)
        blocks: list[Any] = [TextBlock(text=parsed.content)] if parsed.content else []
        blocks += [
            ToolCallBlock(
                tool_call_id=uuid.uuid4().hex[:9],
                tool_name=call.name,
                tool_kwargs=call.arguments,
            )
            for call in (parsed.calls[:1] if prompt.first_call_only else parsed.calls)
        ]
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks or [TextBlock(text="")])
        return ChatResponse(message=message, raw=reply.raw)

    def visible(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """What can be shown of an unfinished reply; empty while it ends in half a character."""
        text = self._text(prompt, ids)
        if text.endswith("\ufffd"):
            return ""
        return self.parser.visible(text) if prompt.tools else text

    def _text(self, prompt: Prompt, ids: Sequence[int]) -> str:
        # Some models mark their calls by special tokens.
        written: str = self.tokenizer.decode(list(ids), skip_special_tokens=not prompt.tools)
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
