"""Lists of candidates out of plain rows: labels, users' feedback, the old package's samples."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from llama_index.tuning._checks import items_of
from llama_index.tuning.datasets.checks import objects_of
from llama_index.tuning.datasets.records import Candidate, RelevanceList
from llama_index.tuning.errors import DatasetError

Row = dict[str, Any]


def from_labels(
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    labels: Mapping[str, Mapping[str, float]],
) -> list[Row]:
    """One row for each labelled query."""
    for name, given in {"queries": queries, "corpus": corpus, "labels": labels}.items():
        if not isinstance(given, Mapping):
            raise TypeError(f"{name} must be a dictionary, got {type(given).__name__}")
    for id_, grades in labels.items():
        if not isinstance(grades, Mapping):
            raise TypeError(
                f"labels[{id_!r}] must be a dictionary of node id → grade, "
                f"got {type(grades).__name__}"
            )
    faults = [f"labels name query {id_!r}, not in queries" for id_ in labels if id_ not in queries]
    faults += [
        f"query {id_!r}: labelled node {node!r} is not in the corpus"
        for id_, grades in labels.items()
        for node in grades
        if node not in corpus
    ]
    if faults:
        raise DatasetError("the labels have faults:", faults)
    return [
        {
            "query_id": id_,
            "query": queries[id_],
            "candidates": [
                {"node_id": node, "text": corpus[node], "score": grade}
                for node, grade in grades.items()
            ],
        }
        for id_, grades in labels.items()
    ]


def from_feedback(records: Iterable[Mapping[str, Any]], corpus: Mapping[str, str]) -> list[Row]:
    """One row for each record with a node that helped."""
    rows = []
    for number, record in enumerate(objects_of("records", records)):
        where = f"record {number}"
        missing = [key for key in ("query", "nodes") if key not in record]
        if missing:
            raise DatasetError(f"{where} lacks {', '.join(missing)}")
        for key in ("relevant", "irrelevant"):
            ids = record.get(key) or []
            several = isinstance(ids, Collection) and not isinstance(ids, str)
            if not several or not all(isinstance(id_, str) for id_ in ids):
                raise DatasetError(f"{where}: {key} must be a list of node ids, got {ids!r:.100}")
        objects_of(f"{where}: nodes", record["nodes"])
        helped = {*(record.get("relevant") or ())}
        if not helped:
            continue
        judged = helped | {*(record.get("irrelevant") or ())} if record.get("irrelevant") else None
        candidates = [
            _feedback_candidate(node, helped, corpus, where)
            for node in record["nodes"]
            if judged is None or node.get("node_id") in judged
        ]
        shown = {candidate["node_id"] for candidate in candidates}
        rows.append(
            {
                "query_id": str(record.get("id", f"f{number}")),
                "query": record["query"],
                "candidates": candidates,
                "missed": sorted(helped - shown),
            }
        )
    return rows


def from_samples(samples: Iterable[Any]) -> list[Row]:
    """One row for each distinct query; a context's id is a hash of it."""
    rows: dict[str, Row] = {}
    for number, sample in enumerate(items_of("samples", samples, "samples")):
        try:
            query, context, score = (_field(sample, key) for key in ("query", "context", "score"))
        except (KeyError, AttributeError) as exc:
            raise DatasetError(f"sample {number} lacks query, context or score") from exc
        row = rows.setdefault(
            query, {"query_id": f"q{len(rows)}", "query": query, "candidates": []}
        )
        node_id = hashlib.sha256(str(context).encode()).hexdigest()[:16]
        known = [c for c in row["candidates"] if c["node_id"] == node_id]
        if known:  # the old generator repeats contexts; a yes outweighs a no
            known[0]["score"] = max(known[0]["score"], score)
        else:
            row["candidates"].append({"node_id": node_id, "text": context, "score": score})
    return list(rows.values())


def _feedback_candidate(
    node: Mapping[str, Any], helped: set[Any], corpus: Mapping[str, str], where: str
) -> Row:
    node_id = node.get("node_id")
    text = node.get("text") or corpus.get(str(node_id))
    if text is None:
        raise DatasetError(f"{where}: node {node_id!r} has no text, and is not in corpus")
    return {
        "node_id": node_id,
        "text": text,
        "score": float(node_id in helped),
        "retrieval_score": node.get("score"),
        "metadata": node.get("metadata"),
    }


def _field(sample: Any, key: str) -> Any:
    return sample[key] if isinstance(sample, Mapping) else getattr(sample, key)


def list_of(row: Mapping[str, Any], where: str) -> RelevanceList:
    """The list in a plain row; `where` is what an error calls it."""
    try:
        candidates = [
            Candidate(
                node_id=item["node_id"],
                text=item["text"],
                score=_number(item["score"]),
                retrieval_score=_number(item.get("retrieval_score")),
                metadata=item.get("metadata") or {},
            )
            for item in row["candidates"]
        ]
        missed = row.get("missed") or {}
        if isinstance(missed, Mapping):
            missed = {id_: _number(grade) for id_, grade in missed.items()}
        return RelevanceList(row["query_id"], row["query"], candidates, missed)
    except KeyError as exc:
        raise DatasetError(f"{where}: the key {exc} is missing") from None
    except (TypeError, AttributeError) as exc:
        raise DatasetError(f"{where} is not a list of candidates: {exc}") from exc


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, (int, bool)) else value
