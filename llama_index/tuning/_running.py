"""Threads: coroutines run from synchronous code, and locks that outlive a fork.

Progress bars, only where asked for.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

T = TypeVar("T")
P = ParamSpec("P")

at_own_work: ContextVar[bool] = ContextVar("at_own_work", default=False)
"""Whether this package itself asks, for training or measuring: no traffic of the app's users."""

_FORK_WAITS = 0.2  # seconds, for all locks together


if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801 # the name of what it is
        """Without the lock that Python has there until 3.11, which no forked child can take."""

        def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
            if instance is None:
                return self
            kept = instance.__dict__
            if self.attrname not in kept:
                kept[self.attrname] = self.func(instance)
            return kept[self.attrname]


class ThreadLock:
    """A re-entrant lock that a forked child can take, whoever held it in the parent.

    A fork waits a moment for what is written under a lock to be whole; a lock that is still held
    then, by a thread that the child does not have, is made anew in the child. Copies and pickles
    hold a lock of their own.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _LOCKS[id(self)] = self

    def __enter__(self) -> ThreadLock:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[ThreadLock], tuple[()]]:
        return ThreadLock, ()

    def _taken_until(self, deadline: float) -> bool:
        return self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def _renew(self) -> None:
        self._lock = threading.RLock()


_LOCKS: weakref.WeakValueDictionary[int, ThreadLock] = weakref.WeakValueDictionary()
_AT_FORK = threading.local()  # .locks, each with whether it was taken: threads may fork at once


def _locks_before_fork() -> None:
    deadline = time.monotonic() + _FORK_WAITS
    locks = [lock for reference in _LOCKS.valuerefs() if (lock := reference()) is not None]
    _AT_FORK.locks = [(lock, lock._taken_until(deadline)) for lock in locks]


def _locks_after_fork_in_parent() -> None:
    for lock, taken in _AT_FORK.__dict__.pop("locks", []):
        if taken:
            lock._lock.release()


def _locks_after_fork_in_child() -> None:
    for lock, taken in _AT_FORK.__dict__.pop("locks", []):
        if taken:
            lock._lock.release()
        else:
            lock._renew()
    _leave_parents_loop()


_lock = ThreadLock()
_worker: threading.Thread | None = None
_loop: asyncio.AbstractEventLoop | None = None
_of_parents: list[asyncio.AbstractEventLoop] = []  # closing one would close it for the parent


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from inside a running event loop (a notebook) too.

    All of them run on one loop in a thread of its own, so that a client's pooled connections
    stay with the loop they were opened on. Ctrl-C cancels the coroutine.
    """
    loop = _background_loop()
    if threading.current_thread() is _worker:  # inside such a coroutine: waiting would be forever
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(copy_context().run, asyncio.run, work).result()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _background_loop() -> asyncio.AbstractEventLoop:
    global _worker, _loop
    with _lock:
        if _loop is None or _worker is None or not _worker.is_alive():
            _loop = asyncio.new_event_loop()
            _worker = threading.Thread(
                target=_loop.run_forever, name="llama-index-tuning", daemon=True
            )
            _worker.start()
        return _loop


def own_work(function: Callable[P, T]) -> Callable[P, T]:
    """Marks a function, async or not, as this package's work, which no recorder records."""
    if hasattr(function, "__own_work__"):
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_marked(*args: P.args, **kwargs: P.kwargs) -> Any:
            token = at_own_work.set(True)
            try:
                return await function(*args, **kwargs)
            finally:
                at_own_work.reset(token)

        marked = cast("Callable[P, T]", run_marked)
    else:

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            token = at_own_work.set(True)
            try:
                return function(*args, **kwargs)
            finally:
                at_own_work.reset(token)

        marked = run
    marked.__own_work__ = True  # type: ignore[attr-defined]
    return marked


def _leave_parents_loop() -> None:
    # A forked child has the loop but not its thread.
    global _worker, _loop
    if _loop is not None:
        _of_parents.append(_loop)
    _worker = _loop = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_locks_before_fork,
        after_in_parent=_locks_after_fork_in_parent,
        after_in_child=_locks_after_fork_in_child,
    )


def progress(
    items: Iterable[T], show: bool, description: str, total: int | None = None
) -> Iterator[T]:
    """Iterate; with `show`, behind a tqdm bar."""
    if not show:
        yield from items
        return
    from tqdm.auto import tqdm

    yield from tqdm(items, desc=description, total=total)


def process_count() -> int:
    """How many processes run together; 1 where none was launched as a group."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that measures and writes."""
    return int(os.environ.get("RANK", "0")) == 0
