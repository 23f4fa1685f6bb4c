"""Requests to a server of hosted jobs: which are tried again, and how refusals are told."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.tuning.asking.calls import hopeless, retry_after, status_of
from llama_index.tuning.errors import HostedError
from llama_index.tuning.llms.hosted.client import Server, server_of

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

T = TypeVar("T")

SETTLING = 600.0
"""Seconds that a file, a job or a model made a moment ago may take to be ready, or known."""

_TRIES = 5
_MOST_LIMITS = 20
"""One request waits for a rate limit at most this often."""
_LONGEST_PAUSE = 600.0
"""Seconds between two tries, however long the server asks for."""
_REQUEST_TIMEOUT = 60.0
"""Seconds for one request, uploads excepted."""
_MOST_LISTED = 2000
"""At most this many of the server's newest files, or jobs, are looked through."""
_NO_SUCH_LIST = (404, 405, 501)


@dataclass(frozen=True)
class Clock:
    """Time, as a test may want to scale it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    today: Callable[[], date] = date.today


class Garbage(Exception):  # noqa: N818 - tried again, then translated
    """A reply that is not what was asked for: a proxy's page, half a body."""


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    import openai

    if isinstance(error, openai.APIConnectionError | Garbage | json.JSONDecodeError):
        return True
    status = status_of(error) if isinstance(error, openai.APIStatusError) else None
    return bool(status in (408, 409, 429) or (status or 0) >= 500) and not hopeless(error)


@dataclass
class Calls:
    """Sends requests through one client, and tries again if that may help.

    Args:
        client: its own retries are switched off: it would repeat a request that made a job.
        clock: time.

    Attributes:
        quick: the client with a short timeout.
        server: who answers.
    """

    client: OpenAI
    clock: Clock
    quick: OpenAI = field(init=False)
    server: Server = field(init=False)

    def __post_init__(self) -> None:
        self.server = server_of(self.client)
        self.client = self.client.with_options(max_retries=0)
        self.quick = self.client.with_options(timeout=_REQUEST_TIMEOUT)

    def send(
        self,
        what: str,
        request: Callable[[], T],
        *,
        passes: Callable[[BaseException], bool] = transient,
        deadline: float | None = None,
    ) -> T:
        """The reply to a request.

        Args:
            what: for messages: `"upload the file"`.
            request: sends it; is called again if that may help.
            passes: whether an error may go away.
            deadline: on the clock; it is tried until then. None: a few times.

        Raises:
            HostedError: refused, or failed each time.
        """
        failed = limited = 0
        while True:
            try:
                return request()
            except Exception as exc:
                limited += status_of(exc) == 429
                failed += status_of(exc) != 429
                now = self.clock.now()
                over = failed >= _TRIES or limited >= _MOST_LIMITS
                if not passes(exc) or (over if deadline is None else now >= deadline):
                    error = self._told(what, exc)
                    if error is None:
                        raise
                    # A cause that holds a key must not be shown.
                    raise error from (exc if self.clean(str(exc)) == str(exc) else None)
                pause = retry_after(exc)
                if pause is None:
                    pause = random.uniform(0.7, 1.3) * 2.0 ** min(failed + limited - 1, 6)
                pause = min(pause, _LONGEST_PAUSE if deadline is None else deadline - now)
                told = self.clean(str(exc))
                logger.info("cannot %s, trying again in %.1f seconds: %s", what, pause, told)
            self.clock.sleep(pause)

    def listed(self, fetch: Callable[[], Iterable[T]]) -> list[T] | None:
        """The newest items of a list of the server's; None if it has no such list."""
        try:
            return [checked(item, "id") for item in islice(fetch(), _MOST_LISTED)]
        except AttributeError as exc:  # the client takes a proxy's page for a page of the list
            raise Garbage(str(exc)) from exc
        except Exception as exc:
            if status_of(exc) not in _NO_SUCH_LIST:
                raise
            return None

    def clean(self, text: str) -> str:
        """The text without the client's keys."""
        for secret in (self.client.api_key, getattr(self.client, "_azure_ad_token", None)):
            if isinstance(secret, str) and len(secret) > 5:
                text = text.replace(secret, "[key]")
        return text

    def _told(self, what: str, exc: Exception) -> HostedError | None:
        """An error of the client or the server in our words; None for any other."""
        import openai

        about = f"cannot {what}: {self.server.address}"
        if isinstance(exc, openai.APIStatusError):
            status, said = exc.status_code, self.clean(_message(exc))
            hint = "; is the key one of this server's?" if status == 401 else ""
            if status == 429 and hopeless(exc):
                hint = "; there is no credit left, so it was not tried again"
            return HostedError(
                f"{about} answered {status}: {said}{hint}",
                status=status, code=exc.code, param=exc.param,
            )  # fmt: skip
        said = self.clean(str(exc))
        if isinstance(exc, openai.APIConnectionError):
            return HostedError(
                f"{about} cannot be reached: {said} ({type(exc.__cause__).__name__})"
            )
        if isinstance(exc, Garbage | json.JSONDecodeError | openai.APIError):
            return HostedError(f"{about} answered with garbage: {said}")
        return None


def checked(reply: Any, *fields: str) -> Any:
    """The reply, if it has these fields as texts."""
    for name in fields:
        if not isinstance(getattr(reply, name, None), str):
            raise Garbage(f"{type(reply).__name__} without {name}")
    return reply


def _message(exc: Any) -> str:
    """What the server says, wherever it puts it."""
    body = exc.body if isinstance(exc.body, dict) else {}
    for key in ("message", "detail", "error"):
        if body.get(key):
            return body[key] if isinstance(body[key], str) else json.dumps(body[key])
    return str(exc)[:500]
