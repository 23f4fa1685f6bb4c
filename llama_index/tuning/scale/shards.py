"""Parquet and JSON Lines files cut into shards, and the reading of one shard.

A shard is named by its file and place alone, so that the same folder has the same shards in every
process, and nobody has to hold or pass on its rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from llama_index.tuning._checks import folder_path
from llama_index.tuning._files import PathLike
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.errors import DatasetError, MissingExtraError

_PARQUET = ".parquet"
_JSON_LINES = (".jsonl", ".ndjson")
_SAMPLE = 1 << 20  # bytes of a JSON Lines file from which the length of its lines is taken
_BLOCK = 4096  # rows decoded at once


@dataclass(frozen=True)
class Shard:
    """Rows of one file that are worked on together.

    Attributes:
        number: its place among all shards.
        path: of the file, in its file system.
        start: its first row, or byte of JSON Lines.
        stop: behind its last.
    """

    number: int
    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Columns:
    """Which columns a job reads.

    Attributes:
        types: name that the job uses → Arrow type, as text: `string`, `list<string>`, …
        required: those of them that every file must have.
        names: name that the job uses → name in the files, if that is another.
    """

    types: Mapping[str, str]
    required: Sequence[str]
    names: Mapping[str, str]

    def in_files(self, name: str) -> str:
        """How the files call a column."""
        return self.names.get(name, name)

    def schema(self) -> Any:
        """The Arrow schema of what is read."""
        return arrow().schema([(name, arrow_type(text)) for name, text in self.types.items()])


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingExtraError("a folder of Parquet files", "pyarrow", "tables") from exc
    return pyarrow


def arrow_type(text: str) -> Any:
    """`string`, `float`, `bool`, or `list<…>` of one of them."""
    pa = arrow()
    plain = {"string": pa.string(), "float": pa.float32(), "bool": pa.bool_()}
    inner = text.removeprefix("list<").removesuffix(">")
    if inner not in plain:
        raise ValueError(f"unknown type {text!r}; choose from: {', '.join(plain)}, list<…> of one")
    return plain[inner] if inner == text else pa.list_(plain[inner])


def typed_table(rows: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> Any:
    """Rows as an Arrow table with columns of these types."""
    schema = arrow().schema([(name, arrow_type(text)) for name, text in types.items()])
    return arrow().Table.from_pylist(list(rows), schema=schema)


def file_system(name: str, where: PathLike) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it.

    Args:
        name: of the argument.
        where: a local path, or a URL such as `s3://bucket/folder`.
    """
    from fsspec.core import url_to_fs

    text = os.fspath(where) if isinstance(where, os.PathLike) else where
    if not isinstance(text, str) or "://" not in text:
        text = os.path.abspath(folder_path(name, text))
    try:
        system, path = url_to_fs(text)
    except (ImportError, ValueError) as exc:
        raise type(exc)(f"{name}: {text} cannot be opened: {exc}") from exc
    return system, str(path)


def plan(system: Any, root: str, columns: Columns, rows: int) -> list[Shard]:
    """All shards of a file, or of all files under a folder.

    Args:
        rows: in a shard.

    Raises:
        DatasetError: there is no such file, or one lacks a column.
    """
    shards: list[Shard] = []
    for path in source_files(system, root):
        if path.endswith(_PARQUET):
            total, step = _parquet_rows(system, path, columns), rows
        else:
            total = int(system.size(path))
            step = max(1, int(_line_length(system, path, columns) * rows))
        for start in range(0, total, step):
            shards.append(Shard(len(shards), path, start, min(total, start + step)))
    return shards


def source_files(system: Any, root: str) -> list[str]:
    """Files that rows are read from, sorted; those whose names begin with `_` or `.` are not."""
    suffixes = (_PARQUET, *_JSON_LINES)
    if not system.exists(root):
        raise DatasetError(f"{root} does not exist")
    found = [root] if system.isfile(root) else sorted(system.find(root))
    wanted = [path for path in found if path.endswith(suffixes) and not _hidden(path, root)]
    if not wanted:
        raise DatasetError(f"{root} holds no file that ends in {', '.join(suffixes)}")
    return wanted


def fingerprint(system: Any, root: str) -> str:
    """Changes with the names and sizes of the files."""
    files = source_files(system, root)
    sizes = [[path.removeprefix(root), int(system.size(path))] for path in files]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:16]


def _hidden(path: str, root: str) -> bool:
    inside = path.removeprefix(root).strip("/")
    return any(part.startswith(("_", ".")) for part in inside.split("/"))


def _parquet_rows(system: Any, path: str, columns: Columns) -> int:
    with system.open(path, "rb") as file:
        found = arrow().parquet.ParquetFile(file)
        _check_columns(path, found.schema_arrow.names, columns)
        return int(found.metadata.num_rows)


def _line_length(system: Any, path: str, columns: Columns) -> float:
    with system.open(path, "rb") as file:
        first = file.readline()
        sample = first + file.read(_SAMPLE)
    if first.strip():
        try:
            row = _json_row(first)
        except ValueError as exc:
            raise DatasetError(f"{path}, line 1: {exc}") from exc
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line 1 must be a JSON object")
        _check_columns(path, list(row), columns)
    lines: int = sample.count(b"\n")
    return len(sample) / max(1, lines)


def _check_columns(path: str, found: Sequence[str], columns: Columns) -> None:
    missing = [columns.in_files(name) for name in columns.required]
    missing = [name for name in missing if name not in found]
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(missing)}; it has {', '.join(found)}")


class Reader:
    """Reads shards, and goes on in an open Parquet file where the last shard ended."""

    def __init__(self, system: Any, columns: Columns) -> None:
        self.system = system
        self.columns = columns
        self._open: _ParquetRows | None = None

    def read(self, shard: Shard) -> tuple[Any, list[Failure]]:
        """The shard's rows as an Arrow table, and the lines that are none."""
        if shard.path.endswith(_PARQUET):
            return self._parquet(shard), []
        return self._json_lines(shard)

    def _parquet(self, shard: Shard) -> Any:
        if self._open is None or self._open.path != shard.path:
            names = [self.columns.in_files(name) for name in self.columns.types]
            self._open = _ParquetRows(self.system, shard.path, names)
        table = self._open.read(shard.start, shard.stop)
        pa = arrow()
        arrays = []
        for field in self.columns.schema():
            name = self.columns.in_files(field.name)
            if name not in table.column_names:
                arrays.append(pa.nulls(len(table), field.type))
                continue
            try:
                arrays.append(table.column(name).cast(field.type))
            except pa.ArrowException as exc:
                raise DatasetError(f"{shard.path}: column {name} must be {field.type}") from exc
        return pa.table(arrays, schema=self.columns.schema())

    def _json_lines(self, shard: Shard) -> tuple[Any, list[Failure]]:
        pa, schema = arrow(), self.columns.schema()
        rows, failures = [], []
        for at, line in _lines(self.system, shard):
            try:
                rows.append((at, self._named(_json_row(line))))
            except (ValueError, TypeError, RecursionError) as exc:
                failures.append(_line_failure(shard, at, exc))
        try:
            return pa.Table.from_pylist([row for _, row in rows], schema=schema), failures
        except (pa.ArrowException, TypeError):  # which of them
            kept = []
            for at, row in rows:
                try:
                    pa.Table.from_pylist([row], schema=schema)
                    kept.append(row)
                except (pa.ArrowException, TypeError) as exc:
                    failures.append(_line_failure(shard, at, exc))
            return pa.Table.from_pylist(kept, schema=schema), failures

    def _named(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise TypeError(f"a line must be a JSON object, got {type(row).__name__}")
        found = {name: row.get(self.columns.in_files(name)) for name in self.columns.types}
        for name, value in found.items():  # numbers are ids too
            if self.columns.types[name] == "string" and isinstance(value, (int, float)):
                found[name] = str(value)
        return found


def _line_failure(shard: Shard, at: int, error: Exception) -> Failure:
    return Failure.of(f"{os.path.basename(shard.path)} at byte {at}", "read", error, 1)


class _ParquetRows:
    """One Parquet file, read forwards in small batches, whatever the size of its row groups."""

    def __init__(self, system: Any, path: str, names: Sequence[str]) -> None:
        self.path = path
        self._file = arrow().parquet.ParquetFile(system.open(path, "rb"))
        self._names = [name for name in names if name in self._file.schema_arrow.names]
        meta = self._file.metadata
        sizes = (meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        self._ends = list(accumulate(sizes))
        self._at = 0
        self._rest: Any = None
        self._batches: Iterator[Any] = iter(())
        self._seek(0)

    def read(self, start: int, stop: int) -> Any:
        """Rows from `start` up to, but without, `stop`."""
        if start < self._at or self._group(start) > self._group(self._at):
            self._seek(start)
        parts = []
        while self._at < stop:
            batch = self._rest if self._rest is not None else next(self._batches)
            first, end = self._at, self._at + len(batch)
            if end > start:
                skipped = max(0, start - first)
                parts.append(batch.slice(skipped, min(stop, end) - first - skipped))
            self._rest = batch.slice(stop - first) if end > stop else None
            self._at = min(end, stop)
        return arrow().Table.from_batches(parts)

    def _group(self, row: int) -> int:
        return bisect_right(self._ends, row)

    def _seek(self, row: int) -> None:
        group = self._group(row)
        self._at = self._ends[group - 1] if group else 0
        self._rest = None
        self._batches = self._file.iter_batches(
            _BLOCK, row_groups=range(group, len(self._ends)), columns=self._names, use_threads=False
        )


def _lines(system: Any, shard: Shard) -> Iterator[tuple[int, bytes]]:
    """Lines that begin within the shard, with where they begin; empty ones are left out."""
    with system.open(shard.path, "rb") as file:
        if shard.start:  # the line that began before is another shard's
            file.seek(shard.start - 1)
            file.readline()
        at = file.tell()
        while at < shard.stop:
            line = file.readline()
            if not line:
                return
            if line.strip():
                yield at, line
            at += len(line)


def _json_row(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as exc:
        raise ValueError(f"not valid JSON: {exc}") from None
