"""What can be wrong with a routing dataset, each fault a sentence that names the place."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.tuning.datasets._validation import HALF, is_utf8, normalise

if TYPE_CHECKING:
    from llama_index.tuning.datasets.routing import RoutingExample


def choice_faults(choices: Any) -> list[str]:
    """Every fault of a `{name: description}` dictionary."""
    if not isinstance(choices, dict):
        return [f"choices must be a dictionary of name → description, got {type(choices).__name__}"]
    faults = []
    seen: dict[str, str] = {}
    for name, description in choices.items():
        if not isinstance(name, str) or not name.strip():
            faults.append(f"choice name {name!r} must be a non-empty string")
            continue
        if not isinstance(description, str):
            kind = type(description).__name__
            faults.append(f"choice {name!r}: the description must be a string, got {kind}")
        elif not is_utf8(name) or not is_utf8(description):
            faults.append(f"choice {name!r}: {HALF}")
        twin = seen.setdefault(normalise(name), name)
        if twin != name:
            faults.append(f"choices {twin!r} and {name!r} differ only in case or space")
    return faults


def example_faults(examples: Sequence[Any], choices: dict[str, str]) -> Iterator[str]:
    """Every fault of the examples, by their position."""
    from llama_index.tuning.datasets.routing import RoutingExample

    for number, example in enumerate(examples):
        place = f"example {number}"
        if not isinstance(example, RoutingExample):
            yield f"{place} must be a RoutingExample, got {type(example).__name__}"
            continue
        query: Any = example.query
        names: Any = example.choices
        weight: Any = example.weight
        if not isinstance(query, str):
            yield f"{place}: the query must be a string, got {type(query).__name__}"
        elif not query.strip():
            yield f"{place}: the query is empty"
        elif not is_utf8(query):
            yield f"{place}: {HALF}"
        if not isinstance(names, tuple):
            yield f"{place}: choices must be a tuple of names, got {type(names).__name__}"
            continue
        for name in names:
            if name not in choices:
                yield f"{place} ({str(query)[:40]!r}): {name!r} is not one of the choices"
        if len(set(names)) < len(names):
            yield f"{place} ({str(query)[:40]!r}): a choice is named twice"
        sound = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not sound or not math.isfinite(weight) or weight <= 0:
            yield f"{place}: weight must be a number above 0, got {weight!r}"


def conflicting_examples(examples: Sequence[RoutingExample]) -> list[list[int]]:
    """Groups of positions that share a query (case and space aside) but not the choices."""
    same: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        same[normalise(example.query)].append(number)
    return [
        rows
        for rows in same.values()
        if len(rows) > 1 and len({frozenset(examples[row].choices) for row in rows}) > 1
    ]
