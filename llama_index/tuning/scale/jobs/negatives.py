"""Hard negatives of queries by the folder, from documents' vectors that are mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning._checks import check_counts, folder_path, number
from llama_index.tuning._files import PathLike
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.errors import DatasetError, VectorError
from llama_index.tuning.generate.negatives import close_to, highest_score
from llama_index.tuning.generate.reranker_labels import check_rank_range, nearest
from llama_index.tuning.scale.job import Batch
from llama_index.tuning.scale.jobs.embed import matrix_of
from llama_index.tuning.scale.options import Backend, ScaleOptions
from llama_index.tuning.scale.run import FolderReport, read_columns, run_folder
from llama_index.tuning.scale.shards import Columns, arrow, typed_table
from llama_index.tuning.text.sentences import check_threshold
from llama_index.tuning.vectors.search import unit_rows

_ROWS = 4096


def mine_hard_negatives(
    source: PathLike,
    output: PathLike,
    vectors: PathLike,
    *,
    num_negatives: int = 5,
    rank_range: Sequence[int] = (1, 100),
    relative_margin: float | None = 0.05,
    near_duplicate: float | None = 0.95,
    columns: Mapping[str, str] | None = None,
    backend: Backend = "local",
    options: ScaleOptions | None = None,
) -> FolderReport:
    """Hard negatives of the queries of a folder, by exact search over the documents' vectors.

    The function of this name in `llama_index.tuning.generate`, without texts: copies of a relevant
    document are known by their vectors alone. The results have `id`, `negatives` (ids of
    documents, the hardest first) and `scores` (their cosines).

    Args:
        source: files with columns `id`, `vector` and `relevant` (ids of documents), as
            `embed_corpus(kind="query", keep={"relevant": "list<string>"})` writes them.
        output: the folder that is written.
        vectors: what `vectors_to_array` made of the documents. Every worker maps it into memory:
            those of one machine share it.
        num_negatives: the most for each query.
        rank_range: first and last rank, from 1, relevant documents counted.
        relative_margin: a negative scores at most `best - margin * |best|`, where `best` is the
            query's best relevant document; `None` for no such rule.
        near_duplicate: cosine to a relevant document from which on a document is left out.
        columns: what those three are called in the files, if not so.
        backend: `"local"` or `"ray"`.
        options: see `ScaleOptions`.

    Raises:
        VectorError: `vectors` is no such array.
    """
    check_counts(num_negatives=num_negatives)
    check_threshold("near_duplicate", near_duplicate)
    if relative_margin is not None:
        number("relative_margin", relative_margin, 0, 1)
    path = folder_path("vectors", vectors).absolute()
    for needed in (path, Path(f"{path}.ids.parquet")):
        if not needed.is_file():
            raise VectorError(f"vectors: {needed} does not exist; vectors_to_array makes both")
    work = _Negatives(
        path,
        num_negatives,
        check_rank_range(rank_range),
        relative_margin,
        near_duplicate,
        dict(columns or {}),
    )
    return run_folder(work, source, output, backend=backend, options=options, rows_per_shard=_ROWS)


@dataclass(frozen=True)
class _Negatives:
    """Negatives of the queries of a shard."""

    path: Path
    enough: int
    ranks: tuple[int, int]
    margin: float | None
    near_duplicate: float | None
    names: Mapping[str, str]
    title: str = "Mining"

    @property
    def columns(self) -> Columns:
        types = {"id": "string", "vector": "list<float>", "relevant": "list<string>"}
        return read_columns(types, tuple(types), self.names)

    def header(self) -> dict[str, Any]:
        return {
            "task": "negatives",
            "vectors": [self.path.name, self.path.stat().st_size],
            "num_negatives": self.enough,
            "rank_range": list(self.ranks),
            "relative_margin": self.margin,
            "near_duplicate": self.near_duplicate,
        }

    def start(self, limiter: Any) -> Batch:
        documents: Float32 = np.load(self.path, mmap_mode="r", allow_pickle=False)
        names = arrow().parquet.read_table(f"{self.path}.ids.parquet", memory_map=True)
        names = names.column("id").combine_chunks()
        types = {"id": "string", "negatives": "list<string>", "scores": "list<float>"}

        def batch(rows: Any, calls: Path | None) -> tuple[Any, list[Failure]]:
            relevant, failures = _relevant(rows, names, documents.shape[1])
            if not relevant:
                return typed_table([], types), failures
            kept = rows.take(list(relevant))
            queries = unit_rows(matrix_of(kept.column("vector"), "a shard"))
            indices, scores = nearest(queries, documents, self.ranks[1])
            ids = kept.column("id").to_pylist()
            results = []
            for n, right in enumerate(relevant.values()):
                pool = self._pool(queries[n], documents, right, indices[n], scores[n])
                chosen = list(islice(pool, self.enough))
                found = [names[row].as_py() for row, _ in chosen]
                cosines = [score for _, score in chosen]
                results.append({"id": ids[n], "negatives": found, "scores": cosines})
            return typed_table(results, types), failures

        return batch

    def _pool(
        self, query: Float32, documents: Float32, right: list[int], rows: Ints, scores: Float32
    ) -> Iterator[tuple[int, float]]:
        """Documents by rank and margin that are no copies, and their cosines."""
        relevant = documents[right]
        best = float((unit_rows(relevant) @ query).max())
        highest = highest_score(best, self.margin)
        ranked = zip(rows.tolist(), scores.tolist(), strict=True)
        for row, score in islice(ranked, self.ranks[0] - 1, None):
            if row in right or (highest is not None and score > highest):
                continue
            if not close_to(documents[row], relevant, self.near_duplicate):
                yield row, score


def _relevant(rows: Any, names: Any, dim: int) -> tuple[dict[int, list[int]], list[Failure]]:
    """Row of the shard → rows of its relevant documents; and what has none."""
    pc = arrow().compute
    lists, found = rows.column("relevant").to_pylist(), {}
    flat = arrow().array([id_ for ids in lists for id_ in ids or ()], arrow().string())
    places = iter(pc.index_in(flat, value_set=names).to_pylist())
    sizes = pc.list_value_length(rows.column("vector")).to_pylist()
    failures = []
    for n, id_ in enumerate(rows.column("id").to_pylist()):
        right = [next(places) for _ in lists[n] or ()]
        fault: Exception | None = None
        if id_ is None:
            fault = DatasetError("the row has no id")
        elif sizes[n] != dim:
            fault = VectorError(f"the vector must have {dim} numbers, got {sizes[n]}")
        elif not right or None in right:
            fault = DatasetError(f"relevant must be ids of the documents, got {lists[n]}")
        if fault is None:
            found[n] = right
        else:
            failures.append(Failure.of(f"row {n}" if id_ is None else id_, "read", fault, 1))
    return found, failures
