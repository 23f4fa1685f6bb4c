"""A run's file: every finished call to an LLM, one JSON line each, safe against kill -9.

The first line is the header: what was run, with which model, prompt and options. A line is
written with one system call as soon as its call is finished; a torn last line is cut off when
the file is opened again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from llama_index.tuning._files import PathLike
from llama_index.tuning.errors import RunFileError

logger = logging.getLogger(__name__)

FORMAT = 1
KIND = "llama-index-tuning run"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


class RunFile:
    """Finished calls by step, id and prompt; a context manager. Without a path, nothing is kept.

    Args:
        path: the file; made if it is not there. One process at a time holds it.
        header: JSON object that says what is run. A file with another header is refused.
        sync_every: lines between two flushes to the disk itself. Every line reaches the
            operating system at once, and survives the death of the process.

    Example:
        >>> with RunFile(None, {"task": "questions"}) as run:
        ...     run.put("questions", "node-1", "the prompt", ["What is it?"])
        ...     run.get("questions", "node-1", "another prompt") is None
        True
    """

    def __init__(
        self, path: PathLike | None, header: Mapping[str, Any], *, sync_every: int = 500
    ) -> None:
        self.path = None if path is None else Path(path)
        self.header = json.loads(json.dumps(dict(header)))
        self.sync_every = sync_every
        self._by_id: dict[tuple[str, str, str], Any] = {}
        self._by_prompt: dict[tuple[str, str], Any] = {}
        self._handle: int | None = None
        self._unsynced = 0

    def __enter__(self) -> RunFile:
        if self.path is None:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.is_file():
            raise RunFileError(f"{self.path} is no ordinary file; choose another path")
        self._handle = os.open(self.path, _FLAGS, 0o644)
        try:
            _lock(self._handle, self.path)
            self._load()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def get(self, step: str, id_: str, prompt: str, *, any_id: bool = False) -> Any:
        """What this call gave, or `None` if it was not finished yet.

        Args:
            any_id: also take the answer that the same prompt gave under another id: node ids
                that are drawn anew in every process do not make a run start over.
        """
        found = self._by_id.get((step, id_, _digest(prompt)))
        if found is None and any_id:
            found = self._by_prompt.get((step, _digest(prompt)))
        return found

    def put(self, step: str, id_: str, prompt: str, value: Any) -> None:
        """Keep what a call gave."""
        self._remember(step, id_, _digest(prompt), value)
        self._append({"step": step, "id": id_, "prompt": _digest(prompt), "value": value})

    def fail(self, step: str, id_: str, prompt: str, error: Mapping[str, Any]) -> None:
        """Note a call that failed; the next run tries it again."""
        self._append({"step": step, "id": id_, "prompt": _digest(prompt), "error": dict(error)})

    def _remember(self, step: str, id_: str, digest: str, value: Any) -> None:
        self._by_id[step, id_, digest] = value
        self._by_prompt.setdefault((step, digest), value)

    def _append(self, row: Mapping[str, Any]) -> None:
        if self._handle is None:
            return
        line = memoryview(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        start = os.lseek(self._handle, 0, os.SEEK_END)
        try:
            while line:
                line = line[os.write(self._handle, line) :]
        except OSError as exc:  # the disk is full: no half line for the next one to run into
            os.ftruncate(self._handle, start)
            raise OSError(exc.errno, exc.strerror, str(self.path)) from exc
        self._unsynced += 1
        if self._unsynced >= self.sync_every:
            os.fsync(self._handle)
            self._unsynced = 0

    def _load(self) -> None:
        assert self.path is not None
        assert self._handle is not None
        whole = _cut_torn_line(self._handle, self.path)
        rows = _rows(whole, self.path)
        head = next(rows, None)
        if head is None:
            self._append({"kind": KIND, "format": FORMAT, **self.header})
            return
        check_header(self.path, head[1], self.header)
        for number, row in rows:
            try:
                if "error" not in row:
                    self._remember(row["step"], row["id"], row["prompt"], row["value"])
            except (KeyError, TypeError):
                raise RunFileError(f"{self.path}, line {number} is not a line of a run") from None
        logger.info("%s holds %d finished calls", self.path, len(self._by_id))

    def _close(self) -> None:
        if self._handle is not None:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = None


def _digest(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:24]


def _cut_torn_line(handle: int, path: Path) -> bytes:
    with open(handle, "rb", closefd=False) as file:
        content = file.read()
    end = content.rfind(b"\n") + 1
    head = f'{{"kind": "{KIND}"'.encode()
    if content and not content.startswith(head[: len(content)]):  # before a byte of it is cut off
        raise RunFileError(f"{path} is not a run file; choose another path")
    if end < len(content):
        logger.warning("%s ended in a torn line, which is cut off", path)
        os.ftruncate(handle, end)
    return content[:end]


def _rows(content: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise RunFileError(f"{path}, line {number} is not valid JSON") from None
        if not isinstance(row, dict):
            raise RunFileError(f"{path}, line {number} must be a JSON object")
        yield number, row


def check_header(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a file, or a folder, that another run wrote: the error names what differs."""
    if found.pop("kind", None) != KIND:
        raise RunFileError(f"{path} is not a run file; choose another path")
    version = found.pop("format", None)
    if version != FORMAT:
        raise RunFileError(f"{path} has format {version!r}; this version reads format {FORMAT}")
    for key in [*wanted, *(key for key in found if key not in wanted)]:
        if found.get(key) != wanted.get(key):
            raise RunFileError(
                f"{path} belongs to another run: its {key} is {_short(found.get(key))}, this run's "
                f"is {_short(wanted.get(key))}; choose another output_path, or delete the file"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, path: Path) -> None:
        # Far behind any content: a locked range cannot be read by others.
        os.lseek(handle, 1 << 40, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            raise _in_use(path) from exc
        os.lseek(handle, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(handle: int, path: Path) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise _in_use(path) from exc


def _in_use(path: Path) -> RunFileError:
    return RunFileError(f"{path} is being written by another run; choose another output_path")
