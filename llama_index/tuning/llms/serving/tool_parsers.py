"""A model's own words for a tool call, and back: a parser for each family of models."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod

from llama_index.tuning.llms.serving.tool_calls import (
    ParsedReply,
    ToolCall,
    json_at,
    json_calls,
    python_calls,
    reply_of,
    sound_calls,
    tagged_calls,
    taken_apart,
)


class ToolParser(ABC):
    """How one family of models writes tool calls; subclass it for another."""

    starts: tuple[str, ...] = ()
    """What a call begins with; without it nothing of an unfinished reply is shown."""

    untyped: bool = False
    """Whether arguments are written without quotes, so that the tool's schema tells their types."""

    @abstractmethod
    def parse(self, text: str) -> ParsedReply:
        """A whole reply taken apart; what is no sound call stays in the text."""

    def visible(self, text: str) -> str:
        """The beginning of an unfinished reply that is surely text."""
        if not self.starts:
            return ""
        places = [place for start in self.starts if (place := text.find(start)) >= 0]
        if places:
            return text[: min(places)]
        longest = max(map(len, self.starts))
        for length in range(min(longest, len(text)), 0, -1):
            if any(start.startswith(text[-length:]) for start in self.starts):
                return text[:-length]
        return text

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

    starts = ("<tool_call>",)
    _call = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written; a call that is no JSON stays in the text."""
        return taken_apart(text, self._call, lambda match: json_calls(match.group(1)))

    def opening(self, name: str | None) -> str:
        """The start of a call, up to the tool's name if there is only one."""
        return "<tool_call>" if name is None else f'<tool_call>\n{{"name": "{name}'


class JSONToolParser(ToolParser):
    """A call, or a list of calls, as JSON after a mark: Mistral, Granite, Phi, Cohere and others.

    Args:
        start: the mark before the JSON.
        end: the mark after it, which may be missing.
    """

    def __init__(self, start: str, end: str = "") -> None:
        self.start, self.end = start, end
        self.starts = (start,)

    def parse(self, text: str) -> ParsedReply:
        """The calls after each mark."""
        calls: list[ToolCall] = []
        kept: list[str] = []
        place = 0
        while (found := text.find(self.start, place)) >= 0:
            begin = found + len(self.start)
            read = json_at(text, begin)
            sound = sound_calls(read[0]) if read else None
            kept.append(text[place:found] if sound else text[place:begin])
            place = begin
            if read and sound:
                calls += sound
                place = read[1]
                if self.end and text.startswith(self.end, place):
                    place += len(self.end)
        kept.append(text[place:])
        return reply_of(text, "".join(kept), calls)

    def opening(self, name: str | None) -> str:
        """The mark: whether a list follows is the model's to say."""
        return self.start


class MistralToolParser(JSONToolParser):
    """`[TOOL_CALLS]` and a list of calls, or a name, `[ARGS]` and the arguments, as Mistral does.

    Example:
        >>> MistralToolParser().parse('[TOOL_CALLS]fee[ARGS]{"n": 2}').calls
        [ToolCall(name='fee', arguments={'n': 2})]
    """

    _named = re.compile(r"\[TOOL_CALLS\]\s*([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)")

    def __init__(self) -> None:
        super().__init__("[TOOL_CALLS]")

    def parse(self, text: str) -> ParsedReply:
        """Calls of either way of writing them."""
        calls: list[ToolCall] = []
        kept, place = [], 0
        for match in self._named.finditer(text):
            read = json_at(text, match.end())
            if match.start() >= place and read and isinstance(read[0], dict):
                calls.append(ToolCall(match.group(1), read[0]))
                kept.append(text[place : match.start()])
                place = read[1]
        return (
            reply_of(text, "".join([*kept, text[place:]]), calls) if calls else super().parse(text)
        )


class LlamaToolParser(ToolParser):
    """`{"name": …, "parameters": {…}}` and nothing else, as Llama 3.1 and later write a call.

    Example:
        >>> LlamaToolParser().parse('{"name": "fee", "parameters": {"n": 2}}').calls
        [ToolCall(name='fee', arguments={'n': 2})]
    """

    _between = re.compile(r"[\s;,]*")
    _end = re.compile(r"(?:\s|<\|\w+\|>)*\Z")

    def parse(self, text: str) -> ParsedReply:
        """Calls if the reply holds nothing else; else it is text."""
        calls: list[ToolCall] = []
        place = len(text) - len(text.lstrip())
        if text.startswith("<|python_tag|>", place):
            place += len("<|python_tag|>")
        while (read := json_at(text, place)) is not None:
            sound = sound_calls(read[0])
            if not sound:
                return ParsedReply(text)
            calls += sound
            following = self._between.match(text, read[1])
            place = following.end() if following else read[1]
        return (
            ParsedReply("", calls) if calls and self._end.match(text, place) else ParsedReply(text)
        )

    def visible(self, text: str) -> str:
        """All of it, if it does not begin as a call does."""
        begun = text.lstrip()
        tag = "<|python_tag|>"
        hidden = not begun or begun[0] in "{[" or begun.startswith(tag) or tag.startswith(begun)
        return "" if hidden else text

    def opening(self, name: str | None) -> str:
        """The start of a call, up to the tool's name if there is only one."""
        return '{"name": "' + (name or "")


class FunctionTagToolParser(ToolParser):
    """`<function=…>` with a `<parameter=…>` for each argument, as Qwen 3.5 and Nemotron 3 do."""

    starts = ("<tool_call>",)
    untyped = True
    _call = re.compile(
        r"<tool_call>\s*<function=([^\n>]+)>(.*?)</function>\s*(?:</tool_call>|\Z)", re.DOTALL
    )
    _argument = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written."""
        return taken_apart(text, self._call, lambda m: tagged_calls(m, self._argument))

    def opening(self, name: str | None) -> str:
        """The start of a call, up to the tool's name if there is only one."""
        return "<tool_call>\n<function=" + (f"{name}>" if name else "")


class ArgumentTagToolParser(ToolParser):
    """A name, then `<arg_key>` and `<arg_value>` for each argument, as GLM 4 does."""

    starts = ("<tool_call>",)
    untyped = True
    _call = re.compile(r"<tool_call>\s*([^\s<{]+)\s*(.*?)(?:</tool_call>|\Z)", re.DOTALL)
    _argument = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written."""
        return taken_apart(text, self._call, lambda m: tagged_calls(m, self._argument))

    def opening(self, name: str | None) -> str:
        """The start of a call, up to the tool's name if there is only one."""
        return "<tool_call>" + (f"{name}\n" if name else "")


class InvokeToolParser(ToolParser):
    """`<atem:invoke name="…">` with a parameter for each argument, as Muse does."""

    starts = (" to=", "<atem:function_calls>")
    untyped = True
    _block = re.compile(
        r"(?:<\|start\|>assistant)?\s*(?:to=[^\s<]+<\|message\|>)?\s*<atem:function_calls>(.*?)"
        r"(?:</atem:function_calls>|\Z)(?:<\|eom\|>|<\|eot\|>)?",
        re.DOTALL,
    )
    _call = re.compile(r'<atem:invoke name="([^"]+)">(.*?)(?:</atem:invoke>|\Z)', re.DOTALL)
    _argument = re.compile(r'<atem:parameter name="([^"]+)">(.*?)</atem:parameter>', re.DOTALL)

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written."""

        def calls(match: re.Match[str]) -> list[ToolCall]:
            found = (
                tagged_calls(call, self._argument) for call in self._call.finditer(match.group(1))
            )
            return [call for each in found for call in each]

        return taken_apart(text, self._block, calls)

    def opening(self, name: str | None) -> str | None:
        """The start of a call to the one tool."""
        if name is None:
            return None
        return f' to={name}<|message|><atem:function_calls>\n<atem:invoke name="{name}">'


class ChannelToolParser(ToolParser):
    """`to=functions.…` and JSON in a channel of its own, as gpt-oss writes calls."""

    starts = (" to=functions.", "to=functions.", "<|channel|>commentary", "<|start|>")
    _call = re.compile(
        r"(?:<\|start\|>assistant)?\s*(?:<\|channel\|>\w+\s+)?to=functions\.([\w.-]+)\s*"
        r"(?:<\|channel\|>\w+)?\s*(?:<\|constrain\|>)?\s*(?:json)?\s*<\|message\|>(.*?)"
        r"(?:<\|call\|>|(?=<\|start\|>)|\Z)",
        re.DOTALL,
    )
    _marks = re.compile(r"<\|start\|>assistant|<\|channel\|>\w+|<\|message\|>|<\|end\|>")

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written; a preamble stays in the text."""

        def calls(match: re.Match[str]) -> list[ToolCall]:
            read = json_at(match.group(2), 0)
            sound = read is not None and isinstance(read[0], dict)
            return [ToolCall(match.group(1), read[0])] if read and sound else []

        found = taken_apart(text, self._call, calls)
        content = self._marks.sub("", found.content).strip() if found.calls else found.content
        return ParsedReply(content, found.calls)

    def opening(self, name: str | None) -> str:
        """The start of a call, up to its arguments if there is only one tool."""
        if name is None:
            return " to=functions."
        return f" to=functions.{name}<|channel|>commentary json<|message|>"


class PythonicToolParser(ToolParser):
    """`<|tool_call_start|>[fee(city='Oslo', n=3)]<|tool_call_end|>`, as LFM2 writes calls."""

    starts = ("<|tool_call_start|>",)
    _calls = re.compile(r"<\|tool_call_start\|>(.*?)(?:<\|tool_call_end\|>|\Z)", re.DOTALL)

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written."""
        return taken_apart(text, self._calls, lambda match: python_calls(match.group(1)))

    def opening(self, name: str | None) -> str:
        """The start of a call, up to the tool's name if there is only one."""
        return "<|tool_call_start|>[" + (f"{name}(" if name else "")


class GemmaToolParser(ToolParser):
    """`<|tool_call>call:fee{city:<|"|>Oslo<|"|>,n:3}<tool_call|>`, as Gemma 4 writes calls."""

    starts = ("<|tool_call>",)
    _call = re.compile(r"<\|tool_call>call:([\w.-]+)(\{.*?\})(?:<tool_call\|>|\Z)", re.DOTALL)
    _key = re.compile(r"([{,]\s*)([\w.-]+)\s*:")
    _result = re.compile(r"<\|tool_response>\s*\Z")

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written."""
        found = taken_apart(text, self._call, self._read)
        return ParsedReply(self._result.sub("", found.content), found.calls)

    def opening(self, name: str | None) -> str:
        """The start of a call, up to the tool's name if there is only one."""
        return "<|tool_call>call:" + (f"{name}{{" if name else "")

    def _read(self, match: re.Match[str]) -> list[ToolCall]:
        parts = match.group(2).split('<|"|>')
        written = [
            json.dumps(part) if place % 2 else self._key.sub(r'\1"\2":', part)
            for place, part in enumerate(parts)
        ]
        read = json_at("".join(written), 0)
        return [ToolCall(match.group(1), read[0])] if read and isinstance(read[0], dict) else []


class DeepSeekToolParser(ToolParser):
    """Calls between `<｜tool▁call▁begin｜>` and its end, as DeepSeek V3 writes them."""

    starts = ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>")
    _call = re.compile(
        r"(?:<｜tool▁calls▁begin｜>)?\s*<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?([\w.-]+)"
        r"\s*(?:<｜tool▁sep｜>)?\s*(?:```json)?\s*(\{.*?\})\s*(?:```)?\s*"
        r"(?:<｜tool▁call▁end｜>|\Z)(?:\s*<｜tool▁calls▁end｜>)?",
        re.DOTALL,
    )

    def parse(self, text: str) -> ParsedReply:
        """Calls in the order written."""

        def calls(match: re.Match[str]) -> list[ToolCall]:
            read = json_at(match.group(2), 0)
            return [ToolCall(match.group(1), read[0])] if read else []

        return taken_apart(text, self._call, calls)

    def opening(self, name: str | None) -> str:
        """The start of a call."""
        return "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"


FAMILIES: tuple[ToolParser, ...] = (
    HermesToolParser(),
    FunctionTagToolParser(),
    ArgumentTagToolParser(),
    MistralToolParser(),
    ChannelToolParser(),
    PythonicToolParser(),
    GemmaToolParser(),
    DeepSeekToolParser(),
    InvokeToolParser(),
    JSONToolParser("<|tool_call|>", "<|/tool_call|>"),  # Granite, Phi 4
    JSONToolParser("<tool_call>", "</tool_call>"),  # a list between Hermes' marks
    JSONToolParser("<|START_ACTION|>", "<|END_ACTION|>"),  # Cohere
    JSONToolParser("<|action_start|><|plugin|>", "<|action_end|>"),  # InternLM
    LlamaToolParser(),
)
"""The parsers that are tried on what a template writes, the first that understands it is taken."""
