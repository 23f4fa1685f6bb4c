"""What a hosted job will train on, and cost, before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.hosted_file import TrainingFile

Tokenizer = Callable[[str], list[Any]]

_PER_MESSAGE = 3
"""Tokens around a message in OpenAI's chat format, and as many before the answer."""
_EPOCHS, _FEWEST, _MOST, _MAX_EPOCHS = 3, 100, 25_000, 25
"""OpenAI's published rule of thumb for `n_epochs="auto"`: examples seen, at least and at most."""


@dataclass(frozen=True, kw_only=True)
class JobEstimate:
    """Tokens and cost of a job; an estimate, the server's own count decides.

    Attributes:
        examples: conversations, or preference pairs.
        tokens: of the file, once; a pair counts as two sequences.
        longest: of the longest conversation.
        epochs: how often the file is gone through.
        epochs_assumed: `n_epochs` is the server's choice; `epochs` is OpenAI's rule of thumb.
        trained_tokens: tokens × epochs.
        price: of a million trained tokens, in your currency; None: not given.
        cost: trained tokens at that price, in its currency.
        tokenizer: what counted.
        images: images whose tokens are not counted.
    """

    examples: int
    tokens: int
    longest: int
    epochs: int
    epochs_assumed: bool
    trained_tokens: int
    price: float | None
    cost: float | None
    tokenizer: str
    images: int = 0

    def __str__(self) -> str:
        assumed = " (assumed)" if self.epochs_assumed else ""
        cost = "" if self.cost is None else f", about {self.cost:.4g} at {self.price} a million"
        images = f"; {self.images} images are not counted" if self.images else ""
        return (
            f"{self.examples} examples, {self.tokens} tokens, {self.epochs} epochs{assumed}: "
            f"{self.trained_tokens} trained tokens{cost}{images}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def estimate_job(
    file: TrainingFile,
    hyperparameters: Mapping[str, Any],
    *,
    price: float | None = None,
    tokenizer: Tokenizer | None = None,
    max_tokens: int | None = None,
) -> JobEstimate:
    """Count a file's tokens; nothing is sent.

    Args:
        file: the training file.
        hyperparameters: `n_epochs` is read.
        price: of a million trained tokens.
        tokenizer: text → tokens; LlamaIndex's own (cl100k) by default.
        max_tokens: longest conversation; what is longer would be cut by most servers.

    Raises:
        DatasetError: a conversation is longer than `max_tokens`, by line.
    """
    count, name = _counter(tokenizer)
    counted = [(number, _row_tokens(row, count)) for number, row in file.rows()]
    lengths = [parts for _, parts in counted]
    too_long = [
        f"line {number} has about {max(parts)} tokens, the limit is {max_tokens}"
        for number, parts in counted
        if max_tokens is not None and max(parts) > max_tokens
    ]
    if too_long:
        raise DatasetError("the data has conversations that are too long:", too_long)
    tokens = sum(map(sum, lengths))
    given = hyperparameters.get("n_epochs", "auto")
    epochs = _auto_epochs(len(lengths)) if given == "auto" else int(given)
    trained = tokens * epochs
    return JobEstimate(
        examples=len(lengths),
        tokens=tokens,
        longest=max(map(max, lengths), default=0),
        epochs=epochs,
        epochs_assumed=given == "auto",
        trained_tokens=trained,
        price=price,
        cost=None if price is None else trained * price / 1e6,
        tokenizer=name,
        images=file.content.count(b'"image_url": {') + file.content.count(b'"image_url":{'),
    )


def _counter(tokenizer: Tokenizer | None) -> tuple[Callable[[str], int], str]:
    if tokenizer is not None:
        given = tokenizer
        name = getattr(tokenizer, "__name__", type(tokenizer).__name__)
        return lambda text: len(given(text)), name
    from llama_index.core.utils import get_tokenizer

    own = get_tokenizer()
    return lambda text: len(own(text)), "LlamaIndex's default (cl100k)"


def _row_tokens(row: Mapping[str, Any], count: Callable[[str], int]) -> list[int]:
    """Tokens of each sequence of a line: one, or two for a preference."""
    if "messages" in row:
        return [_sequence(row["messages"], row.get("tools"), count)]
    if "input" not in row:  # a format that only the server knows
        return [count(json.dumps(row, ensure_ascii=False))]
    asked = row["input"]
    return [
        _sequence([*asked["messages"], *row[side]], asked.get("tools"), count)
        for side in ("preferred_output", "non_preferred_output")
    ]


def _sequence(messages: list[Any], tools: Any, count: Callable[[str], int]) -> int:
    total = _PER_MESSAGE + (count(json.dumps(tools, ensure_ascii=False)) if tools else 0)
    for message in messages:
        total += _PER_MESSAGE + sum(count(text) for text in _texts(message))
    return total


def _texts(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content") or ""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [message.get("role", ""), *(part.get("text") or "" for part in parts)]
    for call in message.get("tool_calls") or []:
        texts += [call["function"]["name"], call["function"]["arguments"]]
    return [text for text in (*texts, message.get("name")) if text]


def _auto_epochs(examples: int) -> int:
    if examples * _EPOCHS < _FEWEST:
        return min(_MAX_EPOCHS, -(-_FEWEST // max(1, examples)))
    if examples * _EPOCHS > _MOST:
        return max(1, _MOST // examples)
    return _EPOCHS
