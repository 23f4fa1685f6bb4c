"""Judged answers: their fields, keys, clusters and plain features, whoever judged them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.words import normalise

FEATURES = ("words of the query", "words of the response", "words of the contexts", "overlap")


_WORD = re.compile(r"\w+")


def items_of(dataset: Any, name: str = "dataset") -> Sequence[Any]:
    """The items of a dataset of judgments, or a plain list of them.

    Args:
        dataset: what was given.
        name: the caller's argument, for the message.
    """
    items = getattr(dataset, "judgments", dataset)
    if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
        raise TypeError(
            f"{name} must be a JudgmentDataset or a list of judgments, got {type(dataset).__name__}"
        )
    if not items:
        raise DatasetError(f"{name} is empty")
    odd = [number for number, item in enumerate(items) if not hasattr(item, "response")]
    if odd:
        raise TypeError(
            f"{name} must hold judgments, item {odd[0]} is a {type(items[odd[0]]).__name__}"
        )
    return items


def item_keys(dataset: Any) -> list[str]:
    """A hash of each item's query, contexts and response: who judged it makes no difference."""
    keys = []
    for item in items_of(dataset):
        parts = [item.query, list(item.contexts or ()), item.response, item.second_response]
        keys.append(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16])
    return keys


def groups_of(dataset: Any) -> list[Hashable]:
    """The cluster of each item: its query; the item itself if it has none."""
    return [
        normalise(item.query) if item.query else ("no query", key)
        for item, key in zip(items_of(dataset), item_keys(dataset), strict=True)
    ]


def has_contexts(item: Any) -> bool:
    """Whether any context has text."""
    return any(text.strip() for text in item.contexts or ())


def labels_of(dataset: Any, name: str = "labelled") -> Float64:
    """1 for each item that passes, 0 for each that does not."""
    items = items_of(dataset, name)
    faults = [
        f"judgment {number} has no passing verdict"
        for number, item in enumerate(items)
        if item.passing is None
    ]
    if faults:
        raise DatasetError(f"the items of {name} need passing=True or False:", faults)
    return np.array([float(item.passing) for item in items])


def text_features(dataset: Any) -> Float64:
    """Shape `(n, 4)`: logarithms of lengths, and the response's share of known words."""
    rows = []
    for item in items_of(dataset):
        query, response = _words(item.query), _words(item.response)
        contexts = _words(" ".join(item.contexts or ()))
        known = set(query) | set(contexts)
        overlap = sum(word in known for word in response) / max(1, len(response))
        rows.append([*(np.log1p(len(words)) for words in (query, response, contexts)), overlap])
    return np.array(rows, dtype=np.float64)


def _words(text: str | None) -> list[str]:
    return _WORD.findall((text or "").casefold())
