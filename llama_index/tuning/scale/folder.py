"""The folder that a job writes: a Parquet file for each shard, whole or not there.

`part-00012.parquet` says that shard 12 is done. What failed in it is in
`_failures/part-00012.jsonl`, written before it; `_job.json` says what the job is; calls to an LLM
that are not yet in a part are in `_calls/`. Names with `_` are passed over by readers of folders.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.tuning.asking.results import Failure
from llama_index.tuning.asking.run_file import FORMAT, KIND, check_header
from llama_index.tuning.errors import RunFileError
from llama_index.tuning.scale.shards import arrow

_PART = re.compile(r"part-(\d+)\.parquet")
_JOB = "_job.json"
LOCK = "_job.lock"
_BEGUN = "_begun"


@dataclass(frozen=True)
class OutputFolder:
    """A job's folder in an fsspec file system.

    Args:
        system: the file system.
        root: the folder's path in it.

    Raises:
        RunFileError: a file is there.
    """

    system: Any
    root: str

    def __post_init__(self) -> None:
        if self.system.isfile(self.root):
            raise RunFileError(f"{self.root} is a file; results go to a folder")

    @property
    def local(self) -> bool:
        """Whether it lies in the file system of the machine, where calls can be kept one by one."""
        return "file" in (self.system.protocol, *self.system.protocol)

    def begin(self, header: Mapping[str, Any]) -> None:
        """Make the folder, or go on in it.

        Raises:
            RunFileError: it holds something else, or belongs to another job.
        """
        job = self._path(_JOB)
        wanted = json.loads(json.dumps(dict(header)))
        if self.system.exists(job):
            with self.system.open(job, "rb") as file:
                check_header(Path(job), json.load(file), wanted)
        elif self.system.exists(self.root) and set(self._names()) - {LOCK}:
            raise RunFileError(
                f"{self.root} exists and no job of ours wrote it; choose another folder"
            )
        self.system.makedirs(self._path("_failures"), exist_ok=True)
        if not self.system.exists(job):
            text = json.dumps({"kind": KIND, "format": FORMAT, **wanted}, indent=2)
            self._write(job, lambda file: file.write(text.encode()))
        for name in self._names():  # of workers that were killed
            if name.startswith(".part-"):
                self.system.rm_file(self._path(name))
        if self.system.exists(self._path(_BEGUN)):
            self.system.rm(self._path(_BEGUN), recursive=True)

    def done(self) -> set[int]:
        """Numbers of the shards that are done."""
        return {int(match[1]) for match in map(_PART.fullmatch, self._names()) if match}

    def failed(self) -> set[int]:
        """Numbers of the shards in which something failed."""
        found = self.system.ls(self._path("_failures"), detail=False)
        names = [os.path.basename(path).removesuffix(".jsonl") for path in found]
        return {int(name.removeprefix("part-")) for name in names if name.startswith("part-")}

    def begin_shard(self, number: int) -> int:
        """Note that a shard is begun; how often it was in this call of the job."""
        path = self._path(f"{_BEGUN}/part-{number:05d}")
        self.system.makedirs(self._path(_BEGUN), exist_ok=True)
        before = int(self.system.cat_file(path) or 0) if self.system.exists(path) else 0
        self.system.pipe_file(path, str(before + 1).encode())
        return before + 1

    def calls_path(self, number: int) -> Path | None:
        """Where a shard's calls to an LLM are kept; only on a file system of the machine."""
        return Path(self._path(f"_calls/part-{number:05d}")) if self.local else None

    def write(self, number: int, table: Any, failures: Sequence[Failure], read: int) -> None:
        """A shard's results and failures; the shard is done when this returns.

        Args:
            number: of the shard.
            table: the results.
            failures: what failed.
            read: rows that were read.
        """
        beside = self._path(f"_failures/part-{number:05d}.jsonl")
        if failures:
            rows = [json.dumps(failure.to_dict(), ensure_ascii=False) for failure in failures]
            self._write(beside, lambda file: file.write(("\n".join(rows) + "\n").encode()))
        elif self.system.exists(beside):
            self.system.rm_file(beside)
        counts = json.dumps({"read": read, "failed": len(failures)})
        table = table.replace_schema_metadata({"llama_index_tuning": counts})
        part = self._path(f"part-{number:05d}.parquet")
        self._write(part, lambda file: arrow().parquet.write_table(table, file))
        calls = self.calls_path(number)
        if calls is not None and not failures:
            for path in (calls, Path(f"{calls}.run.jsonl")):
                path.unlink(missing_ok=True)

    def counts(self, number: int) -> tuple[int, int, int]:
        """Rows that were read, written and failed, of a shard that is done."""
        with self.system.open(self._path(f"part-{number:05d}.parquet"), "rb") as file:
            meta = arrow().parquet.read_metadata(file)
        found = json.loads((meta.metadata or {}).get(b"llama_index_tuning", b"{}"))
        return int(found["read"]), int(meta.num_rows), int(found["failed"])

    def _names(self) -> list[str]:
        return [os.path.basename(path) for path in self.system.ls(self.root, detail=False)]

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _write(self, path: str, write: Callable[[Any], Any]) -> None:
        if not self.local:  # an object is there when it is closed, and not before
            with self.system.open(path, "wb") as file:
                write(file)
            return
        folder, name = os.path.split(path)
        draft = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}")
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
