"""A model's own words for a tool call, and back."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ToolCall:
    """A call that a model wrote."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ParsedReply:
    """A reply taken apart: the text beside the calls, and the calls."""

    content: str
    calls: list[ToolCall] = field(default_factory=list)


class ToolParser(ABC):
    """How one family of models writes tool calls; subclass it for another."""

    @abstractmethod
    def parse(self, text: str) -> ParsedReply:
        """A whole reply taken apart; what is no sound call stays in the text."""

    def visible(self, text: str) -> str:
        """The beginning of an unfinished reply that is surely text; by default nothing is."""
        return ""

    def opening(self, name: str | None) -> str | None:
        """What a reply begins with that must call a tool, or None: it cannot be forced."""
        return None


class HermesToolParser(ToolParser):
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Qwen and Hermes write calls.

    Example:
        >>> parser = HermesToolParser()
        >>> reply = parser.parse('<tool_call>{"name": "fee", "arguments": {"n": 2}}</tool_call>')
        >>> reply.calls
        [ToolCall(name='fee', arguments={'n': 2})]
    """

    start, end = "<tool_call>", "</tool_call>"
    _call = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written; a call that is no JSON stays in the text."""
        calls: list[ToolCall] = []

        def taken(match: re.Match[str]) -> str:
            call = _sound_call(match.group(1))
            if call is None:
                return match.group(0)
            calls.append(call)
            return ""

        content = self._call.sub(taken, text)
        return ParsedReply(content.strip() if calls else content, calls)

    def visible(self, text: str) -> str:
        """Everything before a call, or before what may become the start of one."""
        place = text.find(self.start)
        if place >= 0:
            return text[:place]
        for length in range(min(len(self.start), len(text)), 0, -1):
            if self.start.startswith(text[-length:]):
                return text[:-length]
        return text

    def opening(self, name: str | None) -> str:
        """The start of a call, up to the tool's name where there is only one."""
        return self.start if name is None else f'{self.start}\n{{"name": "{name}'


def _sound_call(text: str) -> ToolCall | None:
    try:
        call = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            return None
    return ToolCall(call["name"], arguments) if isinstance(arguments, dict) else None
