"""Running SQL that nobody has read: on SQLite, read-only, with a time limit."""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]

MAX_ROWS = 100_000
"""A query that finds more fails: a cross join would fill the memory within its time."""

_NOT_CODE = re.compile(
    r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL
)
_STEPS = 1_000
"""Instructions of SQLite's machine between two looks at the clock."""
_ALLOWED = frozenset(
    getattr(sqlite3, name)
    for name in ("SQLITE_SELECT", "SQLITE_READ", "SQLITE_FUNCTION", "SQLITE_RECURSIVE")
)


class QueryFailed(Exception):  # noqa: N818 - a query's fault, data to those who run it
    """A query that gave no rows to compare: its reason is the text."""


class Database:
    """A SQLite database to run untrusted queries on.

    Nothing but reading gets through: an authorizer refuses each statement that would write,
    attach another file or change a setting, whatever the connection may do.

    Args:
        given: path of a SQLite file, a SQLAlchemy engine of one, or LlamaIndex's `SQLDatabase`.
            An engine is used through its own connections, so that one in memory works.
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
        self._connect = _connector(given)
        try:
            self.run("SELECT 1 FROM sqlite_master")
        except QueryFailed as exc:
            raise ValueError(f"database: {given} cannot be read: {exc}") from None

    def run(self, sql: str) -> list[Row]:
        """The rows of a query.

        Raises:
            QueryFailed: it does not parse, would write, took too long or found too many rows.
        """
        end = time.monotonic() + self.time_limit
        with self._connect() as connection, _guarded(connection, end):
            try:
                with closing(connection.cursor()) as cursor:
                    rows = cursor.execute(sql).fetchmany(MAX_ROWS + 1)
                    returns = cursor.description is not None
            except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as exc:
                late = time.monotonic() >= end
                reason = f"it took longer than {self.time_limit:g} s" if late else str(exc)
                raise QueryFailed(reason) from exc
        if not returns:
            raise QueryFailed("it is no query: it gives no rows")
        if len(rows) > MAX_ROWS:
            raise QueryFailed(f"it finds more than {MAX_ROWS:,} rows")
        return [tuple(row) for row in rows]


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


def _connector(given: Any) -> Callable[[], Any]:
    if isinstance(given, str | PathLike):
        path = Path(fspath(given))
        if not path.is_file():
            raise FileNotFoundError(f"database: there is no file {path}")
        return lambda: closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True))
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
    return lambda: _borrowed(engine)


@contextmanager
def _borrowed(engine: Any) -> Iterator[Any]:
    with closing(engine.raw_connection()) as pooled:
        yield pooled.driver_connection


@contextmanager
def _guarded(connection: Any, end: float) -> Iterator[None]:
    """No statement but reading ones, and an end to each."""
    connection.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
    )
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
        # None takes an authorizer away from Python 3.11 on only.
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_OK)
