"""Rewrite the vectors of an index with an adapter's document map, and take it back.

The originals are on disk, whole and checked, before the first vector in the store changes:

    backup/lock                       held by the process at work
    backup/originals/journal.json     whose vectors, for which adapter, how far
    backup/originals/part-000000.safetensors …

`originals` appears by one rename. What is still to do is read from the store itself, by comparing
its vectors with the originals, so that a call after a kill, or on a simple store that was loaded
again without having been persisted, does exactly what is missing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._progress import progress
from llama_index.tuning.embeddings.stores import (
    FloatArray,
    StoredVectors,
    check_finite,
    open_store,
)
from llama_index.tuning.errors import ArtifactError, StoreError, VectorError
from llama_index.tuning.evaluate.search import unit_rows

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
BoolArray = NDArray[np.bool_]
State = Literal["mapping", "mapped", "restoring", "restored"]

_FORMAT = 1
_KIND = "vector_backup"
_ROUNDING = 1e-6  # a store that scales vectors gives them back within this, relative
_SAME_DIRECTION = 1e-3  # float16 stores included


class DocumentMap(Protocol):
    """What `adapt_index` needs of an adapter, or of the embedding model that carries one."""

    @property
    def fingerprint(self) -> str: ...

    def map_documents(self, vectors: FloatArray, /) -> FloatArray: ...


@dataclass(frozen=True, kw_only=True)
class AdaptResult:
    """What one call of `adapt_index` did, in vectors."""

    mapped: int
    """Rewritten by this call."""
    skipped: int
    """Left alone, as an earlier call had mapped them."""
    changed: int
    """Left alone, as somebody else has written them since the backup."""
    missing: int
    """Deleted from the store since the backup."""
    added: int
    """Added to the store since the backup, and left alone."""
    seconds: float

    @property
    def already_done(self) -> bool:
        """Whether there was nothing left to map."""
        return self.mapped == 0

    def __str__(self) -> str:
        done = f"nothing to do: {self.skipped} vectors were mapped before"
        told = [done if self.already_done else f"{self.mapped} vectors mapped"]
        if self.skipped and not self.already_done:
            told.append(f"{self.skipped} were mapped before")
        told += [
            f"{count} {what} since the backup: left as they are"
            for count, what in [(self.changed, "changed"), (self.added, "added")]
            if count
        ]
        if self.missing:
            told.append(f"{self.missing} deleted since the backup")
        return f"{', '.join(told)} ({self.seconds:.1f} s)"


@dataclass(frozen=True, kw_only=True)
class RestoreResult:
    """What one call of `restore_index` did, in vectors."""

    restored: int
    """Put back by this call."""
    skipped: int
    """Left alone, as they were the originals already."""
    missing: int
    """Deleted from the store since the backup; they are not created again."""
    largest_difference: float
    """Between a number read back and the original: 0.0 unless the store scales what it is given."""
    seconds: float

    def __str__(self) -> str:
        gone = f", {self.missing} deleted since the backup" if self.missing else ""
        return (
            f"{self.restored} vectors put back, {self.skipped} were in place{gone} "
            f"({self.seconds:.1f} s)"
        )


def adapt_index(
    index: object,
    adapter: DocumentMap,
    *,
    backup: PathLike,
    batch_size: int = 1000,
    show_progress: bool = False,
) -> AdaptResult:
    """Map all vectors stored in an index with an adapter's document side; nothing is re-embedded.

    Every vector is mapped once, whatever happens: after a kill call it again with the same
    arguments, and it finishes; call it once more, and there is nothing to do. Vectors added or
    rewritten after the backup was taken are left alone. Keep the backup folder as long as you may
    want to call `restore_index`, and use one folder for one store: the folder is what knows that
    a store has been mapped.

    Args:
        index: an index with a `vector_store`, or a vector store: simple, Chroma or Qdrant.
        adapter: an adapter of both sides, or the embedding model that carries it: it has
            `map_documents`, `(rows, dim)` → `(rows, dim)`, and a `fingerprint`.
        backup: folder for the originals, new or of an earlier call; as large as the vectors.
        batch_size: vectors read, mapped and written at a time; an earlier call's is kept.
        show_progress: show progress bars.

    Raises:
        VectorError: a stored or mapped vector is not finite, or of another dimension. Where it is
            a stored one, nothing has been changed.
        StoreError: the store cannot be rewritten, or the folder is another store's or adapter's.

    Example:
        >>> import numpy as np, tempfile
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.vector_stores import SimpleVectorStore
        >>> from llama_index.tuning.embeddings.adapters import Adapter, LinearMap
        >>> store = SimpleVectorStore()
        >>> _ = store.add([TextNode(id_="a", text="…", embedding=[1.0, 0.0])])
        >>> turn = Adapter(LinearMap(np.array([[0, -1], [1, 0]], np.float32)), side="both")
        >>> folder = tempfile.mkdtemp()
        >>> adapt_index(store, turn, backup=folder).mapped, store.get("a")
        (1, [0.0, 1.0])
        >>> restore_index(store, folder).restored, store.get("a")
        (1, [1.0, 0.0])
    """
    started = time.monotonic()
    _check_arguments(adapter, batch_size)
    store = open_store(index)
    store.check_writable()
    folder = Path(backup)
    with _locked(folder):
        if _begun(folder):
            saved = _Backup.open(folder)
            _check_adaptable(saved, store, adapter)
        else:
            backed_up = _take_backup(folder, store, adapter, batch_size, show_progress)
            if backed_up is None:
                logger.info("%s holds no vectors: nothing to map", store.name)
                return AdaptResult(
                    mapped=0, skipped=0, changed=0, missing=0, added=0, seconds=_since(started)
                )
            saved = backed_up
        result = _map_store(saved, store, adapter, started, show_progress)
        saved.set_state("mapped")
    _tell(store, result)
    return result


def restore_index(index: object, backup: PathLike, *, show_progress: bool = False) -> RestoreResult:
    """Put the original vectors of a backup back into the index they came from.

    They come back bit for bit in float32 – except where the store scales whatever it is given
    (cosine in Chroma and in Qdrant's embedded mode): there a number's last bits can differ, and
    `largest_difference` says by how much. Repeatable after a kill. Vectors added since the backup
    are left alone, deleted ones are not created again, and those that something else has rewritten
    since are overwritten too.

    Args:
        index: what `adapt_index` was given.
        backup: the folder that `adapt_index` was given; it stays as it is.
        show_progress: show a progress bar.
    """
    started = time.monotonic()
    store = open_store(index)
    store.check_writable()
    folder = Path(backup)
    if not _begun(folder):
        raise StoreError(f"{folder} holds no backup of vectors")
    with _locked(folder):
        saved = _Backup.open(folder)
        _check_restorable(saved, store)
        saved.set_state("restoring")
        result = _restore_store(saved, store, started, show_progress)
        saved.set_state("restored")
    _tell(store, result)
    return result


def _check_arguments(adapter: DocumentMap, batch_size: int) -> None:
    if not callable(getattr(adapter, "map_documents", None)):
        raise TypeError(
            "adapter must have map_documents(vectors) and a fingerprint, "
            f"got {type(adapter).__name__}"
        )
    if getattr(adapter, "side", "both") == "query":
        raise ValueError(
            "this adapter is for the query side: it maps queries only, and stored vectors must "
            "stay as they are for it; tune one with side='both' to map documents too"
        )
    fingerprint = getattr(adapter, "fingerprint", None)
    if not isinstance(fingerprint, str) or not fingerprint:
        raise TypeError(f"adapter.fingerprint must be a non-empty string, got {fingerprint!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


def _check_adaptable(saved: _Backup, store: StoredVectors, adapter: DocumentMap) -> None:
    if saved.state in ("restoring", "restored"):
        raise StoreError(
            f"{saved.folder} was used to restore the originals ({saved.state}); finish that with "
            "restore_index, then map with a new backup folder"
        )
    if saved.adapter != adapter.fingerprint:
        raise StoreError(
            f"{saved.folder} is the backup for adapter {saved.adapter}, not for "
            f"{adapter.fingerprint}; restore the originals with restore_index first, then map "
            "with a new backup folder"
        )
    _check_collection(saved, store)
    for ids, originals in saved.parts():
        _, todo, done = _compare(store, ids, originals, _map(adapter, ids, originals))
        if (todo | done).any():
            return
    raise StoreError(
        f"{saved.folder} is the backup of another store: {store.name} holds none of its vectors, "
        "neither as they were nor mapped"
    )


def _take_backup(
    folder: Path, store: StoredVectors, adapter: DocumentMap, batch_size: int, show: bool
) -> _Backup | None:
    """All vectors of a store, checked and durable; nothing is left behind where one is bad."""
    ids = list(dict.fromkeys(store.ids()))
    logger.info("backing up %d vectors of %s to %s", len(ids), store.name, folder)
    with _Staging(folder) as staging:
        starts = range(0, len(ids), batch_size)
        for start in progress(starts, show, "back up vectors"):
            found, originals = store.get(ids[start : start + batch_size])
            if not found:
                continue
            check_finite(found, originals, f"a vector of {store.name}")
            if not staging.parts:
                _map(adapter, found, originals)  # refuses before anything has changed
            staging.add(found, originals)
        return staging.finish(store, adapter) if staging.parts else None


def _map_store(
    saved: _Backup, store: StoredVectors, adapter: DocumentMap, started: float, show: bool
) -> AdaptResult:
    mapped = skipped = changed = missing = 0
    known: set[str] = set()
    for ids, originals in progress(saved.parts(), show, "map vectors", total=len(saved.crcs)):
        known.update(ids)
        images = _map(adapter, ids, originals)
        rows, todo, done = _compare(store, ids, originals, images)
        chosen = rows[todo & ~done]
        store.set([ids[row] for row in chosen], images[chosen])
        mapped += len(chosen)
        skipped += int(done.sum())
        changed += int((~todo & ~done).sum())
        missing += len(ids) - len(rows)
    added = sum(id_ not in known for id_ in store.ids())
    return AdaptResult(
        mapped=mapped,
        skipped=skipped,
        changed=changed,
        missing=missing,
        added=added,
        seconds=_since(started),
    )


def _map(adapter: DocumentMap, ids: list[str], originals: FloatArray) -> FloatArray:
    """The adapter's answer for whole parts only: the same rows give the same bits every time."""
    images = np.asarray(adapter.map_documents(originals.copy()), dtype=np.float32)
    if images.shape != originals.shape:
        raise VectorError(
            f"the adapter turned vectors of shape {originals.shape} into {images.shape}; stored "
            "vectors cannot change their dimension in place: build a new index"
        )
    check_finite(ids, images, "a mapped vector")
    return images


def _compare(
    store: StoredVectors, ids: list[str], originals: FloatArray, images: FloatArray
) -> tuple[NDArray[np.intp], BoolArray, BoolArray]:
    """Rows of a part that the store still holds; which of them are originals; which are mapped.

    A row that the adapter leaves as it is counts as mapped.
    """
    rows, current = _current(store, ids, originals.shape[1])
    todo = _within_rounding(current, originals[rows])
    same = _within_rounding(images, originals)[rows]
    done = np.where(todo, same, _same_direction(current, images[rows]))
    return rows, todo, done


def _check_restorable(saved: _Backup, store: StoredVectors) -> None:
    _check_collection(saved, store)
    if not any(store.get(ids)[0] for ids, _ in saved.parts()):
        raise StoreError(
            f"{saved.folder} is the backup of another store: {store.name} holds none of its ids"
        )


def _restore_store(
    saved: _Backup, store: StoredVectors, started: float, show: bool
) -> RestoreResult:
    restored = skipped = missing = 0
    largest = 0.0
    for ids, originals in progress(saved.parts(), show, "restore vectors", total=len(saved.crcs)):
        rows, current = _current(store, ids, saved.dim)
        chosen = rows[(current != originals[rows]).any(axis=1)]
        if len(chosen):
            names = [ids[row] for row in chosen]
            store.set(names, originals[chosen])
            _, back = store.get(names)
            largest = max(largest, float(np.abs(back - originals[chosen]).max()))
        restored += len(chosen)
        skipped += len(rows) - len(chosen)
        missing += len(ids) - len(rows)
    return RestoreResult(
        restored=restored,
        skipped=skipped,
        missing=missing,
        largest_difference=largest,
        seconds=_since(started),
    )


def _check_collection(saved: _Backup, store: StoredVectors) -> None:
    if saved.store != store.fingerprint:
        raise StoreError(
            f"{saved.folder} is the backup of another store: {saved.store}, not "
            f"{store.fingerprint} ({store.name})"
        )


def _current(store: StoredVectors, ids: list[str], dim: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Rows of a part that the store holds, and their vectors there, `(rows, dim)`."""
    found, current = store.get(ids)
    if not found:
        return np.empty(0, np.intp), np.empty((0, dim), np.float32)
    if current.shape[1] != dim:
        raise VectorError(
            f"{store.name} now holds vectors of {current.shape[1]} numbers, the backup of {dim}"
        )
    position = {id_: row for row, id_ in enumerate(ids)}
    return np.array([position[id_] for id_ in found], np.intp), current


def _within_rounding(a: FloatArray, b: FloatArray) -> BoolArray:
    gap = np.abs(a - b).max(axis=1, initial=0.0)
    same: BoolArray = gap <= _ROUNDING * np.abs(b).max(axis=1, initial=0.0)
    return same


def _same_direction(a: FloatArray, b: FloatArray) -> BoolArray:
    gap = np.abs(unit_rows(a) - unit_rows(b)).max(axis=1, initial=0.0)
    same: BoolArray = gap <= _SAME_DIRECTION
    return same


def _tell(store: StoredVectors, result: AdaptResult | RestoreResult) -> None:
    logger.info("%s: %s", store.name, result)
    if isinstance(result, AdaptResult) and result.changed:
        logger.warning(
            "%s: %d vectors are neither the originals nor mapped; they were written by something "
            "else since the backup and are left as they are",
            store.name,
            result.changed,
        )
    if not store.durable:
        logger.info(
            "%s lives in memory: keep the change with index.storage_context.persist()", store.name
        )


def _since(started: float) -> float:
    return time.monotonic() - started


@dataclass
class _Backup:
    """The originals of one store: read in parts, never rewritten; only the journal changes."""

    folder: Path
    store: str
    adapter: str
    dim: int
    state: State
    crcs: list[int]

    @classmethod
    def open(cls, folder: Path) -> _Backup:
        file = _journal(_originals(folder))
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if (told["kind"], told["format"]) != (_KIND, _FORMAT):
                raise ArtifactError(
                    f"{file} has kind {told['kind']!r} and format {told['format']!r}; this version "
                    f"reads {_KIND!r} of format {_FORMAT}"
                )
            return cls(
                folder, told["store"], told["adapter"], told["dim"], told["state"], told["crc32"]
            )
        except (OSError, ValueError, KeyError, TypeError) as exc:
            if isinstance(exc, ArtifactError):
                raise
            raise ArtifactError(f"{file} is damaged: {exc!r}") from exc

    def set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        file = _journal(_originals(self.folder))
        draft = file.with_suffix(".new")
        _write_durably(draft, self.journal())
        os.replace(draft, file)
        _sync_folder(file.parent)

    def journal(self) -> bytes:
        told: dict[str, Any] = {
            "kind": _KIND,
            "format": _FORMAT,
            "state": self.state,
            "store": self.store,
            "adapter": self.adapter,
            "dim": self.dim,
            "crc32": self.crcs,
        }
        return json.dumps(told, indent=1).encode()

    def parts(self) -> Iterator[tuple[list[str], FloatArray]]:
        """Ids and originals, shape `(rows, dim)`, part by part."""
        for number in range(len(self.crcs)):
            yield self._part(number)

    def _part(self, number: int) -> tuple[list[str], FloatArray]:
        from safetensors.numpy import load

        file = _part_file(_originals(self.folder), number)
        try:
            data = file.read_bytes()
        except OSError as exc:
            raise ArtifactError(f"{file}: originals cannot be read: {exc}") from exc
        if zlib.crc32(data) != self.crcs[number]:
            raise ArtifactError(f"{file} is damaged: its checksum is not the journal's")
        tensors = load(data)
        return json.loads(tensors["ids"].tobytes()), tensors["vectors"]


class _Staging:
    """A backup in the making; leaves nothing unless it is finished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._draft = folder / "originals.new"
        self.parts: list[int] = []
        self._dim = 0

    def __enter__(self) -> _Staging:
        shutil.rmtree(self._draft, ignore_errors=True)  # of a call that was killed
        self._draft.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def add(self, ids: list[str], vectors: FloatArray) -> None:
        from safetensors.numpy import save

        if self._dim not in (0, vectors.shape[1]):
            raise VectorError(
                f"the store holds vectors of different dimensions: {self._dim} and "
                f"{vectors.shape[1]} (id {ids[0]!r})"
            )
        self._dim = vectors.shape[1]
        names = np.frombuffer(json.dumps(ids).encode(), np.uint8)
        data = save({"ids": names, "vectors": np.ascontiguousarray(vectors)})
        _write_durably(_part_file(self._draft, len(self.parts)), data)
        self.parts.append(zlib.crc32(data))

    def finish(self, store: StoredVectors, adapter: DocumentMap) -> _Backup:
        saved = _Backup(
            self._folder, store.fingerprint, adapter.fingerprint, self._dim, "mapping", self.parts
        )
        _write_durably(_journal(self._draft), saved.journal())
        _sync_folder(self._draft)
        os.rename(self._draft, _originals(self._folder))
        _sync_folder(self._folder)
        _sync_folder(self._folder.absolute().parent)
        return saved


def _begun(folder: Path) -> bool:
    return _originals(folder).exists()


def _originals(folder: Path) -> Path:
    return folder / "originals"


def _journal(originals: Path) -> Path:
    return originals / "journal.json"


def _part_file(originals: Path, number: int) -> Path:
    return originals / f"part-{number:06d}.safetensors"


def _write_durably(file: Path, data: bytes) -> None:
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # Windows has no such call
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process dies."""
    new = not folder.exists()
    if not new:
        _check_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "lock"
    with file.open("a+") as lock:
        if not _take(lock) or not _is_still(file, lock):
            raise StoreError(f"backup folder {folder} is in use by another call or process")
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == ["lock"]:  # nothing was backed up
                with contextlib.suppress(OSError):
                    file.unlink()
                    if new:
                        folder.rmdir()


def _check_ours(folder: Path) -> None:
    if not folder.is_dir():
        raise StoreError(f"backup must be a folder, {folder} is a file")
    others = {entry.name for entry in folder.iterdir()} - {"lock", "originals", "originals.new"}
    if others and not _begun(folder):
        raise StoreError(
            f"backup folder {folder} holds other files ({sorted(others)[0]}, …); name a new one"
        )


def _is_still(file: Path, lock: IO[str]) -> bool:
    """False where the one who held the lock before has removed the file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    return False


def _take(lock: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
