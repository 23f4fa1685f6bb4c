"""Tool calls as models write them: in JSON, between tags, as Python; typed by the tool's schema."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
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


def typed_calls(calls: Sequence[ToolCall], tools: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
    """Calls whose arguments are all text, with the types of the tools' schemas.

    Example:
        >>> tool = {"function": {"name": "f", "parameters": {"properties": {
        ...     "zip": {"type": "string"}, "n": {"type": "integer"}}}}}
        >>> typed_calls([ToolCall("f", {"zip": "75001", "n": "3"})], [tool])
        [ToolCall(name='f', arguments={'zip': '75001', 'n': 3})]
    """
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    return [
        ToolCall(
            call.name,
            {
                key: _typed(value, (schemas.get(call.name, {}).get("properties") or {}).get(key))
                for key, value in call.arguments.items()
            },
        )
        for call in calls
    ]


_PYTHON = {"True": True, "False": False, "None": None}


def _typed(value: Any, schema: Any) -> Any:
    if not isinstance(value, str) or (isinstance(schema, Mapping) and _takes_text(schema)):
        return value
    if value in _PYTHON:
        return _PYTHON[value]
    try:
        return json.loads(value)
    except ValueError:
        return value


def _takes_text(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type")
    if kinds == "string" or (isinstance(kinds, list) and "string" in kinds):
        return True
    if "enum" in schema:
        return any(isinstance(one, str) for one in schema["enum"])
    choices = [*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())]
    return any(isinstance(one, Mapping) and _takes_text(one) for one in choices)


def taken_apart(text: str, pattern: re.Pattern[str], read: Any) -> ParsedReply:
    """A reply without the matches that `read` finds calls in, and these calls."""
    calls: list[ToolCall] = []

    def replaced(match: re.Match[str]) -> str:
        found: list[ToolCall] = read(match)
        calls.extend(found)
        return "" if found else match.group(0)

    return reply_of(text, pattern.sub(replaced, text), calls)


def reply_of(text: str, content: str, calls: list[ToolCall]) -> ParsedReply:
    return ParsedReply(content.strip(), calls) if calls else ParsedReply(text)


def tagged_calls(match: re.Match[str], argument: re.Pattern[str]) -> list[ToolCall]:
    """A call whose name and arguments stand between tags."""
    if match.group(2).strip() and not argument.search(match.group(2)):
        return []
    return [ToolCall(match.group(1).strip(), dict(argument.findall(match.group(2))))]


def json_at(text: str, place: int) -> tuple[Any, int] | None:
    """The JSON that begins there, after white space, and where it ends."""
    while place < len(text) and text[place].isspace():
        place += 1
    if not text.startswith(("{", "["), place):
        return None
    try:
        return json.JSONDecoder().raw_decode(text, place)
    except (json.JSONDecodeError, RecursionError):
        return None


def json_calls(text: str) -> list[ToolCall]:
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return []
    return (sound_calls(found) or []) if isinstance(found, dict) else []


def sound_calls(found: Any) -> list[ToolCall] | None:
    """The calls of an object or of a list; None if one of them is none."""
    calls = [_sound_call(call) for call in (found if isinstance(found, list) else [found])]
    sound = [call for call in calls if call is not None]
    return sound if len(sound) == len(calls) else None


def _sound_call(call: Any) -> ToolCall | None:
    if not isinstance(call, dict):
        return None
    call = call.get("function") if isinstance(call.get("function"), dict) else call
    name = call.get("name", call.get("tool_name"))
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            return None
    return (
        ToolCall(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None
    )


_JSON_WORDS = {"true": True, "false": False, "null": None}


def python_calls(text: str) -> list[ToolCall]:
    """The calls of a list as Python writes it, with JSON's words for true, false and null."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        given = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_python_call(call) for call in given]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _python_call(call: ast.expr) -> ToolCall:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name | ast.Attribute)):
        raise ValueError("no call")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError("arguments without names")
    values = {str(k.arg): ast.literal_eval(_Words().visit(k.value)) for k in call.keywords}
    return ToolCall(ast.unparse(call.func), values)


class _Words(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in _JSON_WORDS:
            return node
        return ast.copy_location(ast.Constant(_JSON_WORDS[node.id]), node)
