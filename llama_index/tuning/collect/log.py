"""An append-only JSON Lines log that threads, tasks and processes share, and a kill leaves whole.

Every process holds a file (a *segment*) of its own under a lock, so lines of two processes never
mix: the first takes `traffic.jsonl`, the next ones `traffic.part2.jsonl`, …; a
segment that has grown too large is left for the next free number. Readers take them all.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llama_index.tuning.collect.redact import (
    Redact,
    mask_secrets,
    may_hold_secrets,
    redacted,
)
from llama_index.tuning.errors import DatasetError

if sys.platform != "win32":  # there, a process starts a segment of its own instead of locking one
    import fcntl

logger = logging.getLogger(__name__)

FORMAT = 1
PathLike = str | os.PathLike[str]

_MAX_KNOWN = 20_000
_open_logs: weakref.WeakSet[TrafficLog] = weakref.WeakSet()


class Attachment(NamedTuple):
    """What several records refer to and a segment holds once, such as a node's text.

    `stamp` tells whether it changed since it was written; `make` builds its record only then.
    """

    id: str
    stamp: str
    make: Callable[[], dict[str, Any]]


class TrafficLog:
    """Appends records to the segments of `path`.

    An error while writing (no disk left) never reaches the caller: the lines are counted in
    `lost` and the error is logged.

    Args:
        path: the first segment, such as `"traffic.jsonl"`; created with its folder, for the
            owner's eyes only.
        flush_every: records to hold back before they are handed to the operating system, from
            where a kill of the process no longer takes them. 1: each at once.
        flush_seconds: the longest that a held-back record waits.
        fsync: also wait for the disk at each flush, so that a loss of power takes nothing.
        max_bytes: size at which a new segment begins.
        redact: applied to every text before it is written; None writes them as they are.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        flush_every: int = 1,
        flush_seconds: float = 1.0,
        fsync: bool = False,
        max_bytes: int = 64 * 2**20,
        redact: Redact | None = None,
    ) -> None:
        for name, value in {"flush_every": flush_every, "max_bytes": max_bytes}.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if flush_seconds <= 0:
            raise ValueError(f"flush_seconds must be > 0, got {flush_seconds}")
        self.path = Path(path)
        self.lost = 0
        self._flush_every, self._flush_seconds = flush_every, flush_seconds
        self._fsync, self._max_bytes, self._redact = fsync, max_bytes, redact
        self._start_anew()
        _open_logs.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._size, self._torn = 0, False
        self._known: dict[str, str] = {}
        self._held: list[bytes] = []
        self._timer: threading.Timer | None = None

    def append(self, record: dict[str, Any], attachments: Iterable[Attachment] = ()) -> None:
        """Append one record, behind those of its attachments that the segment lacks."""
        line = self._encode(record)
        with self._lock:
            try:
                self._ready()
                news = [item for item in attachments if self._known.get(item.id) != item.stamp]
                lines = [self._encode(item.make()) for item in news]
                self._held += [*lines, line]
                self._known.update({item.id: item.stamp for item in news})
            except OSError:
                self._lose(1)
                return
            if len(self._held) >= self._flush_every:
                self._write()
            elif self._timer is None:
                self._timer = threading.Timer(self._flush_seconds, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Hand what is held back to the operating system."""
        with self._lock:
            self._write()

    def close(self) -> None:
        """Flush and give up the segment; a later `append` opens one again."""
        with self._lock:
            self._write()
            if self._fd is not None:
                os.close(self._fd)
            self._fd = None

    def _encode(self, record: dict[str, Any]) -> bytes:
        text = _to_json(record)
        redact = self._redact
        if redact is not None and (redact is not mask_secrets or may_hold_secrets(text)):
            record = redacted(record, redact)
            text = _to_json(record)
        try:
            return f"{text}\n".encode()
        except UnicodeEncodeError:  # half of a surrogate pair has no UTF-8: it is written escaped
            return json.dumps(record, default=str).encode() + b"\n"

    def _ready(self) -> None:
        if self._fd is not None and self._size >= self._max_bytes:
            self._write()
            os.close(self._fd)
            self._fd = None
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        if self._fd is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd, self._size = _take_segment(self.path, self._max_bytes)
            self._known.clear()
            self._torn = self._size > 0 and _last_byte(self._fd) != b"\n"

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._held or self._fd is None:
            return
        lines, self._held = self._held, []
        torn = [b"\n"] if self._torn else []
        header = [] if self._size else [self._encode({"kind": "header", "format": FORMAT})]
        data = b"".join([*torn, *header, *lines])
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
                self._torn = data[written - 1 : written] != b"\n"
            self._size += written
            if self._fsync:
                os.fsync(self._fd)
        except OSError:
            self._known.clear()
            self._lose(len(lines))

    def _lose(self, lines: int) -> None:
        self.lost += lines
        logger.warning("%d records could not be written to %s", lines, self.path, exc_info=True)

    def _after_fork(self) -> None:
        # The child shares the parent's file and lock: it lets go of the file and takes its own.
        if self._fd is not None:
            os.close(self._fd)
        self._start_anew()


def _after_fork_in_child() -> None:
    for log in list(_open_logs):
        log._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def segments(path: PathLike) -> list[Path]:
    """The files of a log that exist, in the order of their numbers."""
    first = Path(path)
    rest = [
        (int(number), file)
        for file in first.parent.glob(f"{first.stem}.part*{first.suffix}")
        if (number := file.stem[len(first.stem) + len(".part") :]).isdecimal()
    ]
    return [file for file in (first, *(file for _, file in sorted(rest))) if file.is_file()]


def read_log(path: PathLike) -> Iterator[dict[str, Any]]:
    """The records of all segments; a line that a kill or a full disk cut short is passed over.

    Raises:
        FileNotFoundError: no segment exists.
        DatasetError: a file is no log of this package, or of a later format.
    """
    files = segments(path)
    if not files:
        raise FileNotFoundError(f"{path} does not exist: nothing was recorded there yet")
    for file in files:
        yield from _read_segment(file)


def _read_segment(file: Path) -> Iterator[dict[str, Any]]:
    headed, cut = False, 0
    with file.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line) if line.strip() else None
            except ValueError:
                cut += 1
                continue
            if record is None:
                continue
            if not headed:
                _check_header(file, record)
                headed = True
            elif isinstance(record, dict) and record.get("kind") != "header":
                yield record
    if cut and not headed:
        raise DatasetError(f"{file} is no recorded traffic: no line of it is a header")
    if cut:
        logger.warning("%s: %d lines were cut short and are left out", file, cut)


def _check_header(file: Path, record: Any) -> None:
    if not isinstance(record, dict) or record.get("kind") != "header":
        raise DatasetError(f"{file} is no recorded traffic: its first line is not a header")
    if record.get("format") != FORMAT:
        raise DatasetError(
            f"{file} has format {record.get('format')!r}; this version reads format {FORMAT}"
        )


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def _take_segment(path: Path, max_bytes: int) -> tuple[int, int]:
    """(file descriptor, size) of the first segment that is free and not full."""
    for number in itertools.count(1):
        file = path if number == 1 else path.with_name(f"{path.stem}.part{number}{path.suffix}")
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        if sys.platform == "win32":
            flags |= os.O_EXCL
        try:
            fd = os.open(file, flags, 0o600)
        except FileExistsError:
            continue
        if _lock(fd) and (size := os.fstat(fd).st_size) < max_bytes:
            return fd, size
        os.close(fd)
    raise AssertionError("unreachable")


def _last_byte(fd: int) -> bytes:
    os.lseek(fd, -1, os.SEEK_END)
    return os.read(fd, 1)


def _lock(fd: int) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
