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
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from llama_index.tuning._checks import folder_path, positive, whole_number
from llama_index.tuning._files import ordinary_file
from llama_index.tuning.collect.masking import (
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
_BEGUN, _HEADER = b'{"kind":"header"', re.compile(rb'\s*\{\s*"kind"\s*:\s*"header"')
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of half a surrogate pair, or of a whole one
PathLike = str | os.PathLike[str]

_MAX_KNOWN = 20_000
_open_logs: weakref.WeakSet[TrafficLog] = weakref.WeakSet()


# What several records refer to and a segment holds once, such as a node's text: its id, a stamp
# that tells whether it changed since it was written, and what builds its record, only then.
Attachment = tuple[str, str, Callable[[], dict[str, Any]]]


@dataclass(eq=False, slots=True)
class Batch:
    """The records of one request, held until it ends: they become one line, whole or not there."""

    since: float = field(default_factory=perf_counter)
    records: list[dict[str, Any]] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    open: bool = True


class TrafficLog:
    """Appends records to the segments of `path`.

    An error while writing (no disk left) never reaches the caller: the records are counted in
    `lost` and the error is logged.

    Args:
        path: the first segment, such as `"traffic.jsonl"`; created with its folder, for the
            owner's eyes only.
        flush_every: records to hold back before they are handed to the operating system, from
            where a kill of the process no longer takes them. 1: each at once, those of a batch
            at its end.
        flush_seconds: the longest that a held-back record waits; a batch that is open for longer
            holds nothing back.
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
        whole_number("flush_every", flush_every, 1)
        whole_number("max_bytes", max_bytes, 1)
        positive("flush_seconds", flush_seconds)
        if redact is not None and not callable(redact):
            raise TypeError(f"redact must be a function of a text or None, got {redact!r}")
        self.path = folder_path("path", path)
        _check_own(self.path)
        self.lost = 0
        self._flush_every, self._flush_seconds = flush_every, flush_seconds
        self._fsync, self._max_bytes, self._redact = fsync, max_bytes, redact
        self._start_anew()
        _open_logs.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.RLock()
        self._redacting = False
        self._fd: int | None = None
        self._segment = self.path
        self._size, self._torn, self._headed = 0, False, False
        self._known: dict[str, str] = {}
        self._held: list[bytes] = []
        self._waiting = 0
        self._batches: set[Batch] = set()
        self._timer: threading.Timer | None = None

    def append(
        self,
        record: dict[str, Any],
        attachments: Iterable[Attachment] = (),
        batch: Batch | None = None,
    ) -> None:
        """Append one record, behind those of its attachments that the segment lacks."""
        with self._lock:
            if self._redacting:
                return  # what a redact hook itself asks of an LLM is no traffic of the app
            try:
                self._ready()
            except OSError:
                self._lose(1)
                return
            given = list(attachments)
            self._attach(given)
            if batch is None:
                self._hold(record)
            else:
                batch.records.append(record)
                batch.attachments += given
                self._batches.add(batch)
                due = batch.since + self._flush_seconds - perf_counter()
                if batch.open and due > 0:
                    self._wake(due)
                    return
                self._gather(batch)
            self._written_by_policy()

    def end(self, batch: Batch) -> None:
        """A request has ended: its records are written, and later ones as they come."""
        with self._lock:
            batch.open = False
            if batch.records:
                self._follow_file()
                self._gather(batch)
                self._written_by_policy()

    def flush(self) -> None:
        """Hand what is held back to the operating system, of open batches too."""
        with self._lock:
            self._write_all()

    def close(self) -> None:
        """Flush and give up the segment; a later `append` opens one again."""
        with self._lock:
            self._write_all()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._fd is not None:
                os.close(self._fd)
            elif self._held:  # there was no file to write to, and nobody comes back to try again
                self._lose(self._waiting)
                self._held, self._waiting = [], 0
            self._fd = None

    def _attach(self, attachments: Iterable[Attachment]) -> None:
        for id_, stamp, make in attachments:
            # Ahead of every record that refers to them, which another batch's may be.
            if self._known.get(id_) != stamp:
                self._hold(make(), 0)
                self._known[id_] = stamp

    def _follow_file(self) -> None:
        """Go on in a new file where this one was renamed or removed (logrotate does)."""
        if self._fd is None or _is_at(self._fd, self._segment):
            return
        os.close(self._fd)
        self._fd = None
        try:
            self._open()
        except OSError:
            return  # what is held back stays until a file can be opened
        for batch in self._batches:  # their texts lie in the file that is gone
            self._attach(batch.attachments)

    def _gather(self, batch: Batch) -> None:
        records, batch.records = batch.records, []
        batch.attachments = []
        self._batches.discard(batch)
        try:
            self._hold(records, len(records))
        except Exception:  # of a redact hook, or of an object that was to be written
            self._lose(len(records))

    def _hold(self, content: Any, records: int = 1) -> None:
        self._held.append(self._encode(content))
        self._waiting += records

    def _written_by_policy(self) -> None:
        if self._waiting >= self._flush_every:
            self._write()
        else:
            self._wake(self._flush_seconds)

    def _wake(self, seconds: float) -> None:
        # Not cancelled by each write: a busy app starts one thread in `flush_seconds`, no more.
        if self._timer is None:
            self._timer = threading.Timer(max(seconds, 0.0), self._overdue)
            self._timer.daemon = True
            self._timer.start()

    def _overdue(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # closed meanwhile
            self._timer = None
            self._follow_file()
            now = perf_counter()
            for batch in list(self._batches):
                if now - batch.since >= self._flush_seconds:
                    self._gather(batch)
            self._write()
            if self._batches:
                first = min(batch.since for batch in self._batches)
                self._wake(first + self._flush_seconds - now)

    def _write_all(self) -> None:
        self._follow_file()
        for batch in list(self._batches):
            self._gather(batch)
        self._write()

    def _encode(self, content: Any) -> bytes:
        line = _line(content)
        redact = self._redact
        if redact is not None and (redact is not mask_secrets or may_hold_secrets(line)):
            self._redacting = True
            try:
                line = _line(redacted(content, redact))
            finally:
                self._redacting = False
        return line

    def _ready(self) -> None:
        self._follow_file()
        if self._fd is not None and self._size >= self._max_bytes:
            self._write_all()
            os.close(self._fd)
            self._fd = None
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        if self._fd is None:
            self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd, self._size, self._segment = _take_segment(self.path, self._max_bytes)
        self._known.clear()
        self._torn = self._size > 0 and _last_byte(self._fd) != b"\n"
        self._headed = _HEADER.match(_first_line(self._fd)) is not None

    def _write(self) -> None:
        if not self._held or self._fd is None:
            return
        lines, self._held = self._held, []
        records, self._waiting = self._waiting, 0
        torn = [b"\n"] if self._torn else []
        header = [] if self._headed else [self._encode({"kind": "header", "format": FORMAT})]
        data = b"".join([*torn, *header, *lines])
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
                self._torn = data[written - 1 : written] != b"\n"
            self._size, self._headed = self._size + written, True
            if self._fsync:
                os.fsync(self._fd)
        except OSError:
            self._known.clear()
            self._lose(records)

    def _lose(self, records: int) -> None:
        before, self.lost = self.lost, self.lost + records
        if not before or len(str(before)) < len(str(self.lost)):  # not a line for each of them
            logger.warning(
                "%d records could not be written to %s", self.lost, self.path, exc_info=True
            )

    def _after_fork(self) -> None:
        # The child shares the parent's file and lock: it lets go of the file and takes its own.
        if self._fd is not None:
            os.close(self._fd)
        for batch in self._batches:
            batch.records, batch.attachments = [], []
        self._start_anew()


def _after_fork_in_child() -> None:
    for log in list(_open_logs):
        log._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def segments(path: PathLike) -> list[Path]:
    """The files of a log that exist, in the order of their numbers."""
    first = folder_path("path", path)
    rest = [
        (int(part), file)
        for file in first.parent.glob(f"{first.stem}.part*{first.suffix}")
        if (part := file.stem[len(first.stem) + len(".part") :]).isdecimal()
    ]
    return [file for file in (first, *(file for _, file in sorted(rest))) if file.is_file()]


def read_log(path: PathLike, *, mend: bool = False) -> Iterator[dict[str, Any]]:
    """The records of all segments; a line that a kill or a full disk cut short is passed over.

    Args:
        path: the log.
        mend: put a replacement character for each half of a surrogate pair, which no file of
            UTF-8 can hold.

    Raises:
        FileNotFoundError: no segment exists.
        DatasetError: a file is no log of this package, or of a later format.
    """
    files = segments(path)
    if not files and os.path.lexists(path):
        ordinary_file(path)
    if not files:
        raise FileNotFoundError(f"{path} does not exist: nothing was recorded there yet")
    for file in files:
        yield from _read_segment(file, mend)


def _read_segment(file: Path, mend: bool) -> Iterator[dict[str, Any]]:
    headed, cut = False, 0
    with ordinary_file(file).open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                cut += 1
                continue
            if mend and _HALF.search(line):
                record = _mended(record)
            if record is None:
                continue
            if not headed:
                _check_header(file, record)
                headed = True
                continue
            for one in record if isinstance(record, list) else [record]:
                if isinstance(one, dict) and one.get("kind") != "header":
                    yield one
    if cut and not headed:
        raise DatasetError(f"{file} is no recorded traffic: no line of it is a header")
    if cut:
        logger.warning("%s: %d lines were cut short and are left out", file, cut)


def _mended(value: Any) -> Any:
    """The value with a replacement character for each half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return [_mended(item) for item in value] if isinstance(value, list) else value


def _check_header(file: Path, record: Any) -> None:
    if not isinstance(record, dict) or record.get("kind") != "header":
        raise DatasetError(f"{file} is no recorded traffic: its first line is not a header")
    if record.get("format") != FORMAT:
        raise DatasetError(
            f"{file} has format {record.get('format')!r}; this version reads format {FORMAT}"
        )


# Without its search for circles, which costs a tenth; one still ends, in a RecursionError.
_to_json = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=str, check_circular=False
).encode


def _line(content: Any) -> bytes:
    try:
        return _to_json(content).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair has no UTF-8: it is written escaped
        return json.dumps(content, default=str).encode() + b"\n"


def _is_at(fd: int, path: Path) -> bool:
    try:
        return sys.platform == "win32" or os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _take_segment(path: Path, max_bytes: int) -> tuple[int, int, Path]:
    """(file descriptor, size, file) of the first segment that is free and not full."""
    for place in itertools.count(1):
        file = path if place == 1 else path.with_name(f"{path.stem}.part{place}{path.suffix}")
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        if sys.platform == "win32":
            flags |= os.O_EXCL
        try:
            fd = os.open(file, flags, 0o600)
        except FileExistsError:
            continue
        if _lock(fd) and (size := os.fstat(fd).st_size) < max_bytes and _is_own(fd):
            return fd, size, file
        os.close(fd)
    raise AssertionError("unreachable")


def _check_own(path: Path) -> None:
    """Refuse a file that holds something else: what is appended to it, nobody could read."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if not _is_own(file.fileno()):
            raise DatasetError(f"path: {path} holds something else than recorded traffic")


def _is_own(fd: int) -> bool:
    """Whether a file is empty, or begins with a header, or with what a full disk left of one."""
    first = _first_line(fd)
    return _BEGUN.startswith(first) or _HEADER.match(first) is not None


def _first_line(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 400).partition(b"\n")[0]


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
