"""What became of each item of a run: a result, a failure kept as data, or not asked."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

R = TypeVar("R")

_SECRET = re.compile(r"(?i)\b(sk-|key-|bearer\s+)[\w.*-]{6,}")


@dataclass(frozen=True)
class Failure:
    """One item that failed.

    Args:
        id: of the node, query or pair.
        step: what was asked for it: questions, verify, …
        error: the type of the last error.
        message: its message, without API keys.
        attempts: how often it was tried.
    """

    id: str
    step: str
    error: str
    message: str
    attempts: int = 1

    @classmethod
    def of(cls, id_: str, step: str, error: BaseException, attempts: int) -> Failure:
        """From the error that ended it."""
        message = _SECRET.sub(r"\1…", str(error) or "no message")[:1000]
        return cls(id_, step, type(error).__name__, message, attempts)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass
class Outcomes(Generic[R]):
    """Results by item id, in the items' order; failures; the ids that a budget left out; the
    number of requests that were sent."""

    results: dict[str, R] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    requests: int = 0
