"""What can be wrong with a record of a log: one bad record must not cost the others."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger(__name__)

Check = Callable[[Any], bool]


def is_finite(value: Any) -> bool:
    """Whether it is a number, and neither infinite nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _number_or_none(value: Any) -> bool:
    # A component may give NaN; what needs a finite score asks for it.
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _positions(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str)


def _messages(value: Any) -> bool:
    return isinstance(value, list) and all(map(_message, value))


def _nodes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(node, Mapping)
        and isinstance(node.get("id"), str)
        and node["id"]
        and _number_or_none(node.get("score"))
        for node in value
    )


def _choices(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(choice, Mapping) and isinstance(choice.get("name"), str) for choice in value
    )


def _ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(id_, str) for id_ in value)


_NEEDED: dict[str, dict[str, Check]] = {
    "node": {"id": _text, "text": _text},
    "llm": {"messages": _messages, "response": _message},
    "retrieval": {"query": _text, "nodes": _nodes},
    "rerank": {"query": _text, "nodes": _nodes, "ranked": _nodes},
    "selection": {"query": _text, "choices": _choices, "selected": _positions},
    "evaluation": {"query": _text_or_none, "response": _text_or_none, "score": _number_or_none},
    "query": {"query": _text, "response": _text_or_none, "nodes": _nodes},
    "answer": {"span": _text, "response": _text},
    "feedback": {"score": lambda value: value is None or is_finite(value)},
}
_IF_THERE: dict[str, dict[str, Check]] = {
    "feedback": {"relevant": _ids, "irrelevant": _ids, "choice": _text_or_none},
}


def record_fault(row: Mapping[str, Any]) -> str | None:
    """What makes a line of the log unusable, or `None`."""
    kind = row.get("kind")
    if not isinstance(kind, str):
        return "without a kind"
    if kind != "node":
        if not isinstance(row.get("trace"), str):
            return f"{kind} without a trace"
        if not is_finite(row.get("time")):
            return f"{kind} without a time"
    for name, check in _NEEDED.get(kind, {}).items():
        if name not in row:
            return f"{kind} without {name}"
        if not check(row[name]):
            return f"{kind} with a wrong {name}"
    for name, check in _IF_THERE.get(kind, {}).items():
        if name in row and not check(row[name]):
            return f"{kind} with a wrong {name}"
    return None


def say_left_out(what: str, left_out: Counter[str]) -> None:
    """Log what was left out of a view or a log, and why."""
    if left_out:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.most_common())
        logger.warning("%d records are left out of %s: %s", left_out.total(), what, reasons)
