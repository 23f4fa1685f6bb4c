"""Running SQL that nobody has read: on SQLite, read-only, with limits of time and memory."""

from __future__ import annotations

import math
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from llama_index.tuning.llms.tasks.sql_worker import Files, SQLRefused, SQLWorker

Row = tuple[Any, ...]

_NOT_CODE = re.compile(
    r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL
)


class QueryFailed(Exception):  # noqa: N818 - a query's fault, data to those who run it
    """A query that gave no rows to compare: its reason is the text."""


class Database:
    """A SQLite database to run untrusted queries on.

    Queries run in a process of their own that opens the file for reading, or a copy of what an
    engine holds in memory. It ends one that takes too long, even within a single function of SQL,
    and has a limit of memory where the system knows one. Nothing but reading gets through: an
    authorizer refuses each statement that would write, attach another file or change a setting.
    The app's own connections are not touched; functions that an app adds to SQLite are not there.

    Args:
        given: path of a SQLite file, a SQLAlchemy engine of one, or LlamaIndex's `SQLDatabase`.
        time_limit: seconds that one query may take.

    Raises:
        TypeError: it is none of them.
        ValueError: it is of another dialect, no SQLite file, or the limit is not positive.
        FileNotFoundError: no file is there.
    """

    def __init__(self, given: Any, time_limit: float = 5.0) -> None:
        if not isinstance(time_limit, int | float) or isinstance(time_limit, bool):
            raise TypeError(f"time_limit must be a number of seconds, got {time_limit!r}")
        if not (math.isfinite(time_limit) and time_limit > 0):
            raise ValueError(f"time_limit must be a finite number of seconds > 0, got {time_limit}")
        self.time_limit = time_limit
        self._files = _files_of(given)
        self._worker = SQLWorker(time_limit)
        try:
            self.run("SELECT 1 FROM sqlite_master")
        except QueryFailed as exc:
            raise ValueError(f"database: {given} cannot be read: {exc}") from None

    def run(self, sql: str) -> list[Row]:
        """The rows of a query.

        Raises:
            QueryFailed: it does not parse, would write, took too long or found too many rows.
        """
        try:
            return self._worker.run(self._files(), sql)
        except SQLRefused as exc:
            raise QueryFailed(str(exc)) from None


def same_rows(found: list[Row], gold: list[Row], *, in_order: bool) -> bool:
    """Whether two results are equal: as lists, or as bags of rows.

    Floats are compared to ten significant digits, since a sum depends on its order.

    Example:
        >>> same_rows([(1,), (2,)], [(2,), (1.0,)], in_order=False)
        True
        >>> same_rows([(1,), (2,)], [(2,), (1,)], in_order=True)
        False
    """
    left, right = [list(map(_rounded, rows)) for rows in (found, gold)]
    return left == right if in_order else Counter(left) == Counter(right)


def asks_for_order(sql: str) -> bool:
    """Whether the query's own rows are ordered; an ORDER BY in a subquery does not count.

    Example:
        >>> asks_for_order("SELECT name FROM city ORDER BY size DESC")
        True
        >>> asks_for_order("SELECT name FROM (SELECT * FROM city ORDER BY size LIMIT 1)")
        False
    """
    text = _NOT_CODE.sub(" ", sql)
    while (inner := re.sub(r"\([^()]*\)", " ", text)) != text:
        text = inner
    return re.search(r"\border\s+by\b", text, re.I) is not None


def _rounded(row: Row) -> Row:
    return tuple(float(f"{v:.10g}") if isinstance(v, float) else v for v in row)


def _files_of(given: Any) -> Callable[[], Files]:
    """What gives the files of a database, by schema; made anew where it is in memory."""
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
    """The files of an engine's database; those in memory are copied where they have changed."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._folder = tempfile.TemporaryDirectory(prefix="sql-copy-")
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
            file = str(
                Path(self._folder.name) / f"{name}-{len(list(Path(self._folder.name).iterdir()))}"
            )
            with closing(sqlite3.connect(file)) as copy:
                connection.backup(copy, name=name)
            self._copies[name] = (seen, file)
        return file
