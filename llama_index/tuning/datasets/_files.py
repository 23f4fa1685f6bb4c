"""Reading and writing data files: clear errors on the way in, atomic on the way out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index.tuning._locks import draft_beside
from llama_index.tuning.errors import DatasetError

PathLike = str | os.PathLike[str]


def read_json(path: PathLike) -> Any:
    """The JSON value in a file; a file that is no JSON names the place where it breaks."""
    text = _read_text(path)
    if not text.strip():
        raise DatasetError(f"{path} is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise DatasetError(
            f"{path} is not valid JSON, or is truncated: {exc.msg} "
            f"at line {exc.lineno}, column {exc.colno}"
        ) from exc


def read_json_lines(path: PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line of a JSON Lines file; blank lines are skipped."""
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as exc:
            raise DatasetError(
                f"{path}, line {number} is not valid JSON, or is truncated: {exc.msg}"
            ) from exc
        if not isinstance(row, dict):
            raise DatasetError(
                f"{path}, line {number} must be a JSON object, got {type(row).__name__}"
            )
        yield number, row


def write_text_atomic(path: PathLike, text: str) -> None:
    """Write a whole file or nothing: to a temporary file beside it, then rename."""
    target = Path(path)
    with draft_beside(target, folder=False) as draft:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)
        os.replace(draft, target)


def _read_text(path: PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{path} is not UTF-8 text: {exc.reason} at byte {exc.start}") from exc
