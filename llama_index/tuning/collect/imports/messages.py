"""Messages, tools and documents of several conventions in the shape of a recorder's log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from llama_index.tuning.collect.imports.nested import at, listed, loaded, text_of
from llama_index.tuning.datasets.checks import is_number

_ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "function": "tool"}

_OF_A_MESSAGE = {"role", "message", "content", "parts", "contents", "blocks", "tool_calls"}

Found = tuple[list[dict[str, Any]], dict[str, str]]
"""Ids with scores, in order; and id → text."""


def message(given: Any, role: str = "user") -> dict[str, Any] | None:
    """A message as OpenAI's chat format has it, from OpenInference, GenAI, LlamaIndex or OpenAI.

    Args:
        given: the message, or its text.
        role: of a message that names none.
    """
    if isinstance(given, str):
        held = loaded(given)
        if not (isinstance(held, Mapping) and held.get("role")):
            return {"role": role, "content": given}  # an answer may be JSON itself
        given = held
    if not isinstance(given, Mapping):
        return None
    if given and not any(key in given for key in _OF_A_MESSAGE):
        return {"role": role, "content": _as_text(given)}
    given = given.get("message", given) if isinstance(given.get("message"), Mapping) else given
    named = str(given.get("role") or given.get("type") or role).lower()
    record: dict[str, Any] = {"role": _ROLES.get(named, named)}
    parts = next((listed(given[k]) for k in ("parts", "contents", "blocks") if given.get(k)), None)
    content = given.get("content")
    if parts is None and not isinstance(content, str):
        parts = listed(content)
    shown: list[dict[str, Any]] = []
    calls, thoughts, answered = [], [], None
    for part in parts or ():
        part = at(part, "message_content") or part
        kind = at(part, "type") or at(part, "block_type") or "text"
        if kind in ("tool_call", "tool_use"):
            calls.append(_call(part))
        elif kind in ("thinking", "reasoning"):
            thoughts.append(str(at(part, "content") or at(part, "text") or ""))
        elif kind == "tool_call_response":
            answered = part
        elif kind == "text":
            shown.append({"type": "text", "text": _part_text(part)})
        elif kind in ("image", "image_url"):
            url = at(part, "image.image.url") or at(part, "image_url.url") or at(part, "url")
            shown.append({"type": "image_url", "image_url": {"url": url or ""}})
        else:
            shown.append({"type": str(kind)})
    if answered is not None:
        record["role"] = "tool"
        result = answered.get("response", answered.get("result"))
        shown = [{"type": "text", "text": _as_text(result)}]
        given = {**given, "tool_call_id": answered.get("id")}
    extra = given.get("additional_kwargs")
    extra = extra if isinstance(extra, Mapping) else {}
    if not calls:
        found = given.get("tool_calls") or loaded(extra.get("tool_calls"))
        calls = [_call(at(call, "tool_call") or call) for call in listed(found)]
    if parts is None:
        record["content"] = content
    elif all(part["type"] == "text" for part in shown):
        record["content"] = "\n".join(part["text"] for part in shown)
    else:
        record["content"] = shown
    if calls:
        record["content"] = record["content"] or None
        record["tool_calls"] = calls
    if any(thoughts):
        record["thinking"] = "\n".join(thoughts)
    for key in ("tool_call_id", "name"):
        value = given.get(key) or extra.get(key)
        if isinstance(value, str):
            record[key] = value
    return record


def messages(given: Any) -> list[dict[str, Any]]:
    """Those that can be read of a list of messages, or the one that a text is."""
    return [m for m in map(message, listed(given)) if m is not None]


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return _as_text(at(part, "text") if at(part, "text") is not None else at(part, "content"))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _call(given: Any) -> dict[str, Any]:
    function = at(given, "function")
    function = function if isinstance(function, Mapping) else given
    name = function.get("name") or given.get("tool_name")
    arguments: Any = next(
        (function[k] for k in ("arguments", "tool_kwargs", "input") if function.get(k) is not None),
        {},
    )
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
    id_ = given.get("id") or given.get("tool_call_id")
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def tools(given: Any) -> list[dict[str, Any]]:
    """Tools as OpenAI's function schemas."""
    found = []
    for tool in listed(given):
        tool = loaded(tool)
        tool = loaded(at(tool, "tool.json_schema") or at(tool, "json_schema") or tool)
        if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping):
            found.append({"type": "function", "function": dict(tool["function"])})
        elif isinstance(tool, Mapping) and tool.get("name"):
            keys = ("name", "description", "parameters")
            found.append({"type": "function", "function": {k: tool[k] for k in keys if k in tool}})
    return found


def documents(given: Any) -> Found:
    """Retrieved documents; one without an id is known by its text."""
    nodes, texts = [], {}
    for item in listed(given):
        item = loaded(item)
        item = at(item, "document") or item
        if isinstance(item, str):
            item = {"content": item}
        if not isinstance(item, Mapping):
            continue
        within = item.get("node")
        node = within if isinstance(within, Mapping) else item
        text = _document_text(node)
        id_ = _first(node, ("id", "id_", "node_id", "doc_id")) or _first(
            node.get("metadata"), ("node_id", "id", "doc_id", "chunk_id", "doc_uri")
        )
        if id_ is None and text is not None:
            digest = hashlib.sha1(text.encode("utf-8", "replace"), usedforsecurity=False)
            id_ = f"text-{digest.hexdigest()[:16]}"
        if id_ is None:
            continue
        score: Any = item.get("score")
        if score is None and "page_content" in node:  # as MLflow writes LlamaIndex' nodes
            score = at(node, "metadata.score")
        nodes.append({"id": str(id_), "score": float(score) if is_number(score) else None})
        if text is not None:
            texts[str(id_)] = text
    return nodes, texts


def _document_text(node: Mapping[str, Any]) -> str | None:
    for value in (
        *(node.get(name) for name in ("content", "text", "page_content")),
        at(node, "text_resource.text"),
    ):
        if text_of(value):
            return str(value)
    return None


def _first(given: Any, names: Iterable[str]) -> Any:
    given = loaded(given)
    if not isinstance(given, Mapping):
        return None
    return next((given[name] for name in names if given.get(name) not in (None, "")), None)
