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
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from llama_index.tuning.llms.generation import Generated
from llama_index.tuning.llms.prompts import Prompt
from llama_index.tuning.llms.serving.replies import read_reply, visible_reply
from llama_index.tuning.llms.template import ChatTemplate
from llama_index.tuning.llms.tool_parsers import ToolParser


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
