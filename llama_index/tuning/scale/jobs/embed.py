"""A corpus embedded shard by shard, and its vectors as one memory-mapped array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import check_counts, folder_path
from llama_index.tuning._files import PathLike, draft_beside
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.calls import hopeless
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.errors import GenerationError, VectorError
from llama_index.tuning.scale.components import Given, built, check_component, identity_of
from llama_index.tuning.scale.job import Batch
from llama_index.tuning.scale.options import Backend, ScaleOptions
from llama_index.tuning.scale.run import FolderReport, read_columns, row_faults, run_folder
from llama_index.tuning.scale.shards import Columns, arrow, file_system, source_files
from llama_index.tuning.vectors.embedder import Embedder

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

_ROWS = 4096
_TOGETHER = 512
"""Texts that are given to the embedder at once, at least; it sorts them by length."""


@own_work
def embed_corpus(
    source: PathLike,
    output: PathLike,
    embed_model: Given[BaseEmbedding],
    *,
    kind: Literal["text", "query"] = "text",
    columns: Mapping[str, str] | None = None,
    keep: Mapping[str, str] | None = None,
    num_workers: int = 1,
    backend: Backend = "local",
    options: ScaleOptions | None = None,
) -> FolderReport:
    """Vectors of all texts of a folder, written as a folder: `id`, `vector`.

    A text that cannot be embedded is in the output's `_failures/`, with its id and the error.
    Called again after an error or a kill, on either backend, it goes on with the shards that are
    missing.

    Args:
        source: a Parquet or JSON Lines file, or a folder of them, with columns `id` and `text`;
            a path, or a URL that fsspec knows.
        output: the folder that is written. On Ray all workers must see both.
        embed_model: the model, or `functools.partial(Class, …)` that makes it in each worker.
        kind: what the texts are: queries may have another instruction.
        columns: what `id` and `text` are called in the files, if not so.
        keep: columns that go into the output as they are → their types: `string`, `float`, `bool`
            or `list<…>` of one of them.
        num_workers: concurrent calls of each worker, for models behind an API.
        backend: `"local"`, in this process, or `"ray"`.
        options: see `ScaleOptions`.

    Raises:
        GenerationError: all texts of a shard failed, or no call can succeed (a wrong key).

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from llama_index.core import MockEmbedding
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     line = json.dumps({"id": "a", "text": "The fee is 5 euros."})
        ...     size = Path(folder, "docs.jsonl").write_text(line)
        ...     report = embed_corpus(folder, f"{folder}/_out", MockEmbedding(embed_dim=4))
        >>> report.written
        1
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    check_component("embed_model", embed_model, BaseEmbedding)
    if kind not in ("text", "query"):
        raise ValueError(f"unknown kind {kind!r}; choose one of: text, query")
    check_counts(num_workers=num_workers)
    work = _Embedding(embed_model, kind, dict(columns or {}), dict(keep or {}), num_workers)
    return run_folder(work, source, output, backend=backend, options=options, rows_per_shard=_ROWS)


@dataclass(frozen=True)
class _Embedding:
    """Embeds the texts of a shard."""

    embed_model: Given[BaseEmbedding]
    kind: Literal["text", "query"]
    names: Mapping[str, str]
    keep: Mapping[str, str]
    num_workers: int
    title: str = "Embedding"

    @property
    def columns(self) -> Columns:
        types = {"id": "string", "text": "string", **self.keep}
        return read_columns(types, tuple(types), self.names)

    def header(self) -> dict[str, Any]:
        return {
            "task": "embed",
            "embedded_as": self.kind,
            "keep": dict(self.keep),
            **identity_of(self.embed_model),
        }

    def start(self, limiter: Any) -> Batch:
        model = built(self.embed_model, limiter)
        embedder = Embedder(model, num_workers=self.num_workers)
        embed = embedder.documents if self.kind == "text" else embedder.queries
        size = max(_TOGETHER, 8 * model.embed_batch_size)

        def batch(rows: Any, calls: Path | None) -> tuple[Any, list[Failure]]:
            ids, texts = (rows.column(name).to_pylist() for name in ("id", "text"))
            good, failures = row_faults(ids, {"text": texts})
            kept: list[int] = []
            blocks: list[Float32] = []
            for start in range(0, len(good), size):
                for part, found in _embedded(embed, ids, texts, good[start : start + size]):
                    if isinstance(found, Failure):
                        failures.append(found)
                    else:
                        kept.extend(part)
                        blocks.append(found)
            others = rows.select(["id", *self.keep]).take(arrow().array(kept, arrow().int64()))
            return others.append_column("vector", vector_lists(blocks)), failures

        return batch


def _embedded(
    embed: Callable[[Sequence[str]], Float32],
    ids: Sequence[str],
    texts: Sequence[str],
    rows: list[int],
) -> list[tuple[list[int], Float32 | Failure]]:
    """Vectors of these rows; if that fails, of each half, down to the text that is at fault."""
    try:
        return [(rows, embed([texts[n] for n in rows]))]
    except Exception as exc:  # whatever a model raises on one text is that item's failure
        if hopeless(exc):
            raise GenerationError(f"no call to the model can succeed: {exc}") from exc
        if len(rows) == 1:
            return [(rows, Failure.of(ids[rows[0]], "embed", exc, 1))]
    half = len(rows) // 2
    return [
        found for part in (rows[:half], rows[half:]) for found in _embedded(embed, ids, texts, part)
    ]


def vector_lists(blocks: Sequence[Float32]) -> Any:
    """The rows of all blocks as a column of vectors; the other way is `matrix_of`."""
    matrix = np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32)
    ends = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return arrow().ListArray.from_arrays(ends, arrow().array(matrix.ravel()))


def vectors_to_array(source: PathLike, path: PathLike) -> int:
    """The vectors of a folder as one array on disk, which workers and engines map into memory.

    One part is in memory at a time. The ids lie beside it, in `<path>.ids.parquet`, in the order
    of the rows.

    Args:
        source: what `embed_corpus` wrote.
        path: a `.npy` file, as `vectors=` of an engine and `mine_negatives` take it.

    Returns:
        The number of rows.

    Raises:
        VectorError: there are no vectors, or of several sizes.
    """
    target = folder_path("path", path)
    if target.suffix != ".npy":
        raise ValueError(f"path must end in .npy, got {target}")
    system, root = file_system("source", source)
    files = [name for name in source_files(system, root) if name.endswith(".parquet")]
    rows, dim = _shape(system, files)
    parquet = arrow().parquet
    schema = arrow().schema([("id", arrow().string())])
    names = Path(f"{target}.ids.parquet")
    with (
        draft_beside(target, folder=False) as draft,
        draft_beside(names, folder=False) as ids,
    ):
        with draft.open("wb") as file, parquet.ParquetWriter(ids, schema) as writer:
            np.lib.format.write_array_header_2_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
            )
            for name in files:
                with system.open(name, "rb") as part:
                    table = parquet.read_table(part, columns=["id", "vector"])
                file.write(matrix_of(table.column("vector"), name).astype("<f4").tobytes())
                writer.write_table(table.select(["id"]).cast(schema))
        ids.chmod(0o644)
        draft.chmod(0o644)
        ids.replace(names)
        draft.replace(target)
    return rows


def matrix_of(column: Any, what: str) -> Float32:
    """A column of vectors as an array, shape `(rows, dim)`.

    Raises:
        VectorError: one is missing, or they differ in size.
    """
    lists = column.combine_chunks()
    sizes = arrow().compute.list_value_length(lists).unique().to_pylist()
    if len(sizes) > 1 or None in sizes:
        raise VectorError(f"{what}: vectors must be of one size, got {sorted(map(str, sizes))}")
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float32).reshape(len(lists), sizes[0] if sizes else 0)


def _shape(system: Any, files: Sequence[str]) -> tuple[int, int]:
    rows, sizes = 0, set()
    for name in files:
        with system.open(name, "rb") as file:
            part = arrow().parquet.ParquetFile(file)
            rows += part.metadata.num_rows
            if "vector" not in part.schema_arrow.names:
                raise VectorError(f"{name} has no column vector")
            if part.metadata.num_rows:
                first = next(part.iter_batches(1, columns=["vector"])).column(0)
                sizes.add(len(first[0]))
    if len(sizes) != 1:
        raise VectorError(f"the vectors must be of one size, got {sorted(sizes) or 'none'}")
    return rows, sizes.pop()
