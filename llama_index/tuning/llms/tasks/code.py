"""Any language that a program can check: a dataset of answers that pass, and a score by passing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.dropped import Dropped
from llama_index.tuning.llms.tasks.replies import texts_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Check = Callable[[Mapping[str, Any]], str | None]
"""A row with its `answer` → what is wrong with it, None where nothing is."""


def checked_dataset(
    rows: Iterable[Mapping[str, Any]], *, check: Check
) -> tuple[ChatDataset, list[Dropped]]:
    """Conversations of the rows whose answer passes a check, and the others with their reasons.

    Args:
        rows: each with a `prompt` and its `answer`, and whatever else the check reads.
        check: gives None where the answer is right, else says what is wrong; `PythonCheck()` is
            one. An error that it raises ends the run: it is the check's own fault.

    Raises:
        DatasetError: a row without a prompt or an answer, or no answer that passes.

    Example:
        >>> rows = [{"prompt": "2+2?", "answer": "4"}, {"prompt": "2+3?", "answer": "five"}]
        >>> dataset, dropped = checked_dataset(
        ...     rows, check=lambda row: None if row["answer"].isdigit() else "no number"
        ... )
        >>> len(dataset), dropped
        (1, [Dropped(number=1, reason='no number')])
    """
    _check_callable(check)
    items = _read(rows, "prompt", "answer")
    verdicts = [_verdict(check, row) for row in items]
    dropped = [Dropped(n, reason) for n, reason in enumerate(verdicts) if reason is not None]
    if len(dropped) == len(items):
        raise DatasetError(
            "rows: no answer passes the check:", [f"row {d.number}: {d.reason}" for d in dropped]
        )
    conversations = [
        [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        for row, reason in zip(items, verdicts, strict=True)
        if reason is None
    ]
    return ChatDataset.from_messages(conversations), dropped


@dataclass(frozen=True)
class CheckScorer:
    """Scores an LLM by checking what it answers; made by `check_scorer`."""

    rows: list[Mapping[str, Any]]
    check: Check
    workers: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, llm: LLM) -> NDArray[np.float64]:
        """One 0 or 1 for each row, shape `(len(self),)`."""
        prompts = [row["prompt"] for row in self.rows]
        return self.score(texts_of(llm, prompts, workers=self.workers, **self.settings))

    def score(self, replies: Sequence[str]) -> NDArray[np.float64]:
        """The same for replies that are there already.

        Raises:
            ValueError: not one reply for each row.
        """
        if len(replies) != len(self):
            raise ValueError(f"replies: {len(self)} are asked for, got {len(replies)}")
        right = [
            _verdict(self.check, {**row, "answer": reply}) is None
            for row, reply in zip(self.rows, replies, strict=True)
        ]
        return np.array(right, dtype=np.float64)


def check_scorer(
    rows: Iterable[Mapping[str, Any]],
    *,
    check: Check,
    workers: int = 4,
    max_tokens: int | None = None,
) -> CheckScorer:
    """The share of held-out prompts whose answer passes, item by item; for `evaluate=`.

    Args:
        rows: each with a `prompt`, and what the check reads; an `answer` in it is not looked at.
        check: as for `checked_dataset`.
        workers: requests at a time to an LLM without `chat_batch`.
        max_tokens: of a reply; None leaves it to the LLM.

    Raises:
        DatasetError: a row without a prompt, or no rows.
    """
    _check_callable(check)
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ValueError(f"workers must be a whole number >= 1, got {workers!r}")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be >= 1, got {max_tokens}")
    settings = {} if max_tokens is None else {"max_tokens": max_tokens}
    return CheckScorer(_read(rows, "prompt"), check, workers, settings)


def _check_callable(check: Any) -> None:
    if not callable(check):
        raise TypeError(f"check must be a function of a row, got {check!r}")


def _verdict(check: Check, row: Mapping[str, Any]) -> str | None:
    found = check(row)
    if found is not None and not isinstance(found, str):
        raise TypeError(f"check must give None or what is wrong as a text, got {found!r}")
    return found


def _read(rows: Iterable[Any], *keys: str) -> list[Mapping[str, Any]]:
    if isinstance(rows, str | Mapping):
        raise TypeError(f"rows must be a list of mappings, got {type(rows).__name__}")
    items, faults = list(rows), []
    for number, row in enumerate(items):
        if not isinstance(row, Mapping):
            faults.append(f"row {number} must be a mapping with {', '.join(keys)}, got {row!r}")
            continue
        faults += [
            f"row {number}: {key} must be a text, got {row.get(key)!r}"
            for key in keys
            if not isinstance(row.get(key), str) or not row[key].strip()
        ]
    if faults:
        raise DatasetError("rows cannot be read:", faults)
    if not items:
        raise DatasetError("rows: there are none")
    return items
