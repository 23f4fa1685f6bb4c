"""The file that a hosted job learns from: its bytes, their hash, and what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.tuning.datasets import _chat_formats as formats
from llama_index.tuning.datasets._files import PathLike
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.hosted_options import Method

FORMATS = {"supervised": "openai", "dpo": "openai-preference"}


@dataclass(frozen=True)
class TrainingFile:
    """What is uploaded.

    Attributes:
        content: JSON Lines, as they are sent.
        stem: what the user calls it.
    """

    content: bytes
    stem: str

    @property
    def sha256(self) -> str:
        """The content's hash: the same data is uploaded once."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def name(self) -> str:
        """The name at the server, which finds the file again after a lost reply."""
        kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in self.stem)[:40]
        return f"{kept or 'data'}-{self.sha256[:32]}.jsonl"

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number, object) for each line; blank ones are skipped.

        Raises:
            DatasetError: a line is no JSON object.
        """
        for number, line in enumerate(self.content.split(b"\n"), start=1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                row = json.loads(text)
            except ValueError as exc:  # no JSON, or no UTF-8
                raise DatasetError(f"{self.stem}, line {number} is not valid JSON: {exc}") from exc
            if not isinstance(row, dict):
                kind = type(row).__name__
                raise DatasetError(f"{self.stem}, line {number} must be an object, got {kind}")
            yield number, row


def training_file(
    data: PathLike | ChatDataset, method: Method, *, min_examples: int, validate: bool, name: str
) -> TrainingFile:
    """Read and check the data.

    Args:
        data: a JSON Lines file, sent as it is, or a dataset.
        method: decides the format.
        min_examples: fewer are an error.
        validate: check every line of a file; a dataset always is.
        name: the argument's name, for messages.

    Raises:
        DatasetError: naming each faulty line and field.
    """
    if isinstance(data, ChatDataset):
        _check_count(name, len(data), min_examples)
        lines = (json.dumps(line, ensure_ascii=False) for line in data.lines(FORMATS[method]))
        content = "".join(f"{line}\n" for line in lines).encode()
        return TrainingFile(content, data.fingerprint())
    path = Path(data)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: there is no file {str(path)!r}")
    file = TrainingFile(path.read_bytes(), path.stem)
    if not file.content.strip():
        raise DatasetError(f"{name}: {path} is empty")
    if validate:
        _check_lines(file, path, method, min_examples, name)
    return file


def shared_lines(training: TrainingFile, validation: TrainingFile) -> int:
    """How many lines of the validation file the training file holds too."""
    learnt = {line.strip() for line in training.content.splitlines()}
    return sum(line.strip() in learnt for line in validation.content.splitlines() if line.strip())


def _check_lines(
    file: TrainingFile, path: Path, method: Method, min_examples: int, name: str
) -> None:
    dataset = ChatDataset.from_jsonl(path)  # names each faulty line and field
    wanted = FORMATS[method]
    wrong = [
        f"line {number} has the format {formats.told(row)!r}, method {method!r} needs {wanted!r}"
        for number, row in file.rows()
        if formats.told(row) != wanted
    ]
    if wrong:
        raise DatasetError(f"{name}: {path} has faults:", wrong)
    _check_count(name, len(dataset), min_examples)


def _check_count(name: str, count: int, least: int) -> None:
    if count < least:
        raise DatasetError(
            f"{name}: {count} examples, at least {least} are needed; "
            "min_examples= sets another limit, which the server may not share"
        )
