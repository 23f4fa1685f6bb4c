"""Tables that people have: rows of CSV, TSV, JSON, Excel or Parquet files, or of a DataFrame."""

from __future__ import annotations

import ast
import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import text_or_none, warn
from llama_index.tuning._files import (
    PathLike,
    ordinary_file,
    read_json,
    read_json_lines,
    read_text,
)
from llama_index.tuning.datasets.checks import corpus_of, listed_nodes
from llama_index.tuning.datasets.records import Parts
from llama_index.tuning.errors import DatasetError, MissingExtraError
from llama_index.tuning.text.passages import find_passages
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode


Table = PathLike | Iterable[Mapping[str, Any]] | Any
Row = dict[str, Any]

MOST_NODES = 5
"""A short answer that stands in more nodes than this says nothing about any of them."""
_WITH_PANDAS = {".xlsx": "read_excel", ".xls": "read_excel", ".parquet": "read_parquet"}


class RowsLeftOutWarning(UserWarning):
    """Rows of a table that cannot be used, counted by the reason."""


def read_table(table: Table, name: str = "table") -> list[Row]:
    """The rows of a file, a DataFrame or a list of objects; an empty cell is `None`."""
    if isinstance(table, str | PurePath):
        if not (found := _rows_of_file(Path(table))):
            raise DatasetError(f"{table} has no rows")
        return [_cleaned(row) for row in found]
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        return [_cleaned(row) for row in table.to_dict("records")]
    if not isinstance(table, Iterable) or isinstance(table, Mapping | bytes):
        raise TypeError(f"{name} must be a file, a DataFrame or rows, got {type(table).__name__}")
    rows = list(table)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"{name} must hold rows by column, such as {{'question': …, 'answer': …}}; row "
                f"{number} is {row!r:.200}"
            )
    return [_cleaned(row) for row in rows]


def _rows_of_file(path: Path) -> list[Mapping[str, Any]]:
    kind = ordinary_file(path).suffix.lower()
    if kind in (".csv", ".tsv", ".txt"):
        return _rows_of_text(path, "\t" if kind == ".tsv" else None)
    if kind == ".jsonl":
        return _objects([row for _, row in read_json_lines(path)], path)
    if kind == ".json":
        return _objects(read_json(path), path)
    if kind in _WITH_PANDAS:
        try:
            import pandas

            frame = getattr(pandas, _WITH_PANDAS[kind])(path)
        except ImportError as exc:
            library = exc.name or "pandas, openpyxl or pyarrow"
            raise MissingExtraError(f"reading {path.name}", library, "tables") from exc
        except Exception as exc:  # each reader has errors of its own, none of which names the file
            raise DatasetError(f"{path} is no table: {exc}") from exc
        rows: list[Mapping[str, Any]] = frame.to_dict("records")
        return rows
    raise ValueError(
        f"table must be a .csv, .tsv, .jsonl, .json, {', '.join(_WITH_PANDAS)} file, got {path}"
    )


def _rows_of_text(path: Path, delimiter: str | None) -> list[Mapping[str, Any]]:
    # Excel writes a byte-order mark, and semicolons where a comma is the decimal sign.
    text = read_text(path)
    head = text.partition("\n")[0]
    if delimiter is None:
        delimiter = max(",;\t", key=head.count)
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as exc:
        raise DatasetError(f"{path} is no table: {exc}") from exc


def _objects(data: Any, path: Path) -> list[Mapping[str, Any]]:
    if not isinstance(data, list) or not all(isinstance(row, Mapping) for row in data):
        raise DatasetError(f"{path} must hold objects with the columns as keys")
    return data


def _cleaned(row: Mapping[str, Any]) -> Row:
    return {str(key).strip(): _cell(value) for key, value in row.items() if key is not None}


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.tolist() if hasattr(value, "tolist") else value


def check_columns(rows: Sequence[Row], *names: str | None) -> None:
    """Every named column must be there.

    Raises:
        DatasetError: naming those that are missing and those that are there.
    """
    if not rows:
        raise DatasetError("the table has no rows")
    there = dict.fromkeys(key for row in rows for key in row)
    missing = [name for name in names if name is not None and name not in there]
    if missing:
        raise DatasetError(
            f"the table has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, there))}: rename one, or name it in from_table"
        )


def under_names(rows: Sequence[Row], *names: str | None) -> list[Row]:
    """The rows, with `Question` as `question` if that is named and no column has just that name."""
    there = {key for row in rows for key in row}
    meant = {name.casefold(): name for name in names if name is not None and name not in there}
    return [{meant.get(key.casefold(), key): value for key, value in row.items()} for row in rows]


def texts_in(value: Any) -> list[str]:
    """The texts of a cell: one, a list, or a list as ragas and pandas write it into CSV."""
    if value is None:
        return []
    if isinstance(value, str) and value[:1] + value[-1:] == "[]":
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return [value]
    if isinstance(value, list | tuple):
        return [str(item).strip() for item in value if item is not None and str(item).strip()]
    # Excel hands over the page "12" as the number 12.0.
    return [str(int(value) if isinstance(value, float) and value.is_integer() else value)]


def warn_of_left_out(what: str, rows: int, left_out: Counter[str]) -> None:
    """Say how many rows were left out, and why; all of them are an error."""
    left_out += Counter()
    faults = [
        f"{number} {'row' if number == 1 else 'rows'}: {reason}"
        for reason, number in left_out.most_common()
    ]
    if left_out.total() >= rows:
        raise DatasetError(f"no row of the table can be used for {what}:", faults)
    if left_out:
        warn(
            f"{left_out.total()} of {rows} rows are left out of {what} ({'; '.join(faults)})",
            RowsLeftOutWarning,
        )


def retrieval_of_table(
    table: Table, question: str, by: Mapping[str, str | None], nodes: Any, file: str | None
) -> Parts:
    """(queries, corpus, relevant_docs); see `RetrievalDataset.from_table`."""
    for name, column in {"question": question, **by, "file": file}.items():
        text_or_none(name, column)
    rows = under_names(read_table(table), question, *(by[kind] or kind for kind in by), file)
    check_columns(rows, question)
    given = {kind: column for kind, column in by.items() if column is not None}
    check_columns(rows, *given.values(), file)
    if not given:
        there = {key for row in rows for key in row}
        given = {kind: kind for kind in by if kind in there}
        given = dict(list(given.items())[:1])
    if len(given) != 1:
        raise ValueError(f"one of {', '.join(f'{kind}=' for kind in by)} must name a column")
    [(kind, column)] = given.items()
    check_columns(rows, question, column, file)
    if file is not None and kind != "page":
        raise ValueError("file= goes with page=")
    left_out: Counter[str] = Counter()
    asked = []
    for row in rows:
        query, wanted = texts_in(row.get(question)), texts_in(row.get(column))
        if not query or not wanted:
            left_out["no question" if not query else f"no {kind}"] += 1
        else:
            asked.append((query[0], wanted, row.get(file) if file else None))
    if nodes is None and kind != "passage":
        raise ValueError(f"{kind}= needs nodes=, those of the index; only passages stand alone")
    corpus, relevant = _located(kind, asked, nodes, left_out)
    warn_of_left_out("the retrieval dataset", len(rows), left_out)
    queries, found = _by_text([query for query, _, _ in asked], relevant)
    return queries, corpus, found


def _by_text(
    queries: Sequence[str], relevant: Sequence[Sequence[str]]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """One query for each text, relevant to what all of its rows name."""
    first: dict[str, str] = {}
    texts: dict[str, str] = {}
    found: dict[str, dict[str, None]] = {}
    for number, (query, ids) in enumerate(zip(queries, relevant, strict=True)):
        if ids:
            key = first.setdefault(normalise(query), f"q{number}")
            texts.setdefault(key, query)
            found.setdefault(key, {}).update(dict.fromkeys(ids))
    return texts, {key: list(ids) for key, ids in found.items()}


def _located(
    kind: str, asked: list[tuple[str, list[str], Any]], nodes: Any, left_out: Counter[str]
) -> tuple[dict[str, str], list[list[str]]]:
    """The corpus, and for each question the ids of what its row names."""
    if nodes is None:
        ids: dict[str, str] = {}
        relevant = [
            [ids.setdefault(text, f"p{len(ids)}") for text in wanted] for _, wanted, _ in asked
        ]
        return {id_: text for text, id_ in ids.items()}, relevant
    nodes = listed_nodes(nodes)
    corpus = corpus_of(nodes)
    if kind == "node_id":
        found = [[id_ for id_ in wanted if id_ in corpus] for _, wanted, _ in asked]
        left_out["its node id is not among the nodes"] += sum(not ids for ids in found)
    elif kind == "page":
        found = [_on_page(nodes, wanted, file) for _, wanted, file in asked]
        left_out["no node is of its page"] += sum(not ids for ids in found)
    else:
        found = _holding(kind, [wanted for _, wanted, _ in asked], nodes, left_out)
    return corpus, found


def _holding(
    kind: str, asked: list[list[str]], nodes: Sequence[BaseNode], left_out: Counter[str]
) -> list[list[str]]:
    places = find_passages({text: text for wanted in asked for text in wanted}, nodes)
    found = []
    for wanted in asked:
        ids = [id_ for text in wanted for id_ in places[text].ids]
        if not ids:
            left_out[f"no node holds its {kind}"] += 1
        elif kind == "answer" and len(ids) > MOST_NODES:
            left_out[f"its answer stands in more than {MOST_NODES} nodes"] += 1
            ids = []
        found.append(ids)
    return found


def _on_page(nodes: Sequence[BaseNode], pages: list[str], file: Any) -> list[str]:
    wanted = {page.casefold() for page in pages}
    found, files = [], set()
    for node in nodes:
        page = node.metadata.get("page_label", node.metadata.get("page"))
        name = node.metadata.get("file_name") or node.metadata.get("file_path") or ""
        if page is None or not wanted.intersection(map(str.casefold, texts_in(page))):
            continue
        if file is None or PurePath(str(name)).name == PurePath(str(file)).name:
            found.append(node.node_id)
            files.add(name)
    if len(files) > 1:
        raise DatasetError(
            f"page {pages[0]!r} is in {len(files)} files ({', '.join(sorted(files)[:3])}); file= "
            "must name the column that says which"
        )
    return found
