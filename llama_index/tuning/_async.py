"""Running coroutines from synchronous code, in scripts and inside a running event loop alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

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
            return pool.submit(asyncio.run, work).result()
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
