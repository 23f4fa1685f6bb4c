"""Requests to a server of hosted jobs: which are tried again, and how refusals are told."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from llama_index.tuning.errors import HostedError
from llama_index.tuning.generate.retries import RetryPolicy, hopeless, retry_after, status_of

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 5
MOST_LIMITS = 100
"""So often one request waits for rate limits, however short."""
LONGEST_PAUSE = 60.0
"""Seconds between two tries where the server does not say."""
REQUEST_TIMEOUT = 60.0
"""Seconds for one request, uploads excepted."""
MOST_LISTED = 2000
"""So many of the server's files, or jobs, are looked through."""
_UNSUPPORTED = (404, 405, 501)


@dataclass(frozen=True)
class Clock:
    """Time, as a test may want to scale it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    today: Callable[[], date] = date.today


class Garbage(Exception):  # noqa: N818 - tried again, then translated
    """A reply that is not what was asked for: a proxy's page, half a body."""


@dataclass
class Calls:
    """Sends requests through one client, each tried several times.

    Args:
        client: its own retries are switched off: it would repeat a request that made a job.
        address: of the server, for messages.
        secrets: texts that no message may hold.
        clock: time.
    """

    client: OpenAI
    address: str
    secrets: list[str] = field(default_factory=list, repr=False)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.client = self.client.with_options(max_retries=0)
        self.quick: OpenAI = self.client.with_options(timeout=REQUEST_TIMEOUT)

    def send(self, what: str, request: Callable[[], T], policy: Tries | None = None) -> T:
        """The reply to a request.

        Args:
            what: for messages: `"upload the file"`.
            request: sends it; is called again where that may help.
            policy: when, and how often.

        Raises:
            HostedError: refused, or failed each time.
        """
        again = policy or Tries(self.clock)
        tries = Retrying(
            retry=retry_if_exception(again.again),
            stop=again.stop,
            wait=again.wait,
            sleep=self.clock.sleep,
            before_sleep=partial(self._waiting, what),
            reraise=True,
        )
        try:
            return tries(request)
        except Exception as exc:
            error = self.refusal(what, exc)
            if error is None:
                raise
            leaks = any(secret in str(exc) for secret in self.secrets)
            raise error from (None if leaks else exc)

    def listing(self, what: str, look: Callable[[], T | None], *, single: bool) -> T | None:
        """What a look through a list of the server's finds; None where it has no such list.

        Args:
            what: for messages: `"list files"`.
            look: asks for the list, and may find nothing.
            single: it is tried once, and an error is the caller's to handle.
        """
        if single:  # inside another request's tries: one more there, not five here
            try:
                return look()
            except Exception as exc:
                if transient(exc):
                    raise
                error = self.refusal(what, exc)
                if error is None:
                    raise
                raise error from exc
        try:
            return self.send(what, look)
        except HostedError as exc:
            if exc.status not in _UNSUPPORTED:
                raise
            logger.info("%s: the server does not", what)
            return None

    def _waiting(self, what: str, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        logger.info(
            "cannot %s, trying again in %.1f seconds: %s",
            what, state.upcoming_sleep, self.clean(str(error)),
        )  # fmt: skip

    def refusal(self, what: str, exc: Exception) -> HostedError | None:
        """An error of the client or the server in our words; None for any other."""
        import openai

        if isinstance(exc, openai.APIConnectionError):
            reason = f"{self.address} cannot be reached: {self.clean(str(exc))}{_cause(exc)}"
            return HostedError(f"cannot {what}: {self.clean(reason)}")
        if isinstance(exc, openai.APIStatusError):
            said = self.clean(_message(exc))
            return HostedError(
                f"cannot {what}: {self.address} answered {exc.status_code}: {said}{_hint(exc)}",
                status=exc.status_code,
                code=exc.code,
                param=exc.param,
            )
        if isinstance(exc, Garbage | json.JSONDecodeError | openai.APIError):
            said = self.clean(str(exc))
            return HostedError(f"cannot {what}: {self.address} answered with garbage: {said}")
        return None

    def clean(self, text: str) -> str:
        """The text without the client's keys."""
        for secret in self.secrets:
            text = text.replace(secret, "[key]")
        return text


class Tries(RetryPolicy):
    """Tries of one request; waiting for a rate limit does not use them up.

    Args:
        clock: time.
        limit: how often it may fail for another reason.
        deadline: on the clock; until then it is tried for ever, whatever the limit.
        absent: how often a 404 is tried again: what was made a moment ago may not be known yet.
    """

    def __init__(
        self, clock: Clock, limit: int = TRIES, *, deadline: float | None = None, absent: int = 0
    ) -> None:
        super().__init__(limit, 1.0)
        self.clock, self.deadline, self.absent = clock, deadline, absent

    def again(self, error: BaseException) -> bool:
        """Count a failed try; whether an error of this kind can go away."""
        super().again(error)
        if status_of(error) == 404 and self.absent > 0:
            self.absent -= 1
            return True
        return transient(error)

    def stop(self, state: RetryCallState) -> bool:
        """Whether that was the last try."""
        if self.deadline is not None:
            return self.clock.now() >= self.deadline
        return super().stop(state) or self.limited >= MOST_LIMITS

    def wait(self, state: RetryCallState) -> float:
        """Seconds until the next try: what the server asks for, else a backoff."""
        error = state.outcome.exception() if state.outcome is not None else None
        asked = retry_after(error) if error is not None else None
        if asked is None:
            doublings = min(self.failed + self.limited - 1, 6)
            asked = min(LONGEST_PAUSE, self.first_wait * 2.0**doublings) * random.uniform(0.7, 1.3)
        if error is not None and status_of(error) == 429:
            self.waited += asked
        if self.deadline is not None:
            asked = min(asked, max(0.0, self.deadline - self.clock.now()))
        return asked


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    import openai

    if isinstance(error, openai.APIConnectionError | Garbage | json.JSONDecodeError):
        return True
    if not isinstance(error, openai.APIStatusError):
        return False
    status = error.status_code
    return (status in (408, 409, 429) or status >= 500) and not hopeless(error)


def checked(reply: Any, *fields: str) -> Any:
    """The reply, where it has these fields as texts."""
    for name in fields:
        if not isinstance(getattr(reply, name, None), str):
            raise Garbage(f"{type(reply).__name__} without {name}")
    return reply


def listed(fetch: Callable[[], Iterable[T]], most: int) -> Iterator[T]:
    """The first items of a list, page by page as they are read."""
    try:
        yield from islice(fetch(), most)
    except AttributeError as exc:  # the client takes a proxy's page for a page of the list
        raise Garbage(str(exc)) from exc


def _message(exc: Any) -> str:
    """What the server says, wherever it puts it."""
    body = exc.body
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if body.get(key):
                return body[key] if isinstance(body[key], str) else json.dumps(body[key])
    return str(exc)[:500]


def _cause(exc: BaseException) -> str:
    return f" ({type(exc.__cause__).__name__})" if exc.__cause__ is not None else ""


def _hint(exc: Any) -> str:
    if exc.status_code == 401:
        return "; is the key one of this server's?"
    if hopeless(exc) and exc.status_code == 429:
        return "; there is no credit left, so it was not tried again"
    return ""
