"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def locked(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock file for the block; the system releases it when the process dies.

    Args:
        file: the lock file; made where it is not, left where it is.
        refusal: what is raised where another process, or another call, holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        if not take_lock(handle):
            raise refusal
        yield


def take_lock(handle: IO[str]) -> bool:
    """Lock an open file without waiting; False where somebody else holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
