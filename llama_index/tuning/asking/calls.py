"""Calls to an LLM: concurrent, retried, kept in the run's file, within a budget.

When a call to an LLM is tried again, and after how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from llama_index.tuning._running import progress
from llama_index.tuning.asking.options import CallOptions, OnFailure, RunOptions
from llama_index.tuning.asking.results import Failure, Outcomes
from llama_index.tuning.asking.run_file import RunFile
from llama_index.tuning.errors import GenerationError, ReplyError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from pydantic import BaseModel


logger = logging.getLogger(__name__)

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

_WAITING = 4
"""Items begun for each worker: while one waits for its next try, another uses the worker."""
_LIMITS_IN_A_ROW = 3
"""This many rate limits without a reply in between hold up every worker, not only one call."""
_MISSES = 3
"""Unusable replies after which structured output is given up."""


@dataclass(frozen=True)
class Question:
    """One thing to ask an LLM.

    Args:
        step: what it is for; with `id`, its place in the run's file.
        id: of the item it is about.
        prompt: the text.
        parse: reply → JSON value; raises `ReplyError`, then the call is tried again.
        schema: gives the model of a structured reply, whose JSON `parse` reads too.
        any_id: an answer to the same prompt under another id will do.
    """

    step: str
    id: str
    prompt: str
    parse: Callable[[str], Any]
    schema: Callable[[], type[BaseModel]] | None = None
    any_id: bool = False


class CallFailed(Exception):  # noqa: N818 - ends one item, never seen by callers
    """An item's call failed for good."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Calls:
    """Asks one LLM, at most `options.workers` at a time.

    Args:
        llm: any `LLM`; its asynchronous methods are used. `None` if only `finish` is used.
        run: where finished calls are kept and looked up.
        options: how calls are made.
    """

    def __init__(
        self,
        llm: LLM | None,
        run: RunFile,
        options: RunOptions,
    ) -> None:
        self.llm = llm
        self.run = run
        self.options = options
        self.sent = 0
        self._structured = _can_structure(llm, self.options)
        self._misses = 0
        self._limits = 0
        self._quiet_until = 0.0

    async def ask(self, question: Question) -> Any:
        """The parsed reply, from the run's file if it is there already.

        Raises:
            CallFailed: it failed for good, which is noted in the file.
            BudgetSpent: it would have gone over `max_calls`.
            GenerationError: no call can succeed (a wrong key, no credit).
        """
        q = question
        return await self.finish(q.step, q.id, q.prompt, lambda: self._reply(q), any_id=q.any_id)

    async def finish(
        self,
        step: str,
        id_: str,
        prompt: str,
        request: Callable[[], Awaitable[Any]],
        *,
        any_id: bool = False,
    ) -> Any:
        """The JSON value that `request` gives, tried and kept as `ask` does; for whoever makes
        its requests itself, and tells of each with `spend`.

        Args:
            step: what it is for; with `id_` and `prompt`, its place in the run's file.
            id_: of the item it is about.
            prompt: whatever decides the value.
            request: asks once; raises `ReplyError` if another reply may do.
            any_id: a value of the same prompt under another id will do.
        """
        known = self.run.get(step, id_, prompt, any_id=any_id)
        if known is not None:
            return known
        policy = RetryPolicy(self.options.retry_limit, self.options.retry_wait)
        tries = AsyncRetrying(
            retry=retry_if_exception(policy.again),
            stop=policy.stop,
            wait=policy.wait,
            reraise=True,
        )
        try:
            value: Any = await tries(self._once, request)
        except BudgetSpent:
            raise
        except Exception as exc:  # whatever an LLM's client raises is this item's failure
            if hopeless(exc):
                raise GenerationError(
                    f"no call to the LLM can succeed: {Failure.of(id_, step, exc, 1).message}"
                ) from exc
            failure = Failure.of(id_, step, exc, policy.failed + policy.limited)
            self.run.fail(step, id_, prompt, failure.to_dict())
            level = logging.WARNING if self.options.verbose else logging.DEBUG
            logger.log(level, "%s of %r failed: %s", step, id_, failure.message)
            raise CallFailed(failure) from exc
        self.run.put(step, id_, prompt, value)
        return value

    async def _once(self, request: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            async with self._slots:
                pause = self._quiet_until - time.monotonic()
                if pause <= 0:
                    return await self._request(request)
            await asyncio.sleep(pause)

    async def _request(self, request: Callable[[], Awaitable[Any]]) -> Any:
        try:
            value = await request()
        except Exception as exc:
            self._note_limit(exc)
            raise
        self._limits = 0
        return value

    async def _reply(self, question: Question) -> Any:
        if self._structured and question.schema is not None:
            try:
                return question.parse(await self._structured_reply(question))
            except ValueError as exc:
                self._misses += 1
                logger.debug("no structured reply, asking for text: %s", exc)
                if self._misses == _MISSES and self.options.structured is None:
                    logger.info("structured replies are unusable; asking for text from here on")
                    self._structured = False
        assert self.llm is not None
        self.spend()
        reply = await self.in_time(self.llm.acomplete(question.prompt))
        return question.parse(reply.text or "")

    async def _structured_reply(self, question: Question) -> str:
        from llama_index.core.prompts import PromptTemplate

        assert question.schema is not None
        assert self.llm is not None
        self.spend()
        found = await self.in_time(
            self.llm.astructured_predict(
                question.schema(), PromptTemplate("{request}"), request=question.prompt
            )
        )
        text: str = found.model_dump_json()
        return text

    async def in_time(self, reply: Awaitable[R]) -> R:
        """A reply, within the options' timeout."""
        return await asyncio.wait_for(reply, self.options.timeout)

    def spend(self) -> None:
        """Count one request.

        Raises:
            BudgetSpent: it would go over `max_calls`.
        """
        if self.options.max_calls is not None and self.sent >= self.options.max_calls:
            raise BudgetSpent
        self.sent += 1

    def _note_limit(self, error: Exception) -> None:
        if status_of(error) != 429:
            return
        self._limits += 1
        if self._limits >= _LIMITS_IN_A_ROW:
            pause = retry_after(error) or self.options.retry_wait
            self._quiet_until = max(self._quiet_until, time.monotonic() + min(pause, 60.0))

    async def map(
        self,
        items: Sequence[I],
        work: Callable[[I], Awaitable[R]],
        *,
        id_of: Callable[[I], str],
        description: str,
    ) -> Outcomes[R]:
        """`work` on every item, concurrently; failures are data, or end it (`"fail"`)."""
        workers, on_failure = self.options.workers, self.options.on_failure
        self._slots = asyncio.Semaphore(workers)
        done: Outcomes[R] = Outcomes()
        queue = iter(progress(items, self.options.show_progress, description, len(items)))
        tasks = [
            asyncio.create_task(_consume(queue, work, id_of, done, on_failure))
            for _ in range(min(workers * _WAITING, len(items)))
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        order = {id_of(item): place for place, item in enumerate(items)}
        done.results = dict(sorted(done.results.items(), key=lambda pair: order[pair[0]]))
        return done


async def _consume(
    queue: Iterator[I],
    work: Callable[[I], Awaitable[R]],
    id_of: Callable[[I], str],
    done: Outcomes[R],
    on_failure: OnFailure,
) -> None:
    for item in queue:
        try:
            done.results[id_of(item)] = await work(item)
        except BudgetSpent:
            done.not_asked.append(id_of(item))
        except CallFailed as exc:
            if on_failure == "fail":
                raise GenerationError(
                    f"{exc.failure.step} of {exc.failure.id!r} failed after "
                    f"{exc.failure.attempts} tries: {exc.failure.message}"
                ) from exc
            done.failures.append(exc.failure)


def _can_structure(llm: LLM | None, options: CallOptions) -> bool:
    if llm is None:
        return False
    if options.structured is not None:
        return options.structured
    return bool(llm.metadata.is_function_calling_model)


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


T = TypeVar("T")


def at_once(
    call: Callable[[Any], T], given: Sequence[Any], workers: int, show_progress: bool = False
) -> list[T]:
    """The responses in the order asked; the first error ends it."""
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ValueError(f"workers must be a whole number >= 1, got {workers!r}")
    pool = ThreadPoolExecutor(workers, thread_name_prefix="task-replies")
    try:
        # Each thread sees what the caller has set, such as that this is no traffic of the app.
        contexts = [copy_context() for _ in given]
        found = pool.map(lambda item, context: context.run(call, item), given, contexts)
        return list(progress(found, show_progress, "Asking", total=len(given)))
    finally:
        pool.shutdown(cancel_futures=True)
