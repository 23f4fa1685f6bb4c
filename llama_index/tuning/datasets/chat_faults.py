"""What can be wrong with a conversation, each fault a sentence that names the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llama_index.tuning.datasets.checks import value_fault
from llama_index.tuning.datasets.records import ChatExample


def example_faults(example: ChatExample) -> list[str]:
    """What keeps a conversation from being trained on, each fault naming its field."""
    return conversation_faults(
        example.messages, example.tools, example.parallel_tool_calls, example.rejected
    )


_ROLES = ("system", "developer", "user", "assistant", "tool")


_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "weight", "thinking")


_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def conversation_faults(messages: Any, tools: Any, parallel: Any, rejected: Any) -> list[str]:
    """Every fault of one conversation; an empty list means that it is sound."""
    if not isinstance(messages, list) or not messages:
        return ["messages must be a list of at least one message"]
    faults = [*_tool_faults(tools)]
    parts = {f"messages[{place}]": message for place, message in enumerate(messages)}
    faults += [
        f"{at}: {fault}"
        for at, part in {**parts, "tools": tools, "rejected": rejected}.items()
        if (fault := value_fault(part)) is not None
    ]
    names = set() if faults else {tool["function"]["name"] for tool in tools}
    if parallel is not None and not isinstance(parallel, bool):
        faults.append(f"parallel_tool_calls must be true or false, got {parallel!r}")
    shape = [
        fault
        for place, message in enumerate(messages)
        for fault in _message_faults(f"messages[{place}]", message, names)
    ]
    faults += shape or [*_order_faults(messages)]
    if rejected is not None:
        faults += _message_faults("rejected", rejected, names)
        if isinstance(rejected, dict) and rejected.get("role") != "assistant":
            faults.append(f"rejected.role must be 'assistant', got {rejected.get('role')!r}")
        elif isinstance(rejected, dict) and _said(rejected) == _said(messages[-1]):
            faults.append("rejected says the same as the last message")
    return faults


def _said(message: Any) -> Any:
    return (message.get("content"), message.get("tool_calls")) if isinstance(message, dict) else 0


def _message_faults(at: str, message: Any, names: set[str]) -> Iterator[str]:
    if not isinstance(message, dict):
        yield f"{at} must be an object, got {type(message).__name__}"
        return
    role = message.get("role")
    if role not in _ROLES:
        yield f"{at}.role must be one of {', '.join(_ROLES)}, got {role!r}"
        return
    for key, value in message.items():
        if key not in _KEYS and value not in (None, [], {}):
            yield f"{at}: {key!r} cannot be trained on, and no format would write it"
    if "thinking" in message and not isinstance(message["thinking"], str):
        yield f"{at}.thinking must be a text, got {type(message['thinking']).__name__}"
    yield from _content_faults(at, role, message)
    if "weight" in message:
        if role != "assistant":
            yield f"{at}.weight is for the assistant's messages, not for role {role!r}"
        elif message["weight"] not in (0, 1):
            yield f"{at}.weight must be 0 or 1, got {message['weight']!r}"
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        yield f"{at}.tool_call_id must be the id of a call, got {message.get('tool_call_id')!r}"
    calls = message.get("tool_calls")
    if calls is not None:
        if role != "assistant":
            yield f"{at}.tool_calls is for the assistant's messages, not for role {role!r}"
        elif not isinstance(calls, list) or not calls:
            yield f"{at}.tool_calls must be a list of at least one call"
        else:
            yield from _call_faults(at, calls, names)


def _content_faults(at: str, role: str, message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if content is None or content == "":
        if role == "assistant" and not message.get("tool_calls"):
            yield f"{at}.content is empty, and the message calls no tool"
        elif content is None and role != "assistant":
            yield f"{at}.content must be a text, got null"
    elif isinstance(content, list):
        for place, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                continue
            if kind != "image_url" or role != "user":
                yield f"{at}.content[{place}]: a part of type {kind!r} cannot be trained on here"
    elif not isinstance(content, str):
        yield f"{at}.content must be a text or a list of parts, got {type(content).__name__}"
    elif role in ("user", "assistant") and content.isspace():
        yield f"{at}.content is only white space"


def _call_faults(at: str, calls: list[Any], names: set[str]) -> Iterator[str]:
    seen = set()
    for place, call in enumerate(calls):
        here = f"{at}.tool_calls[{place}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type") != "function":
            yield f"{here} must have type 'function' and a function"
            continue
        if not isinstance(call.get("id"), str) or not call["id"]:
            yield f"{here}.id must be a text that is not empty, got {call.get('id')!r}"
        elif call["id"] in seen:
            yield f"{here}.id {call['id']!r} is used twice in this message"
        seen.add(call.get("id"))
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"{here}.function.name must be 1 to 64 of a-z A-Z 0-9 _ -, got {name!r}"
        elif names and name not in names:
            yield f"{here}.function.name {name!r} is none of the tools"
        arguments = _object_in(function.get("arguments"))
        if arguments is None:
            yield f"{here}.function.arguments must be a JSON object as text"
        elif (fault := value_fault(arguments)) is not None:
            yield f"{here}.function.arguments: {fault}"


def _object_in(text: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _order_faults(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Whether the conversation runs as one: every call answered, the assistant last."""
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        at, role = f"messages[{place}]", message["role"]
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                yield f"{at}.tool_call_id {message['tool_call_id']!r} answers no open call"
            else:
                open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            yield f"{at}: the calls {', '.join(open_calls)} before it were not answered"
        open_calls = [call["id"] for call in message.get("tool_calls") or []]
    last = messages[-1]
    if last["role"] != "assistant":
        yield f"messages[{len(messages) - 1}]: the last message must be the assistant's"
    if all(m.get("weight", 1) == 0 for m in messages if m["role"] == "assistant"):
        yield "no assistant message has a weight above 0: nothing would be learnt"
    if all(m["role"] in ("assistant", "tool") for m in messages):
        yield "no message is a user's or the system's: there is nothing to answer"


def _tool_faults(tools: Any) -> Iterator[str]:
    if not isinstance(tools, list):
        yield f"tools must be a list, got {type(tools).__name__}"
        return
    names = []
    for place, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            yield f"tools[{place}] must have type 'function' and a function"
            continue
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"tools[{place}].function.name must be 1 to 64 of a-z A-Z 0-9 _ -, got {name!r}"
        elif name in names:
            yield f"tools[{place}].function.name {name!r} occurs twice"
        names.append(name)
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            yield f"tools[{place}].function.parameters must be an object"
