"""One process that runs queries on SQLite for another, which ends it if it takes too long."""

from __future__ import annotations

import marshal
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import closing
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

from llama_index.tuning._running import ThreadLock

Files = tuple[tuple[str, str], ...]
"""(name of a schema, its file), the main one first."""

MAX_ROWS = 100_000
"""A query that finds more fails: a cross join would fill the memory within its time."""
_MEMORY = 1 << 30
_LENGTH = 100_000_000
"""Bytes of one value."""
_GRACE = 0.3
"""Seconds after the limit for the process to end a query itself."""
_HEAD = struct.Struct("<Q")

# Run in the child: frames of marshal in and out, ("rows", rows) or ("failed", reason).
_CHILD = """
import marshal, os, re, sqlite3, struct, sys, time
from pathlib import Path
limit, max_rows, memory, length = map(float, sys.argv[1:])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass  # a system without such a limit: that of a value's length remains
reading = ("SELECT", "READ", "FUNCTION", "RECURSIVE")
allowed = {getattr(sqlite3, f"SQLITE_{name}") for name in reading}
late = f"it took longer than {limit:g} s"
connection, opened = None, None
def matches(pattern, value):
    return None if value is None else re.search(pattern, str(value)) is not None
def connected(files):
    made = sqlite3.connect(f"{Path(files[0][1]).as_uri()}?mode=ro", uri=True, isolation_level=None)
    for name, file in files[1:]:
        quoted = name.replace('"', '""')
        made.execute(f'ATTACH DATABASE ? AS "{quoted}"', (f"{Path(file).as_uri()}?mode=ro",))
    made.create_function("regexp", 2, matches)
    if hasattr(made, "setlimit"):
        made.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, int(length))
    made.set_authorizer(lambda action, *_: int(action not in allowed))
    return made
def answer(files, sql):
    global connection, opened
    if files != opened:
        connection, opened = connected(files), files
    end = time.monotonic() + limit
    connection.set_progress_handler(lambda: time.monotonic() > end, 1000)
    cursor = connection.cursor()
    try:
        rows = cursor.execute(sql).fetchmany(int(max_rows) + 1)
        returns = cursor.description is not None
    except MemoryError:
        return "failed", "it needs more memory than it may have"
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as exc:
        return "failed", late if time.monotonic() >= end else str(exc)
    finally:
        cursor.close()
    if time.monotonic() >= end:
        return "failed", late
    if not returns:
        return "failed", "it is no query: it gives no rows"
    if len(rows) > max_rows:
        return "failed", f"it finds more than {int(max_rows):,} rows"
    return "rows", [tuple(row) for row in rows]
def framed(result):
    data = marshal.dumps(result)
    return struct.pack("<Q", len(data)) + data
given, out = sys.stdin.buffer, sys.stdout.buffer
while head := given.read(8):
    files, sql = marshal.loads(given.read(struct.unpack("<Q", head)[0]))
    try:
        frame = framed(answer(files, sql))
    except MemoryError:
        frame = framed(("failed", "its rows need more memory than they may have"))
    except sqlite3.Error as exc:
        opened, frame = None, framed(("failed", str(exc)))
    out.write(frame)
    out.flush()
"""


class SQLRefused(Exception):  # noqa: N818 - a query's fault, data to those who run it
    """A query that gave no rows: its reason is the text."""


class SQLWorker:
    """Runs queries in one process that lives on from query to query.

    Args:
        time_limit: seconds that one query may take; then the process is ended, and another begun.
    """

    def __init__(self, time_limit: float) -> None:
        self.time_limit = time_limit
        self._lock = ThreadLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def run(self, files: Files, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            SQLRefused: it fails, would write, takes too long, or finds too much.
        """
        try:
            request = marshal.dumps((files, sql))
        except ValueError as exc:  # half a character
            raise SQLRefused(str(exc)) from None
        with self._lock:
            process = self._running()
            late = threading.Event()
            timer = threading.Timer(self.time_limit + _GRACE, _end, (process, late))
            timer.daemon = True
            timer.start()
            try:
                reply = _exchanged(process, request)
            finally:
                timer.cancel()
            if reply is None:
                _kill(process)
                self._process = None
        if reply is None:
            why = (
                f"it took longer than {self.time_limit:g} s" if late.is_set() else "it ended SQLite"
            )
            raise SQLRefused(why)
        kind, found = reply
        if kind == "failed":
            raise SQLRefused(found)
        return found  # type: ignore[no-any-return]

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or self._owner != os.getpid() or process.poll() is not None:
            limits = (self.time_limit, MAX_ROWS, _MEMORY, _LENGTH)
            process = subprocess.Popen(  # nosec B603 # our own program
                [sys.executable, "-I", "-S", "-c", _CHILD, *map(str, limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=tempfile.gettempdir(),
            )
            self._process, self._owner = process, os.getpid()
            weakref.finalize(self, _kill, process)
            # Its start does not count as the first query's time.
            _exchanged(process, marshal.dumps(((("main", os.devnull),), "SELECT 1")))
        return process


def _exchanged(process: subprocess.Popen[bytes], request: bytes) -> Any:
    """The reply to a request; None if the process has ended."""
    given, out = process.stdin, process.stdout
    if given is None or out is None:
        raise RuntimeError("the process has no pipes")
    try:
        given.write(_HEAD.pack(len(request)) + request)
        given.flush()
        head = _read(out, _HEAD.size)
        if head is None:
            return None
        reply = _read(out, _HEAD.unpack(head)[0]) or b"N"
        return marshal.loads(reply)  # nosec B302 # of our own process
    except (BrokenPipeError, EOFError, OSError):
        return None


def _read(out: IO[bytes], size: int) -> bytes | None:
    data = out.read(size)
    return data if len(data) == size else None


def _end(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it, and give its pipes back."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what could not be written any more
                continue


def files_of(given: Any) -> Callable[[], Files]:
    """What gives the files of a database, by schema; made anew if it is in memory."""
    if isinstance(given, str | PathLike):
        path = Path(fspath(given))
        if not path.is_file():
            raise FileNotFoundError(f"database: there is no file {path}")
        return lambda: (("main", str(path.resolve())),)
    engine = getattr(given, "engine", given)
    dialect = getattr(getattr(engine, "dialect", None), "name", None)
    if dialect is None or not hasattr(engine, "raw_connection"):
        raise TypeError(
            "database must be the path of a SQLite file, a SQLAlchemy engine or a SQLDatabase, "
            f"got {given!r}"
        )
    if dialect != "sqlite":
        raise ValueError(
            f"database must be SQLite, got {dialect}: only there are queries known to be read-only "
            "and to end in time; checked_dataset(rows, check=...) takes a check of your own"
        )
    return _EngineFiles(engine)


class _EngineFiles:
    """The files of an engine's database; those in memory are copied if they have changed."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._folder = Path(tempfile.mkdtemp(prefix="sql-copy-"))
        weakref.finalize(self, _remove_own, self._folder, os.getpid())
        self._copies: dict[str, tuple[Any, str]] = {}

    def __call__(self) -> Files:
        with closing(self._engine.raw_connection()) as pooled:
            connection = pooled.driver_connection
            listed = connection.execute("PRAGMA database_list").fetchall()
            return tuple(
                (str(name), str(file) if file else self._copy(connection, str(name)))
                for _, name, file in listed
                if name != "temp"
            )

    def _copy(self, connection: Any, name: str) -> str:
        (version,) = connection.execute(f'PRAGMA "{name}".schema_version').fetchone()
        seen = (id(connection), connection.total_changes, version)
        known, file = self._copies.get(name, (None, ""))
        if known != seen:
            number = len(list(self._folder.iterdir()))
            file = str(self._folder / f"{name}-{os.getpid()}-{number}")
            with closing(sqlite3.connect(file)) as copy:
                connection.backup(copy, name=name)
            self._copies[name] = (seen, file)
        return file


def _remove_own(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child that ends leaves its parent's copies
        shutil.rmtree(folder, ignore_errors=True)
