"""One process at a time in a folder, and what a killed process left there."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def locked(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock file for the block; the system releases it when the process dies.

    Args:
        file: the lock file; made if it is not there. It is left where it is, unless the block
            removes it by `remove_locked_folder`.
        refusal: what is raised if another process, or another call, holds it.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = file.open("a+")
        except FileNotFoundError:  # its folder was removed just now
            continue
        with handle:
            if not take_lock(handle):
                raise refusal
            if not lies_there(handle, file):  # a removed file's lock keeps nobody out
                continue
            yield
            return


def take_lock(handle: IO[str]) -> bool:
    """Lock an open file without waiting; False if somebody else holds it."""
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


def lies_there(handle: IO[str], file: Path) -> bool:
    """Whether an open file is still the one at that path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    return False


def remove_locked_folder(lock: Path) -> None:
    """Remove the folder of a lock file that the caller holds, the lock file last.

    From then on another process may make both anew: the caller has nothing left to do there.
    """
    for entry in lock.parent.iterdir():
        if entry == lock:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    with contextlib.suppress(OSError):  # Windows removes no open file
        lock.unlink()
        lock.parent.rmdir()


@contextlib.contextmanager
def draft_beside(target: Path, *, folder: bool) -> Iterator[Path]:
    """A new file or folder beside `target`, to be renamed to it; gone after the block.

    What processes that were killed left of their drafts is removed first. A draft is locked as
    long as its process lives.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(target.parent) as alone:
        if alone:
            clear_dead_drafts(target)
        prefix = f".{target.name}.new-"
        if folder:
            draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
        else:
            made, name = tempfile.mkstemp(dir=target.parent, prefix=prefix)
            os.close(made)
            draft = Path(name)
        handle = lock_of_path(draft)
    try:
        yield draft
    finally:
        _remove(draft)
        if handle is not None:
            os.close(handle)


def clear_dead_drafts(target: Path) -> None:
    """Remove what killed processes left beside `target`; a component moved aside goes back."""
    beginnings = tuple(f".{target.name}.{what}-" for what in ("new", "old"))
    for draft in [entry for entry in target.parent.iterdir() if entry.name.startswith(beginnings)]:
        handle = lock_of_path(draft)
        if handle is None and not _old(draft):
            continue
        if (draft / "was").exists() and not target.exists():
            (draft / "was").rename(target)
        _remove(draft)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Whether no other process makes or clears drafts in a folder; waits a little for it."""
    handle = None
    for _ in range(100):
        if (handle := lock_of_path(folder)) is not None or sys.platform == "win32":
            break
        time.sleep(0.05)
    try:
        yield handle is not None or sys.platform == "win32"
    finally:
        if handle is not None:
            os.close(handle)


def lock_of_path(path: Path) -> int | None:
    """An open handle that locks a file or folder; None if somebody else holds it."""
    if sys.platform == "win32":
        return None  # it opens no folders
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _old(path: Path) -> bool:
    # Where locks tell nothing: no save takes a day.
    with contextlib.suppress(OSError):
        return sys.platform == "win32" and time.time() - path.stat().st_mtime > 86_400
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
