"""Text-to-SQL: a dataset of queries that run, and a score by what a query finds.

Running SQL that nobody has read: on SQLite, read-only, with limits of time and memory.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._checks import plain_arguments, whole_number
from llama_index.tuning.asking.results import Dropped
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.knowledge import texts_of
from llama_index.tuning.llms.tasks.sql_worker import SQLRefused, SQLWorker, files_of

if TYPE_CHECKING:
    from llama_index.core import SQLDatabase
    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate


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
    and has a limit of memory if the system knows one. Nothing but reading gets through: an
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
        self._files = files_of(given)
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


WITH_SCHEMA = "Write one {dialect} query that answers the question.\n\n{schema}\n\n{query_str}"
WITHOUT_SCHEMA = "{query_str}"


@plain_arguments
def text_to_sql_prompt(*, schema: bool = True) -> BasePromptTemplate:
    """The prompt to train on and to serve: give the same one to both.

    Args:
        schema: whether the tables are described in it. A model tuned for one database learns its
            schema from the queries, and answers faster without.

    Example:
        >>> text_to_sql_prompt(schema=False).format(query_str="How many cities?")
        'How many cities?'
    """
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.prompts.prompt_type import PromptType

    text = WITH_SCHEMA if schema else WITHOUT_SCHEMA
    return PromptTemplate(text, prompt_type=PromptType.TEXT_TO_SQL)


def sql_messages(
    question: str,
    prompt: BasePromptTemplate,
    *,
    schema: str = "",
    dialect: str = "sqlite",
) -> list[dict[str, Any]]:
    """The messages that `NLSQLTableQueryEngine` sends for a question, in OpenAI's shape."""
    messages = prompt.format_messages(query_str=question, schema=schema, dialect=dialect)
    return [{"role": m.role.value, "content": m.content or ""} for m in messages]


def schema_text(database: SQLDatabase, tables: Sequence[str] | None = None) -> str:
    """The tables as `NLSQLTableQueryEngine` describes them.

    Args:
        database: LlamaIndex's.
        tables: the engine's `tables=`, in its order; all usable ones by default.

    Raises:
        ValueError: a table that is not in the database.
    """
    usable = list(database.get_usable_table_names())
    unknown = [name for name in tables or () if name not in usable]
    if unknown:
        raise ValueError(f"tables: {unknown[0]!r} is not in the database; it has: {usable}")
    return "\n\n".join(
        database.get_single_table_info(name) for name in (usable if tables is None else tables)
    )


@plain_arguments
def sql_dataset(
    rows: Iterable[Mapping[str, Any]],
    database: Any,
    *,
    prompt: BasePromptTemplate | None = None,
    tables: Sequence[str] | None = None,
    time_limit: float = 5.0,
    allow_empty: bool = True,
) -> tuple[ChatDataset, list[Dropped]]:
    """Conversations of the rows whose query runs, and the others with their reasons.

    Each query is run, read-only and within a time limit, before anything is learnt from it.

    Args:
        rows: each with a `question` and its `sql`.
        database: path of a SQLite file, a SQLAlchemy engine of one, or LlamaIndex's `SQLDatabase`.
        prompt: how a question is put, `text_to_sql_prompt()` by default. Give the same one to
            `NLSQLTableQueryEngine(text_to_sql_prompt=...)`.
        tables: the tables that the prompt describes; all by default.
        time_limit: seconds that one query may take.
        allow_empty: keep queries that find nothing.

    Raises:
        DatasetError: a row without a question or a query, or no query that runs.
        ValueError: no SQLite database, a limit that is not positive, an unknown table.
    """
    items = _items(rows)
    runner = Database(database, time_limit)
    ask = _asker(database, prompt, tables)
    conversations, dropped = [], []
    for number, (question, sql) in enumerate(items):
        try:
            found = runner.run(sql)
        except QueryFailed as exc:
            dropped.append(Dropped(number, f"the query fails: {exc}"))
            continue
        if not found and not allow_empty:
            dropped.append(Dropped(number, "the query finds nothing"))
            continue
        conversations.append([*ask(question), {"role": "assistant", "content": sql}])
    if not conversations:
        raise DatasetError(
            "rows: no query can be learnt from:", [f"row {d.number}: {d.reason}" for d in dropped]
        )
    return ChatDataset.from_messages(conversations), dropped


@dataclass(frozen=True)
class ExecutionScorer:
    """Scores an LLM by running what it writes: 1 if it finds what the gold query finds.

    Made by `execution_scorer`; an engine's `evaluate=` or `protect=` takes it.

    Attributes:
        questions: what is asked.
        gold: what each one's query finds.
        ordered: whether the order of its rows counts.
        left_out: rows that cannot be scored, and why.
    """

    questions: list[str]
    gold: list[list[Row]]
    ordered: list[bool]
    left_out: list[Dropped]
    conversations: list[list[dict[str, Any]]] = field(repr=False)
    database: Database = field(repr=False)
    workers: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.questions)

    def __call__(self, llm: LLM) -> NDArray[np.float64]:
        """One 0 or 1 for each question, shape `(len(self),)`; a failing query is a 0."""
        replies = texts_of(llm, self.conversations, workers=self.workers, **self.settings)
        return self.score(replies)

    def score(self, replies: Sequence[str]) -> NDArray[np.float64]:
        """The same for replies that are there already.

        Raises:
            ValueError: not one reply for each question.
        """
        if len(replies) != len(self):
            raise ValueError(f"replies: {len(self)} are asked for, got {len(replies)}")
        places = range(len(self))
        return np.array([self._right(n, replies[n]) for n in places], dtype=np.float64)

    def _right(self, number: int, reply: str) -> bool:
        try:
            found = self.database.run(sql_of(reply))
        except QueryFailed:
            return False
        return same_rows(found, self.gold[number], in_order=self.ordered[number])


@plain_arguments
def execution_scorer(
    rows: Iterable[Mapping[str, Any]],
    database: Any,
    *,
    prompt: BasePromptTemplate | None = None,
    tables: Sequence[str] | None = None,
    time_limit: float = 5.0,
    allow_empty: bool = False,
    workers: int = 4,
    max_tokens: int | None = None,
) -> ExecutionScorer:
    """Execution accuracy on held-out rows, item by item.

    The order of rows counts if the gold query has an ORDER BY of its own; columns count in
    their order, their names do not.

    Args:
        rows: each with a `question` and its gold `sql`.
        database: as for `sql_dataset`.
        prompt: the one trained on.
        tables: as for `sql_dataset`.
        time_limit: seconds that one query may take.
        allow_empty: score rows whose gold query finds nothing, too; any query that finds nothing
            is right there. By default they are in `left_out`.
        workers: requests at a time to an LLM without `chat_batch`.
        max_tokens: of a reply; None leaves it to the LLM.

    Raises:
        DatasetError: a row without a question or a query, a gold query that fails, or no row left.
    """
    workers = whole_number("workers", workers, 1)
    if max_tokens is not None:
        max_tokens = whole_number("max_tokens", max_tokens, 1)
    items = _items(rows)
    runner = Database(database, time_limit)
    ask = _asker(database, prompt, tables)
    scored, left_out, faults = [], [], []
    for number, (question, sql) in enumerate(items):
        try:
            gold = runner.run(sql)
        except QueryFailed as exc:
            faults.append(f"row {number}: {exc}")
            continue
        if gold or allow_empty:
            scored.append((question, gold, asks_for_order(sql)))
        else:
            left_out.append(Dropped(number, "the gold query finds nothing"))
    if faults:
        raise DatasetError("rows: a gold query fails:", faults)
    if not scored:
        raise DatasetError("rows: no gold query finds anything; there is nothing to score")
    questions, golds, ordered = map(list, zip(*scored, strict=True))
    return ExecutionScorer(
        questions,
        golds,
        ordered,
        left_out,
        [ask(question) for question in questions],
        runner,
        workers,
        {} if max_tokens is None else {"max_tokens": max_tokens},
    )


def sql_of(reply: str) -> str:
    """The query in a reply, as `NLSQLTableQueryEngine` reads it.

    Example:
        >>> sql_of("SQLQuery: SELECT 1\\nSQLResult: 1")
        'SELECT 1'
    """
    from llama_index.core.indices.struct_store.sql_retriever import DefaultSQLParser
    from llama_index.core.schema import QueryBundle

    return DefaultSQLParser().parse_response_to_sql(without_thoughts(reply), QueryBundle(""))


def _items(rows: Iterable[Any]) -> list[tuple[str, str]]:
    items, faults = [], []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            faults.append(f"row {number} must be a mapping with question and sql, got {row!r}")
            continue
        wrong = [k for k in ("question", "sql") if not _is_text(row.get(k))]
        faults += [f"row {number}: {k} must be a text, got {row.get(k)!r}" for k in wrong]
        if not wrong:
            items.append((row["question"], row["sql"]))
    if faults:
        raise DatasetError("rows cannot be read:", faults)
    if not items:
        raise DatasetError("rows: there are none")
    return items


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _asker(database: Any, prompt: BasePromptTemplate | None, tables: Sequence[str] | None) -> Any:
    """question → messages, with the schema read once and only if the prompt shows it."""
    prompt = text_to_sql_prompt() if prompt is None else prompt
    names = getattr(prompt, "template_vars", None)
    if names is None:
        raise TypeError(f"prompt must be a LlamaIndex prompt template, got {prompt!r}")
    if "query_str" not in names:
        raise ValueError(f"prompt must have a place {{query_str}} for the question, has {names}")
    schema = schema_text(_sql_database(database), tables) if "schema" in names else ""
    return lambda question: sql_messages(question, prompt, schema=schema)


def _sql_database(given: Any) -> SQLDatabase:
    from llama_index.core import SQLDatabase

    if isinstance(given, SQLDatabase):
        return given
    if hasattr(given, "raw_connection"):
        return SQLDatabase(given)
    from sqlalchemy import create_engine

    return SQLDatabase(create_engine(f"sqlite:///{given}"))
