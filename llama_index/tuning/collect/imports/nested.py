"""Attributes as objects: tools write `llm.prompts.0.prompt.text` flat, nested or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def nested(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as objects within objects; what is nested already stays, its keys split too.

    Positions stay keys (`{"0": …}`); `listed` makes lists of them. Of a key that is also the
    beginning of another, what lies deeper counts.

    Example:
        >>> nested({"a.b": 1, "a.c.0": 2})
        {'a': {'b': 1, 'c': {'0': 2}}}
    """
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        if value is None:
            continue
        *path, last = str(key).split(".")
        place = tree
        for name in path:
            deeper = place.get(name)
            if not isinstance(deeper, dict):
                deeper = place[name] = {}
            place = deeper
        value = _value(value)
        if isinstance(value, dict) and isinstance(place.get(last), dict):
            place[last].update(value)
        elif not isinstance(place.get(last), dict):
            place[last] = value
    return tree


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return nested(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_value(item) for item in value if item is not None]
    return value


def at(tree: Any, path: str) -> Any:
    """What lies at a dotted path, or `None`."""
    for name in path.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(name)
    return tree


def listed(value: Any) -> list[Any]:
    """A list, given as one, as an object with positions for keys, or as JSON of either."""
    value = loaded(value)
    if isinstance(value, Mapping) and value and all(str(key).isdigit() for key in value):
        return [item for _, item in sorted(value.items(), key=lambda pair: int(pair[0]))]
    if isinstance(value, list):
        return value
    return [] if value in (None, "", {}) else [value]


def loaded(value: Any) -> Any:
    """What a JSON text says; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def text_of(value: Any) -> str | None:
    """A text, or `None` for anything else."""
    return value if isinstance(value, str) else None


_ASKED = (
    "query_str", "query", "question", "message", "user_msg", "str_or_query_bundle",
    "query_bundle", "input", "messages",
)  # fmt: skip
_SAID = ("response", "output", "answer", "text", "content", "message", "result", "choices")


def asked(value: Any) -> str | None:
    """The question within a span's input: a text, or an object or messages that hold one."""
    return _found(value, _ASKED)


def said(value: Any) -> str | None:
    """The answer within a span's output."""
    return _found(value, _SAID)


def _found(value: Any, names: tuple[str, ...]) -> str | None:
    value = loaded(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # messages: the last one
        return _found(value[-1], (*names, "content", "text")) if value else None
    if isinstance(value, Mapping):
        for name in names:
            if value.get(name):
                return _found(value[name], names)
    return None
