"""A row that a task's dataset left out, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dropped:
    """A row that was left out.

    Attributes:
        number: its place among the rows given, from 0.
        reason: what is wrong with it.
    """

    number: int
    reason: str
