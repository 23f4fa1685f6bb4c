"""Candidates of queries by the folder, put in order by a re-ranker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.reranker_labels import ToRank, answers_of
from llama_index.tuning.scale.components import Given, built, check_component, identity_of
from llama_index.tuning.scale.job import Batch
from llama_index.tuning.scale.jobs.asked import folder_run
from llama_index.tuning.scale.options import Backend, ScaleOptions
from llama_index.tuning.scale.run import FolderReport, read_columns, row_faults, run_folder
from llama_index.tuning.scale.shards import Columns, typed_table

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

_ROWS = 256
_REQUIRED = ("id", "query", "candidates", "texts")


@own_work
def rerank(
    source: PathLike,
    output: PathLike,
    reranker: Given[BaseNodePostprocessor],
    *,
    columns: Mapping[str, str] | None = None,
    run: RunOptions | None = None,
    backend: Backend = "local",
    options: ScaleOptions | None = None,
) -> FolderReport:
    """The candidates of the queries of a folder in a re-ranker's order.

    Any re-ranker of LlamaIndex, tuned or not. The results have `id`, `candidates` (ids, the best
    first, as many as the re-ranker returns: its `top_n`) and `scores` (the re-ranker's).

    Args:
        source: files with columns `id`, `query`, `candidates` (ids, as they were found), `texts`
            (of the candidates) and, if there is one, `scores` (the retriever's).
        output: the folder that is written.
        reranker: the re-ranker, or `functools.partial(load_reranker, …)` that makes it in each
            worker.
        columns: what those five are called in the files, if not so.
        run: as in `generate_questions`. One by one by default, unless the re-ranker has an async
            method of its own, as those have that ask an LLM.
        backend: `"local"` or `"ray"`.
        options: see `ScaleOptions`.

    Raises:
        GenerationError: no call can succeed (a wrong key), or all queries of a shard failed.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from llama_index.tuning import LightReranker
        >>> row = {"id": "q", "query": "When is a refund?", "candidates": ["a", "b"]}
        >>> row["texts"] = ["Fees are due.", "A refund takes a week."]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = Path(folder, "found.jsonl").write_text(json.dumps(row))
        ...     report = rerank(folder, f"{folder}/_out", LightReranker(top_n=1))
        >>> report.written
        1
    """
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    check_component("reranker", reranker, BaseNodePostprocessor)
    work = _Reranking(reranker, dict(columns or {}), folder_run(run))
    return run_folder(work, source, output, backend=backend, options=options, rows_per_shard=_ROWS)


@dataclass(frozen=True)
class _Reranking:
    """The candidates of a shard in their new order."""

    reranker: Given[BaseNodePostprocessor]
    names: Mapping[str, str]
    run: RunOptions
    title: str = "Re-ranking"

    @property
    def columns(self) -> Columns:
        types = {"id": "string", "query": "string", "candidates": "list<string>"}
        types |= {"texts": "list<string>", "scores": "list<float>"}
        return read_columns(types, _REQUIRED, self.names)

    def header(self) -> dict[str, Any]:
        return {"task": "rerank", **identity_of(self.reranker)}

    def start(self, limiter: Any) -> Batch:
        reranker = built(self.reranker, limiter)
        types = {"id": "string", "candidates": "list<string>", "scores": "list<float>"}

        def batch(rows: Any, calls: Path | None) -> tuple[Any, list[Failure]]:
            items, failures = _items(rows.to_pylist())
            if not items:
                return typed_table([], types), failures
            found = answers_of(reranker, items, output_path=calls, run=self.run)
            names = {item.id: [node.node.node_id for node in item.nodes] for item in items}
            results = [
                {
                    "id": id_,
                    "candidates": [names[id_][place] for place, _ in answer],
                    "scores": [score for _, score in answer],
                }
                for id_, answer in found.results.items()
            ]
            return typed_table(results, types), [*failures, *found.failures]

        return batch


class _Found(ToRank):
    """A row: the retriever's scores are part of it."""

    @property
    def content(self) -> str:
        return json.dumps([super().content, *(item.score for item in self.nodes)])


def _items(rows: Sequence[Mapping[str, Any]]) -> tuple[list[_Found], list[Failure]]:
    """What can be put in order, and what is wrong with the other rows."""
    from llama_index.core.schema import NodeWithScore, TextNode

    texts = {"query": [row["query"] for row in rows]}
    good, failures = row_faults([row["id"] for row in rows], texts, distinct=True)
    items = []
    for row in (rows[n] for n in good):
        if fault := _fault(row):
            failures.append(Failure.of(row["id"], "read", DatasetError(fault), 1))
            continue
        scores = row["scores"] or [None] * len(row["texts"])
        nodes = [
            NodeWithScore(node=TextNode(id_=id_, text=text), score=score)
            for id_, text, score in zip(row["candidates"], row["texts"], scores, strict=True)
        ]
        items.append(_Found(row["id"], row["query"], nodes))
    return items, failures


def _fault(row: Mapping[str, Any]) -> str:
    """What is wrong with the candidates of a row."""
    ids, texts, scores = row["candidates"] or [], row["texts"] or [], row["scores"]
    if not ids:
        return "the row has no candidates"
    if len(texts) != len(ids) or (scores and len(scores) != len(ids)):
        given = f"{len(ids)} candidates, {len(texts)} texts, {len(scores or [])} scores"
        return f"each candidate needs its text, and its score if there are scores; got {given}"
    if None in ids or None in texts:
        return "a candidate has no id or no text"
    if len(set(ids)) < len(ids):
        return "a candidate occurs twice"
    return ""
