"""A tuned component on disk.

A folder with `tuning.json` (what it is, how it came about), `model.safetensors` (weights) and
`README.md` (for people). A component may add files for other loaders; they are never read back.
Nothing is unpickled, and no file name is ever taken from a file's content.

Two folders change places in one step, where the system can do that.

One process at a time in a folder, and what a killed process left there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.errors import ArtifactError

FORMAT = 1
CONFIG = "tuning.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
REPORT = "report.json"
CANDIDATE = "candidate"  # beside a base that was kept: what the gate refused
KEPT_BASE = "kept-base"
_TRIES = 1000
_NEVER_READ = (CONFIG, "report.json", "config.json")  # the last is for the stock adapter

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def replacing_folder(path: PathLike) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` when the block succeeds.

    If the block fails (no disk left, Ctrl-C), what was at `path` stays as it was. What a process
    that was killed while it saved here left behind is removed.

    Raises:
        OSError: a file could not be written.
    """
    from safetensors import SafetensorError

    target = Path(path).absolute()
    check_writable(target)
    with draft_beside(target, folder=True) as temporary:
        try:
            yield temporary
            _seal(temporary)
            for file in temporary.rglob("*"):
                _sync(file)
            temporary.chmod(0o755)
            _swap(temporary, target)
        except SafetensorError as exc:  # its own error for a full disk, which is no OSError
            raise OSError(f"{path} could not be saved: {exc}") from exc


def check_writable(path: PathLike) -> None:
    """Refuse to replace anything that is not a saved component or an empty folder."""
    target = Path(path)
    if target.is_symlink() or target.is_file():
        raise ArtifactError(f"{path} is a file or a link; a component is saved as a folder")
    above = next((parent for parent in target.absolute().parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise ArtifactError(f"{path} cannot be made: {above} is a file")
    if not target.exists():
        return
    names = {entry.name for entry in target.iterdir()}
    saved = CONFIG in names or {"config.json", "pytorch_model.bin"} <= names
    if names and not saved:
        raise ArtifactError(
            f"{path} exists and is not a saved component (it holds {', '.join(sorted(names)[:3])})"
            "; choose another path, it would be replaced"
        )


def write_component(
    folder: Path,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    card: str,
) -> None:
    """Write the three files of a component into a folder that exists."""
    from safetensors.numpy import save_file

    from llama_index.tuning import __version__

    head = {"format": FORMAT, "kind": kind, "version": __version__}
    text = json.dumps({**head, **config}, ensure_ascii=False, indent=2)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(arrays, folder / WEIGHTS)
    (folder / CARD).write_text(card, encoding="utf-8")


def write_kept_base(folder: Path, kept: str, reason: str) -> None:
    """Say in a folder that the gate kept a base which has no saved form of its own."""
    card = f"# The {kept} is kept\n\n{reason}\n\nWhat was refused lies in `{CANDIDATE}/`.\n"
    write_component(folder, KEPT_BASE, {"kept": kept, "reason": reason}, {}, card)


def read_config(path: PathLike, *kinds: str) -> dict[str, Any]:
    """The checked `tuning.json` of a component of one of these kinds."""
    file = Path(path) / CONFIG
    if not Path(path).is_dir():
        raise ArtifactError(f"{path} is not a folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} holds no saved component: it has no {CONFIG}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ArtifactError(f"{file} is not valid JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise ArtifactError(f"{file} must hold a JSON object, got {type(config).__name__}")
    if config.get("format") != FORMAT:
        raise ArtifactError(
            f"{file} has format {config.get('format')!r}; this version reads format {FORMAT}"
        )
    if config.get("kind") == KEPT_BASE and KEPT_BASE not in kinds:
        raise ArtifactError(
            f"{path} holds no tuned component: the {config.get('kept')} is kept "
            f"({config.get('reason')}); what was refused lies in {Path(path) / CANDIDATE}"
        )
    if config.get("kind") not in kinds:
        wanted = " or a ".join(map(repr, kinds))
        raise ArtifactError(f"{path} holds a {config.get('kind')!r}, not a {wanted}")
    config.pop("checksums", None)  # see check_intact
    return config


def read_tensors(path: PathLike) -> dict[str, NDArray[np.float32]]:
    """The weights of a component: float32, finite."""
    tensors = read_arrays(path)
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise ArtifactError(
                f"{Path(path) / WEIGHTS}: {name} must be float32, got {tensor.dtype}"
            )
    return tensors


def read_arrays(path: PathLike, file_name: str = WEIGHTS) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file of a component, of any type; numbers are finite."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = Path(path) / file_name
    try:
        tensors: dict[str, NDArray[Any]] = load_file(file)
    except FileNotFoundError:
        raise ArtifactError(f"{path} has no {file_name}") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as exc:
        raise ArtifactError(f"{file} is not a safetensors file, or is truncated: {exc}") from exc
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ArtifactError(f"{file}: {name} holds NaN or infinite values")
    return tensors


def check_intact(path: PathLike) -> None:
    """What a component's folder holds is what was saved there: settings, weights, other files.

    For the end of a loader, whose own checks name a fault better. A folder that was written
    without checksums, by an earlier version, passes.

    Raises:
        ArtifactError: naming the file that was changed.
    """
    folder = Path(path)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        seal = config.pop("checksums", None)
        if seal is None:
            return
        wanted = dict(seal)
        found = {name: _checksum_of(folder / name) for name in wanted if name != CONFIG}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise ArtifactError(f"{path} is damaged: {exc}") from exc
    found[CONFIG] = _checksum_of_settings(config)
    for name, checksum in wanted.items():
        if found[name] != checksum:
            raise ArtifactError(f"{path} is damaged or was edited: {name} is not what was saved")


def _seal(folder: Path) -> None:
    """Note the checksums of what a component's loader reads."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    config.pop("checksums", None)
    if "files" in config:  # a language model: its loader has hashes of every file
        return
    inner = [file.parent for file in folder.rglob(CONFIG) if file.parent != folder]
    names = [
        file.relative_to(folder).as_posix()
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".safetensors", ".json")
        and file.name not in _NEVER_READ
        and not any(file.is_relative_to(other) for other in inner)
    ]
    sums = {name: _checksum_of(folder / name) for name in names}
    sums[CONFIG] = _checksum_of_settings(config)
    text = json.dumps({**config, "checksums": sums}, ensure_ascii=False, indent=2)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _checksum_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:32]


def _checksum_of_settings(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:32]


def _swap(new: Path, target: Path) -> None:
    """Put the new folder there; what was there lies where the new one was, or is gone."""
    while not exchange(new, target):
        if target.exists():
            _swap_in_steps(new, target)
            return
        try:
            new.rename(target)
            return
        except OSError:
            if not target.exists():  # else another one was saved here meanwhile
                raise


def _swap_in_steps(new: Path, target: Path) -> None:
    # For a moment there is nothing at the target.
    old = new.with_name(new.name.replace(".new-", ".old-"))
    old.mkdir()
    held = lock_of_path(old)
    try:
        target.rename(old / "was")
        try:
            new.rename(target)
        except BaseException:
            (old / "was").rename(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
        if held is not None:
            os.close(held)


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


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
