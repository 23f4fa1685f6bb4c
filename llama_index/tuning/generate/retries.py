"""When a call to an LLM is tried again, and after how long."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from tenacity import RetryCallState

from llama_index.tuning.errors import ReplyError

LONGEST_WAIT = 600.0
"""Seconds that one call waits for rate limits, in all."""

_HOPELESS = (401, 403, 404)
_REFUSED = (400, 405, 413, 422)


class BudgetSpent(Exception):  # noqa: N818 - ends one item, never seen by callers
    """An item was not asked: `max_calls` is reached."""


class RetryPolicy:
    """One call's tries. Waiting for a rate limit does not use them up.

    Args:
        limit: how often the call may fail for any other reason.
        wait: seconds before the second try; doubled each time, with jitter, 60 at most.
    """

    def __init__(self, limit: int, wait: float) -> None:
        self.limit = limit
        self.first_wait = wait
        self.failed = 0
        self.limited = 0
        self.waited = 0.0

    def again(self, error: BaseException) -> bool:
        """Count a failed try; whether an error of this kind can go away."""
        if status_of(error) == 429:
            self.limited += 1
        else:
            self.failed += 1
        if not isinstance(error, Exception) or isinstance(error, BudgetSpent):
            return False
        return status_of(error) not in _REFUSED and not hopeless(error)

    def stop(self, state: RetryCallState) -> bool:
        """Whether that was the last try."""
        return self.failed >= self.limit or self.waited > LONGEST_WAIT

    def wait(self, state: RetryCallState) -> float:
        """Seconds until the next try: what the server asks for, else a backoff."""
        error = _error(state)
        if isinstance(error, ReplyError):
            return 0.0  # the server is well; another reply may do
        asked = retry_after(error)
        if asked is None:
            tries = self.failed + self.limited
            asked = min(60.0, self.first_wait * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.5)
        if status_of(error) == 429:
            self.waited += asked
        return min(asked, LONGEST_WAIT)


def hopeless(error: BaseException) -> bool:
    """Whether every further call would fail too: a wrong key or model name, no credit."""
    status = status_of(error)
    said = f"{getattr(error, 'code', '')} {error}"
    return status in _HOPELESS or (status == 429 and "insufficient_quota" in said)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of any vendor's client."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            status = getattr(holder, name, None)
            if isinstance(status, int):
                return status
    return None


def retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait, from its `Retry-After` header."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return None
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        with contextlib.suppress(ValueError):  # a date instead of a number
            return max(0.0, float(value) * unit)
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError):
            continue
    return None


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    return error if error is not None else RuntimeError("no error")
