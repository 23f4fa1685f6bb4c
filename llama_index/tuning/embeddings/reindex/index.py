"""Rewrite the vectors of an index with an adapter's document map, and take it back.

The originals are on disk, whole and checked, before the first vector in the store changes (see
`backup.py`). What is still to do is read from the store itself, by comparing its vectors with the
originals, so that a call after a kill, or on a simple store that was loaded again without having
been persisted, does exactly what is missing.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Bools, Float32
from llama_index.tuning._checks import plain_arguments, whole_number
from llama_index.tuning._running import progress
from llama_index.tuning.embeddings.reindex.backup import Backup, Staging, begun, locked_backup
from llama_index.tuning.errors import StoreError, VectorError
from llama_index.tuning.vectors.search import unit_rows
from llama_index.tuning.vectors.stores import StoredVectors, check_finite, open_store

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

_ROUNDING = 1e-6  # a store that scales vectors gives them back within this, relative
_SAME_DIRECTION = 1e-3  # float16 stores included


class DocumentMap(Protocol):
    """What `adapt_index` needs of an adapter, or of the embedding model that carries one."""

    @property
    def fingerprint(self) -> str: ...

    def map_documents(self, vectors: Float32, /) -> Float32: ...


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


@plain_arguments
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
        >>> from llama_index.tuning.embeddings.adapter.saved import Adapter
        >>> from llama_index.tuning.embeddings.adapter.maps import LinearMap
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
    with locked_backup(folder):
        if begun(folder):
            saved = Backup.open(folder)
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


@plain_arguments
def restore_index(index: object, backup: PathLike, *, show_progress: bool = False) -> RestoreResult:
    """Put the original vectors of a backup back into the index they came from.

    They come back bit for bit in float32 – unless the store scales whatever it is given
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
    if not begun(folder):
        raise StoreError(f"{folder} holds no backup of vectors")
    with locked_backup(folder):
        saved = Backup.open(folder)
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
    whole_number("batch_size", batch_size, 1)


def _check_adaptable(saved: Backup, store: StoredVectors, adapter: DocumentMap) -> None:
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
) -> Backup | None:
    """All vectors of a store, checked and durable; nothing is left behind if one is bad."""
    ids = list(dict.fromkeys(store.ids()))
    logger.info("backing up %d vectors of %s to %s", len(ids), store.name, folder)
    with Staging(folder) as staging:
        starts = range(0, len(ids), batch_size)
        for start in progress(starts, show, "back up vectors"):
            found, originals = store.get(ids[start : start + batch_size])
            if not found:
                continue
            check_finite(found, originals, f"a vector of {store.name}")
            if not staging.parts:
                _map(adapter, found, originals)  # refuses before anything has changed
            staging.add(found, originals)
        return staging.finish(store, adapter.fingerprint) if staging.parts else None


def _map_store(
    saved: Backup, store: StoredVectors, adapter: DocumentMap, started: float, show: bool
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


def _map(adapter: DocumentMap, ids: list[str], originals: Float32) -> Float32:
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
    store: StoredVectors, ids: list[str], originals: Float32, images: Float32
) -> tuple[NDArray[np.intp], Bools, Bools]:
    """Rows of a part that the store still holds; which of them are originals; which are mapped.

    A row that the adapter leaves as it is counts as mapped.
    """
    rows, current = _current(store, ids, originals.shape[1])
    todo = _within_rounding(current, originals[rows])
    same = _within_rounding(images, originals)[rows]
    done = np.where(todo, same, _same_direction(current, images[rows]))
    return rows, todo, done


def _check_restorable(saved: Backup, store: StoredVectors) -> None:
    _check_collection(saved, store)
    if not any(store.get(ids)[0] for ids, _ in saved.parts()):
        raise StoreError(
            f"{saved.folder} is the backup of another store: {store.name} holds none of its ids"
        )


def _restore_store(
    saved: Backup, store: StoredVectors, started: float, show: bool
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


def _check_collection(saved: Backup, store: StoredVectors) -> None:
    if saved.store != store.fingerprint:
        raise StoreError(
            f"{saved.folder} is the backup of another store: {saved.store}, not "
            f"{store.fingerprint} ({store.name})"
        )


def _current(store: StoredVectors, ids: list[str], dim: int) -> tuple[NDArray[np.intp], Float32]:
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


def _within_rounding(a: Float32, b: Float32) -> Bools:
    gap = np.abs(a - b).max(axis=1, initial=0.0)
    same: Bools = gap <= _ROUNDING * np.abs(b).max(axis=1, initial=0.0)
    return same


def _same_direction(a: Float32, b: Float32) -> Bools:
    gap = np.abs(unit_rows(a) - unit_rows(b)).max(axis=1, initial=0.0)
    same: Bools = gap <= _SAME_DIRECTION
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
