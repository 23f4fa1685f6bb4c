"""Files: read with clear errors, written whole or not at all, and one process at a time."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

from llama_index.tuning._checks import folder_path
from llama_index.tuning.errors import DatasetError

PathLike = str | os.PathLike[str]


def read_json(path: PathLike, error: type[Exception] = DatasetError) -> Any:
    """The JSON value in a file; a file that is no JSON names the place where it breaks.

    Args:
        path: an ordinary file.
        error: what is raised about its content.
    """
    text = read_text(path, error)
    if not text.strip():
        raise error(f"{path} is empty")
    return parse_json(text, f"{path}", error)


def parse_json(text: str | bytes, what: str, error: type[Exception] = DatasetError) -> Any:
    """The value of a JSON text; `what` is what an error calls it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        place = f"line {exc.lineno}, column {exc.colno}"
        table = what.split(", line ")[0].lower().endswith((".csv", ".tsv"))
        said = f"{what} is not valid JSON, or is truncated: {exc.msg} at {place}"
        if table:
            said += "; `llama-index-tuning questions convert` makes a dataset of a table"
        raise error(said) from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        why = "it is nested too deep" if isinstance(exc, RecursionError) else str(exc)
        raise error(f"{what} holds JSON that cannot be read: {why}") from exc


def read_json_lines(path: PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line of a JSON Lines file; blank lines are skipped."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise DatasetError(
                f"{path}, line {number} must be a JSON object, got {type(row).__name__}"
            )
        yield number, row


def read_text(path: PathLike, error: type[Exception] = DatasetError) -> str:
    """The text of an ordinary file of UTF-8, with or without a byte-order mark."""
    file = ordinary_file(path, error)
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise error(
            f"{path} is not UTF-8 text: {exc.reason} at byte {exc.start}; save it as UTF-8"
        ) from exc


def ordinary_file(path: Any, error: type[Exception] = DatasetError) -> Path:
    """A path to an ordinary file: no folder, pipe or device, which would fail late or never end.

    Raises:
        TypeError: it is no path.
        FileNotFoundError: nothing is there.
    """
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"path must be a path, got {type(path).__name__}: {path!r:.100}")
    file = Path(path)
    if not os.fspath(path) or "\0" in str(file):
        raise error(
            f"path must not be empty or hold a null character, got {os.fspath(path)!r:.100}"
        )
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist") from None
    except OSError as exc:  # a circle of links, a name too long, a file above it, no permission
        raise error(f"{file} cannot be read: {exc.strerror}") from exc
    if stat.S_ISDIR(mode):
        raise error(f"{file} is a folder; a file is needed")
    if not stat.S_ISREG(mode):
        raise error(f"{file} is no ordinary file")
    return file


def write_text_atomic(path: PathLike, text: str) -> None:
    """Write a whole file or nothing: to a temporary file beside it, then rename."""
    target = place_of_file(path)
    with naming(target), draft_beside(target, folder=False) as draft:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)
        os.replace(draft, target)


def place_of_file(path: PathLike, name: str = "path") -> Path:
    """Where a file may be written: nothing is there, or an ordinary file; a link is followed.

    Raises:
        IsADirectoryError: a folder is there.
        OSError: a pipe, a device or a circle of links is.
    """
    named = folder_path(name, path)
    target = Path(os.path.realpath(named)) if named.is_symlink() else named
    if target.is_dir():
        raise IsADirectoryError(f"{named} is a folder; a file is to be written there")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise OSError(f"{named} is no ordinary file; a file is to be written there")
    return target


@contextlib.contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """An error of the operating system inside says of which file: a full disk's does not."""
    try:
        yield
    except OSError as exc:
        if exc.errno is None or exc.filename is not None:
            raise
        raise OSError(exc.errno, exc.strerror, os.fspath(path)) from exc


_TRIES = 1000


_HERE = -100  # AT_FDCWD: paths are as they stand


_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or this file system


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders of one file system: nobody ever finds either of them missing.

    Returns:
        Whether it was done; not where the system has no such call, or a folder is missing.
    """
    swap = _system_call()
    if swap is None:
        return False
    if swap(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (*_UNABLE, errno.ENOENT):
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _system_call() -> Any:
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            renamex = library.renamex_np
            return lambda one, other: renamex(one, other, _EXCHANGE)
        renameat2 = library.renameat2
        return lambda one, other: renameat2(_HERE, one, _HERE, other, _EXCHANGE)
    except (AttributeError, OSError, TypeError):  # the last: Windows has no library of all
        return None


@contextlib.contextmanager
def locked(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock file for the block; the system releases it when the process dies.

    Args:
        file: the lock file; made if it is not there. It is left where it is, unless the block
            removes it by `remove_locked_folder`.
        refusal: what is raised if another process, or another call, holds it.
    """
    while True:
        handle = _open_lock(file)
        with handle:
            if not take_lock(handle):
                raise refusal
            if not lies_there(handle, file):  # a removed file's lock keeps nobody out
                continue
            yield
            return


def _open_lock(file: Path) -> IO[str]:
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # its folder goes just now
            return _made_lock(file)
    return _made_lock(file)


def _made_lock(file: Path) -> IO[str]:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("a+")


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


def check_run_folder(folder: Path, error: type[Exception], *, before: str = "lock") -> None:
    """Refuse a folder that would be removed after a run, and holds what no run of ours put there.

    The lock file comes first into such a folder, and goes last.

    Args:
        folder: of a run.
        error: what is raised.
        before: how the names of files begin that may lie there before the lock file.
    """
    if not folder.is_dir():
        return
    names = sorted(entry.name for entry in folder.iterdir())
    others = [name for name in names if not name.startswith(before)]
    if others and "lock" not in names:
        raise error(f"{folder} holds {others[0]!r}, which is of no run: choose another folder")


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


_own_drafts: set[Path] = set()


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
    _own_drafts.add(draft)
    try:
        yield draft
    finally:
        _own_drafts.discard(draft)
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
    if folder in _own_drafts:  # its lock is ours, and nobody else comes here
        yield False
        return
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
