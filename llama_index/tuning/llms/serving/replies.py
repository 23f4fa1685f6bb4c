"""What a model wrote, read: thoughts, text and tool calls, as its chat template writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.tuning.datasets.formats.thoughts import may_open_thought, split_thoughts
from llama_index.tuning.llms.serving.template import ChatTemplate
from llama_index.tuning.llms.serving.tool_calls import ParsedReply, typed_calls
from llama_index.tuning.llms.serving.tool_parsers import FAMILIES, ToolParser

_NAME = "probe_tool_7d3"
_ARGUMENTS = {"city": "Oslo", "zip": "75001", "days": 3, "exact": True}
_KINDS = {"city": "string", "zip": "string", "days": "integer", "exact": "boolean"}
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {
                key: {"type": kind, "description": "A probe."} for key, kind in _KINDS.items()
            },
            "required": list(_KINDS),
        },
    },
}


def read_reply(
    text: str, template: ChatTemplate, parser: ToolParser | None, tools: Sequence[Mapping[str, Any]]
) -> tuple[str, ParsedReply]:
    """(thoughts, text and calls) of a whole reply.

    Args:
        text: what the model wrote, its special tokens included, without the end token.
        template: the model's.
        parser: how it writes calls; None: they stay in the text.
        tools: those offered; without any, nothing is taken for a call.
    """
    thoughts, answer = split_thoughts(text.removeprefix(template.answer_prefix))
    parsed = parser.parse(answer) if parser and tools else ParsedReply(answer)
    if parser and parser.untyped:
        parsed = replace(parsed, calls=typed_calls(parsed.calls, tools))
    return template.plain(thoughts), replace(parsed, content=template.plain(parsed.content))


def visible_reply(
    text: str, template: ChatTemplate, parser: ToolParser | None, tools: Sequence[Mapping[str, Any]]
) -> str:
    """What can be shown of an unfinished reply: neither thoughts nor calls."""
    prefix = template.answer_prefix
    if prefix.startswith(text) or (not text.startswith(prefix) and may_open_thought(text)):
        return ""
    answer = split_thoughts(text.removeprefix(prefix))[1]
    return template.plain(parser.visible(answer) if parser and tools else answer)


def parser_of(template: ChatTemplate) -> ToolParser | None:
    """The parser that understands the calls that a template writes; None: none of ours does."""
    return next((parser for parser in FAMILIES if understands(parser, template)), None)


def understands(parser: ToolParser, template: ChatTemplate) -> bool:
    """Whether a parser gives back the call that the template was made to write."""
    written = template.written_call(_NAME, _ARGUMENTS, _TOOL)
    if written is None:
        return False
    calls = read_reply(written, template, parser, [_TOOL])[1].calls
    return [(call.name, call.arguments) for call in calls] == [(_NAME, _ARGUMENTS)]
