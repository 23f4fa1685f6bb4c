"""The folder format of the BEIR benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.tuning._files import read_json_lines, read_text
from llama_index.tuning.datasets.records import Parts
from llama_index.tuning.errors import DatasetError


def read_beir(folder: Path, split: str) -> Parts:
    """(queries, corpus, relevant_docs) of one split of a BEIR folder."""
    qrels = folder / "qrels" / f"{split}.tsv"
    missing = [
        str(path)
        for path in (folder / "corpus.jsonl", folder / "queries.jsonl", qrels)
        if not path.is_file()
    ]
    if missing:
        raise DatasetError(f"{folder} is not a BEIR folder with split {split!r}; missing:", missing)
    corpus = {
        id_: "\n".join(part for part in (row.get("title"), row.get("text")) if part)
        for id_, row in _rows(folder / "corpus.jsonl")
    }
    texts = {id_: row.get("text", "") for id_, row in _rows(folder / "queries.jsonl")}
    relevant = _read_qrels(qrels)
    if not relevant:
        raise DatasetError(f"{qrels} names no document that is relevant to a query")
    unknown = [f"{qrels.name} names query {id_!r}, not in queries.jsonl" for id_ in relevant]
    unknown = [fault for fault, id_ in zip(unknown, relevant, strict=True) if id_ not in texts]
    if unknown:
        raise DatasetError(f"{folder} has faults:", unknown)
    return {id_: texts[id_] for id_ in relevant}, corpus, relevant


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    rows: dict[str, dict[str, Any]] = {}
    faults = []
    for number, row in read_json_lines(path):
        id_ = row.get("_id")
        if not isinstance(id_, str) or not id_:
            faults.append(f"{path.name}, line {number}: _id must be a non-empty string")
        elif id_ in rows:
            faults.append(f"{path.name}, line {number}: _id {id_!r} occurs twice")
        elif not all(isinstance(row.get(key) or "", str) for key in ("title", "text")):
            faults.append(f"{path.name}, line {number}: title and text of {id_!r} must be texts")
        else:
            rows[id_] = row
    if faults:
        raise DatasetError(f"{path} has faults:", faults)
    return list(rows.items())


def _read_qrels(path: Path) -> dict[str, list[str]]:
    relevant: dict[str, list[str]] = {}
    faults = []
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and cells[-1].strip() == "score"):
            continue
        try:
            query_id, doc_id, score = cells
            if float(score) > 0:
                relevant.setdefault(query_id, []).append(doc_id)
        except ValueError:
            faults.append(f"line {number} must be 'query-id<TAB>corpus-id<TAB>score', got {line!r}")
    if faults:
        raise DatasetError(f"{path} has faults:", faults)
    return relevant
