"""How a run asks: how calls are made, how many at once, how often, and within which budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llama_index.tuning._checks import check_counts, number, plain_fields, positive, whole_number

OnFailure = Literal["continue", "fail"]
WORKERS = 8
"""Concurrent calls, unless a run says otherwise."""


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """How one call to an LLM is made."""

    retry_wait: float = 1.0
    """Seconds before the second try; doubled each time. A server's `Retry-After` goes first."""
    timeout: float | None = 300.0
    """Seconds that one call may take; `None` leaves it to the LLM."""
    structured: bool | None = None
    """Ask by function calling; by default if the LLM says that it can."""

    def __post_init__(self) -> None:
        plain_fields(self)
        number("retry_wait", self.retry_wait, 0)
        if self.timeout is not None:
            positive("timeout", self.timeout)


@dataclass(frozen=True, kw_only=True)
class RunOptions(CallOptions):
    """How a run of many calls is made: `run=` of every function that asks an LLM or a judge.

    Every finished call is kept at once in a file beside the function's `output_path`; the same
    call of the function goes on from there after an error, Ctrl-C or kill -9.

    Example:
        >>> RunOptions(num_workers=32, max_calls=1000).retry_limit
        3
    """

    num_workers: int | None = None
    """Concurrent calls: 8 by default; 1 by default for a local model that gains nothing by more."""
    retry_limit: int = 3
    """How often a call may fail; waiting for a rate limit does not count."""
    max_calls: int | None = None
    """Requests that may be sent, tries included; what is beyond them is not asked."""
    on_failure: OnFailure = "continue"
    """`"continue"` keeps what failed in the result's `failures`; `"fail"` raises."""
    save_every: int = 500
    """Finished calls between two flushes of the run's file to the disk itself. Each is written at
    once; this only matters if the machine loses power."""
    verbose: bool = True
    """Log each failure as a warning."""
    show_progress: bool = False
    """Show bars."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(retry_limit=self.retry_limit, save_every=self.save_every)
        if self.num_workers is not None:
            check_counts(num_workers=self.num_workers)
        if self.max_calls is not None:
            whole_number("max_calls", self.max_calls, 0)
        if self.on_failure not in ("continue", "fail"):
            raise ValueError(
                f"unknown on_failure {self.on_failure!r}; choose one of: continue, fail"
            )

    @property
    def workers(self) -> int:
        """Concurrent calls."""
        return WORKERS if self.num_workers is None else self.num_workers
