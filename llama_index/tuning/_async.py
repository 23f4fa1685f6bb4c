"""Running coroutines from synchronous code, in scripts and inside a running event loop alike."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar, cast

T = TypeVar("T")
P = ParamSpec("P")

at_own_work: ContextVar[bool] = ContextVar("at_own_work", default=False)
"""Whether this package itself asks, for training or measuring: no traffic of the app's users."""

_lock = threading.Lock()
_worker: threading.Thread | None = None
_loop: asyncio.AbstractEventLoop | None = None


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
        # A forked child has the loop but not its thread.
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
