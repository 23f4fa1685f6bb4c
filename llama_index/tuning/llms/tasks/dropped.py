"""A row that a task's dataset left out, and why."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index.tuning.datasets.chat import ChatDataset, ChatExample
from llama_index.tuning.errors import DatasetError


@dataclass(frozen=True)
class Dropped:
    """A row that was left out.

    Attributes:
        number: its place among the rows given, from 0.
        reason: what is wrong with it.
    """

    number: int
    reason: str


def kept_or_error(
    argument: str, kept: list[ChatExample], dropped: list[Dropped]
) -> tuple[ChatDataset, list[Dropped]]:
    """What a task's dataset function returns; an error with every reason where no row is left."""
    if not kept:
        raise DatasetError(
            f"{argument}: no row can be learnt from",
            [f"row {row.number}: {row.reason}" for row in dropped],
        )
    return ChatDataset(kept), dropped
