"""Where routing data come from: rows, tools, routers, recorded selections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from llama_index.tuning._checks import items_of, number, positive
from llama_index.tuning.datasets.checks import objects_of
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.errors import DatasetError


def names(labels: Any) -> tuple[str, ...]:
    """One name, several, or none, as a tuple."""
    if labels is None:
        return ()
    return (labels,) if isinstance(labels, str) else tuple(labels)


def example(row: Any, place: str) -> RoutingExample:
    """The example in a `{"query", "label" or "labels"}` object."""
    if not isinstance(row, Mapping) or "query" not in row:
        raise DatasetError(f"{place} has no query")
    if ("label" in row) == ("labels" in row):
        raise DatasetError(f"{place} must have label or labels, one of the two")
    labels = row.get("label") if "label" in row else row["labels"]
    several = "labels" in row and not isinstance(labels, str)
    if (
        labels is not None
        and not isinstance(labels, str)
        and not (several and isinstance(labels, Sequence))
    ):
        raise DatasetError(f"{place}: a label must be a string or null, got {labels!r}")
    return RoutingExample(row["query"], names(labels), row.get("weight", 1.0))


def names_of(examples: Iterable[RoutingExample]) -> dict[str, str]:
    """The names that occur, without descriptions."""
    return dict.fromkeys((name for item in examples for name in item.choices), "")


def from_names(given: Sequence[Any]) -> dict[str, str]:
    """Names alone as choices; a repeated one is an error."""
    for place, name in enumerate(given):
        if not isinstance(name, str):
            raise TypeError(
                f"choices must be names, or name → description; item {place} is "
                f"{type(name).__name__}; from_metadata(tools, pairs) takes tools"
            )
    return _distinct((name, "") for name in given)


def choices_of(metadata: Iterable[Any]) -> dict[str, str]:
    """Name → description of `ToolMetadata`, or of anything with `.metadata`."""
    pairs = []
    for place, item in enumerate(items_of("metadata", metadata, "ToolMetadata or tools")):
        found = item if hasattr(item, "description") else getattr(item, "metadata", None)
        description = getattr(found, "description", None)
        if description is None:
            raise TypeError(
                f"metadata must hold ToolMetadata or tools, item {place} is {type(item).__name__}"
            )
        pairs.append((getattr(found, "name", None) or description, description))
    return _distinct(called(pairs))


def called(pairs: Sequence[tuple[str, str]], shared: Collection[str] = ()) -> list[tuple[str, str]]:
    """(what each choice goes by, description): its name, or its description if others share it.

    LlamaIndex calls every tool that was given no name `query_engine_tool`.

    Args:
        pairs: names and descriptions of choices that were offered together.
        shared: names that are shared where the same choices were offered before.
    """
    counts = Counter(name for name, _ in pairs)
    return [
        (text if text.strip() and (counts[name] > 1 or name in shared) else name, text)
        for name, text in pairs
    ]


def metadata_of(router: Any) -> Sequence[Any]:
    """The metadata that a router hands to its selector."""
    metadata = getattr(router, "_metadatas", None)
    if metadata is None:
        raise TypeError(
            "router must be a RouterQueryEngine or RouterRetriever, got "
            f"{type(router).__name__}; from_metadata takes tools"
        )
    return list(metadata)


def from_selections(
    records: Iterable[Mapping[str, Any]], correction_weight: float, unrated_weight: float
) -> tuple[dict[str, str], list[RoutingExample]]:
    """Choices and examples of recorded selections."""
    number("unrated_weight", unrated_weight, 0)
    positive("correction_weight", correction_weight)
    choices: dict[str, str] = {}
    examples = []
    records, shared = objects_of("records", records), set()
    for at, record in enumerate(records):
        missing = [key for key in ("query", "choices", "selected") if key not in record]
        if missing:
            raise DatasetError(f"selection {at} lacks {', '.join(missing)}")
        counts = Counter(name for name, _ in offered_pairs(record["choices"]))
        shared |= {name for name, count in counts.items() if count > 1}
    for at, record in enumerate(records):
        place = f"selection {at}"
        offered = _offered(record["choices"], shared, place)
        choices.update(
            {name: text for name, text in offered.items() if text or name not in choices}
        )
        selected = _selected(record["selected"], list(offered), place)
        rated, labels = _feedback(record.get("feedback"), selected, place)
        weight = correction_weight if rated else unrated_weight
        if labels is not None and weight:
            examples.append(RoutingExample(record["query"], labels, weight))
    return choices, examples


def offered_pairs(given: Any) -> list[tuple[str, str]]:
    """(name, description) of the choices of a recorded selection, as they were offered."""
    if isinstance(given, Mapping):
        return list(given.items())
    pairs = []
    for item in given:
        if isinstance(item, str):
            pairs.append((item, ""))
        elif isinstance(item, Mapping):
            text = item.get("description") or ""
            pairs.append((item.get("name") or text, text))
        else:
            pairs += choices_of([item]).items()
    return pairs


def _offered(given: Any, shared: Collection[str], place: str) -> dict[str, str]:
    try:
        return _distinct(called(offered_pairs(given), shared))
    except DatasetError as exc:
        raise DatasetError(f"{place}: {exc}") from None


def _selected(given: Any, offered: Sequence[str], place: str) -> tuple[str, ...]:
    items = [given] if isinstance(given, (str, int)) else list(given)
    found = []
    for item in items:
        if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(offered):
            found.append(offered[item])
        elif isinstance(item, str) and item in offered:
            found.append(item)
        else:
            raise DatasetError(
                f"{place}: selected {item!r} is not one of the {len(offered)} choices"
            )
    return tuple(dict.fromkeys(found))


def _feedback(
    given: Any, selected: tuple[str, ...], place: str
) -> tuple[bool, tuple[str, ...] | None]:
    """(whether a user said so, where the query belongs or `None` where nobody knows)."""
    if given is None:
        return False, selected
    if isinstance(given, Mapping) and "correct" in given:
        return True, names(given["correct"])
    if given is True or given == "up":
        return True, selected
    if given is False or given == "down":
        return True, None
    raise DatasetError(
        f"{place}: feedback must be true, false, 'up', 'down' or {{'correct': …}}, got {given!r}"
    )


def _distinct(pairs: Iterable[tuple[Any, str]]) -> dict[str, str]:
    choices: dict[str, str] = {}
    twice = []
    for name, description in pairs:
        if name in choices:
            twice.append(f"choice name {name!r} occurs twice")
        choices[name] = description
    if twice:
        raise DatasetError("the choices have faults:", twice)
    return choices
