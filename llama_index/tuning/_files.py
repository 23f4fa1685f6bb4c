"""Reading and writing data files: clear errors on the way in, atomic on the way out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index.tuning.artifacts import draft_beside
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
    except (ValueError, RecursionError) as exc:
        raise DatasetError(f"{path} holds JSON that cannot be read: {_why(exc)}") from exc


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
        except (ValueError, RecursionError) as exc:
            raise DatasetError(
                f"{path}, line {number} holds JSON that cannot be read: {_why(exc)}"
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


def _why(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)


def check_data_path(path: Any) -> Path:
    """A path to an ordinary file: no folder, pipe or device, which would fail late or never end.

    Raises:
        TypeError: it is no path.
        DatasetError: something else than a file is there.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a path, got {type(path).__name__}: {path!r:.100}")
    file = Path(path)
    if "\0" in str(file):
        raise DatasetError(f"path must not hold a null character, got {str(file)!r:.100}")
    if file.is_dir():
        raise DatasetError(f"{file} is a folder; a file is needed")
    if file.exists() and not file.is_file():
        raise DatasetError(f"{file} is no ordinary file")
    return file


def _read_text(path: PathLike) -> str:
    try:
        return check_data_path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{path} is not UTF-8 text: {exc.reason} at byte {exc.start}") from exc
