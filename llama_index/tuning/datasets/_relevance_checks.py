"""What can be wrong with lists of candidates, each fault a sentence that names the ids."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from llama_index.tuning.datasets._validation import HALF, is_utf8


def list_faults(lists: Any) -> list[str]:
    """Every fault of a relevance dataset's lists; an empty list means that they are sound."""
    if not isinstance(lists, list):
        return [f"lists must be a list, got {type(lists).__name__}"]
    if not lists:
        return ["there are no queries"]
    faults: list[str] = []
    seen: set[str] = set()
    for item in lists:
        if not isinstance(item.query_id, str) or not item.query_id:
            faults.append(f"query id {item.query_id!r} must be a non-empty string")
        elif item.query_id in seen:
            faults.append(f"query id {item.query_id!r} occurs twice")
        seen.add(item.query_id)
        faults.extend(_faults_of(item))
    if not faults and not any(c.score > 0 for item in lists for c in item.candidates):
        faults.append("no candidate of any query is relevant (every score is 0)")
    return faults


def _faults_of(item: Any) -> Iterator[str]:
    where = f"query {item.query_id!r}"
    if not isinstance(item.query, str) or not item.query.strip():
        yield f"{where}: the text is empty"
    elif not is_utf8(item.query):
        yield f"{where}: {HALF}"
    if not item.candidates and not item.missed:
        yield f"{where} has no candidates"
    ids: set[Any] = set()
    for candidate in item.candidates:
        node = candidate.node_id
        if not isinstance(node, str) or not node:
            yield f"{where}: node id {node!r} must be a non-empty string"
        elif node in ids:
            yield f"{where}: node {node!r} occurs twice"
        ids.add(node)
        yield from _candidate_faults(candidate, f"{where}, node {node!r}")
    for node, grade in item.missed.items():
        if not _finite(grade) or grade <= 0:
            yield f"{where}: the grade of missed node {node!r} must be above 0, got {grade!r}"
        if not isinstance(node, str) or not node:
            yield f"{where}: missed node id {node!r} must be a non-empty string"
        elif node in ids:
            yield f"{where}: node {node!r} is both a candidate and missed"


def _candidate_faults(candidate: Any, where: str) -> Iterator[str]:
    if not isinstance(candidate.text, str) or not candidate.text.strip():
        yield f"{where}: the text is empty"
    elif not is_utf8(candidate.text):
        yield f"{where}: {HALF}"
    if not _finite(candidate.score) or candidate.score < 0:
        yield f"{where}: the score must be a finite number >= 0, got {candidate.score!r}"
    if candidate.retrieval_score is not None and not _finite(candidate.retrieval_score):
        yield f"{where}: retrieval_score must be finite, got {candidate.retrieval_score!r}"
    if not isinstance(candidate.metadata, Mapping):
        yield f"{where}: metadata must be a mapping, got {type(candidate.metadata).__name__}"


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
