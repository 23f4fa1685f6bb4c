"""What a hosted job learns from: the files, checked before anything is sent, and their tokens."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_index.tuning._checks import folder_path
from llama_index.tuning._files import PathLike
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats import chat as formats
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.hosted.options import JobOptions

logger = logging.getLogger(__name__)

DataLike = PathLike | ChatDataset
Tokenizer = Callable[[str], list[Any]]

_FORMATS = {"supervised": "openai", "dpo": "openai-preference"}
_PER_MESSAGE = 3
"""Tokens around a message in OpenAI's chat format, and as many before the answer."""
_AUTO_EPOCHS = 3
"""What most servers choose if `n_epochs` is left to them."""


@dataclass(frozen=True)
class RunFiles:
    """What a run uploads: JSON Lines, as they are sent.

    Attributes:
        training: what the model learns from.
        validation: what the server measures its loss on.
        key: the run's.
    """

    training: bytes
    validation: bytes | None
    key: str

    def named(self) -> dict[str, bytes]:
        """Name at the server → content; the key in the name finds a file, and its job, again."""
        files = {f"train-{self.key}.jsonl": self.training}
        if self.validation is not None:
            files[f"validation-{self.key}.jsonl"] = self.validation
        return files


def read_files(
    options: JobOptions,
    data: DataLike,
    validation_data: DataLike | None,
    *,
    validate: bool,
    min_examples: int,
) -> RunFiles:
    """Read and check the data; nothing is sent.

    Args:
        options: the method decides the format.
        data: a JSON Lines file, sent as it is, or a dataset.
        validation_data: likewise.
        validate: check every line of a file; a dataset always is.
        min_examples: fewer training examples are an error.

    Raises:
        DatasetError: naming each faulty line and field.
    """
    wanted = _FORMATS[options.method]
    training = _content("data_path", data, wanted, min_examples, validate)
    examples = data.examples if isinstance(data, ChatDataset) else []
    worse = sum(example.rejected is not None for example in examples)
    if options.method == "supervised" and worse:
        logger.warning(
            "%d conversations of data_path have a worse answer, which is not sent: method='dpo' "
            "learns from it",
            worse,
        )
    validation = None
    if validation_data is not None:
        validation = _content("validation_data", validation_data, wanted, 1, validate)
        learnt = {line.strip() for line in training.splitlines()}
        shared = sum(line.strip() in learnt for line in validation.splitlines() if line.strip())
        if shared:
            logger.warning(
                "%d lines of validation_data are in data_path too: the server's validation loss "
                "will look better than it is",
                shared,
            )
    return RunFiles(training, validation, options.run_key(training, validation))


def check_data(**given: Any) -> None:
    """Each is a path or a dataset, or None."""
    for name, data in given.items():
        if isinstance(data, str | os.PathLike):
            folder_path(name, data)
        elif data is not None and not isinstance(data, ChatDataset):
            kind = type(data).__name__
            raise TypeError(f"{name} must be a path or a ChatDataset, got {kind}")


def _content(name: str, data: DataLike, wanted: str, least: int, validate: bool) -> bytes:
    if isinstance(data, ChatDataset):
        lines = (json.dumps(line, ensure_ascii=False) for line in data.lines(wanted))
        content, count = "".join(f"{line}\n" for line in lines).encode(), len(data)
    else:
        path = Path(data)
        if not path.is_file():
            raise FileNotFoundError(f"{name}: there is no file {str(path)!r}")
        content = path.read_bytes()
        if not content.strip():
            raise DatasetError(f"{name}: {path} is empty")
        rows = _rows(name, content)
        if not validate:
            return content
        count = len(ChatDataset.from_jsonl(path))  # names each faulty line and field
        told = ((number, formats.told(row)) for number, row in rows)
        wrong = [f"line {number} has the format {it!r}" for number, it in told if it != wanted]
        if wrong:
            raise DatasetError(f"{name}: {path} must have the format {wanted!r}:", wrong)
    if count < least:
        raise DatasetError(
            f"{name}: {count} examples, at least {least} are needed; "
            "min_examples= sets another limit, which the server may not share"
        )
    return content


def _rows(name: str, content: bytes) -> list[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line that is not blank."""
    rows = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:  # no JSON, or no UTF-8
            raise DatasetError(f"{name}: line {number} is not valid JSON: {exc}") from exc
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DatasetError(f"{name}: line {number} must be an object, got {kind}")
        rows.append((number, row))
    return rows


@dataclass(frozen=True, kw_only=True)
class JobEstimate:
    """Tokens and cost of a job; an estimate, the server's own count decides.

    Attributes:
        examples: conversations, or preference pairs.
        tokens: of the file, once; a pair counts as two sequences, images are not counted.
        longest: of the longest conversation; servers cut one that is too long in silence.
        epochs: how often the file is gone through.
        epochs_assumed: `n_epochs` is left to the server; most choose 3.
        trained_tokens: tokens × epochs.
        price: of a million trained tokens, in your currency; None: not given.
        cost: trained tokens at that price, in its currency.
    """

    examples: int
    tokens: int
    longest: int
    epochs: int
    epochs_assumed: bool
    trained_tokens: int
    price: float | None = None
    cost: float | None = None

    def __str__(self) -> str:
        assumed = " (assumed)" if self.epochs_assumed else ""
        cost = "" if self.cost is None else f", about {self.cost:.4g} at {self.price} a million"
        return (
            f"{self.examples} examples, {self.tokens} tokens, {self.epochs} epochs{assumed}: "
            f"{self.trained_tokens} trained tokens{cost}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def estimate_job(
    training: bytes, epochs: int | str, price: float | None, tokenizer: Tokenizer | None
) -> JobEstimate:
    """Count a training file's tokens; nothing is sent.

    Args:
        training: its content.
        epochs: `n_epochs`, or `"auto"`.
        price: of a million trained tokens.
        tokenizer: text → tokens; LlamaIndex's own (cl100k) by default.
    """
    if tokenizer is None:
        from llama_index.core.utils import get_tokenizer

        tokenizer = get_tokenizer()
    lengths = [_row_tokens(row, tokenizer) for _, row in _rows("data_path", training)]
    tokens = sum(map(sum, lengths))
    passes = _AUTO_EPOCHS if epochs == "auto" else int(epochs)
    return JobEstimate(
        examples=len(lengths),
        tokens=tokens,
        longest=max(map(max, lengths), default=0),
        epochs=passes,
        epochs_assumed=epochs == "auto",
        trained_tokens=tokens * passes,
        price=price,
        cost=None if price is None else tokens * passes * price / 1e6,
    )


def _row_tokens(row: Mapping[str, Any], tokenizer: Tokenizer) -> list[int]:
    """Tokens of each sequence of a line: one, or two for a preference."""
    if "messages" in row:
        return [_sequence(row["messages"], row.get("tools"), tokenizer)]
    if "input" not in row:  # a format that only the server knows
        return [len(tokenizer(json.dumps(row, ensure_ascii=False)))]
    asked = row["input"]
    return [
        _sequence([*asked["messages"], *row[side]], asked.get("tools"), tokenizer)
        for side in ("preferred_output", "non_preferred_output")
    ]


def _sequence(messages: list[Any], tools: Any, tokenizer: Tokenizer) -> int:
    texts: list[Any] = [json.dumps(tools, ensure_ascii=False)] if tools else []
    for message in messages:
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [message["role"], message.get("name"), *(part.get("text") for part in parts)]
        for call in message.get("tool_calls") or []:
            texts += [call["function"]["name"], call["function"]["arguments"]]
    return _PER_MESSAGE * (len(messages) + 1) + sum(len(tokenizer(text)) for text in texts if text)
