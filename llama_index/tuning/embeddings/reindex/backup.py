"""The originals of a store's vectors on disk, in a folder that one process at a time works in.

    backup/lock                       held by the process at work
    backup/originals/journal.json     whose vectors, for which adapter, how far
    backup/originals/part-000000.safetensors …

`originals` appears by one rename, when every part is written, checked and synced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning._files import locked, read_json, remove_locked_folder
from llama_index.tuning.errors import ArtifactError, StoreError, VectorError
from llama_index.tuning.vectors.stores import StoredVectors

State = Literal["mapping", "mapped", "restoring", "restored"]

_FORMAT = 1
_KIND = "vector_backup"


@dataclass
class Backup:
    """The originals of one store: read in parts, never rewritten; only the journal changes."""

    folder: Path
    store: str
    adapter: str
    dim: int
    state: State
    crcs: list[int]

    @classmethod
    def open(cls, folder: Path) -> Backup:
        file = _journal(originals_of(folder))
        try:
            told = read_json(file, ArtifactError)
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
        file = _journal(originals_of(self.folder))
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

    def parts(self) -> Iterator[tuple[list[str], Float32]]:
        """Ids and originals, shape `(rows, dim)`, part by part."""
        for number in range(len(self.crcs)):
            yield self._part(number)

    def _part(self, number: int) -> tuple[list[str], Float32]:
        from safetensors.numpy import load

        file = _part_file(originals_of(self.folder), number)
        try:
            data = file.read_bytes()
        except OSError as exc:
            raise ArtifactError(f"{file}: originals cannot be read: {exc}") from exc
        if zlib.crc32(data) != self.crcs[number]:
            raise ArtifactError(f"{file} is damaged: its checksum is not the journal's")
        tensors = load(data)
        return json.loads(tensors["ids"].tobytes()), tensors["vectors"]


class Staging:
    """A backup in the making; leaves nothing unless it is finished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._draft = folder / "originals.new"
        self.parts: list[int] = []
        self._dim = 0

    def __enter__(self) -> Staging:
        shutil.rmtree(self._draft, ignore_errors=True)  # of a call that was killed
        self._draft.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def add(self, ids: list[str], vectors: Float32) -> None:
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

    def finish(self, store: StoredVectors, adapter: str) -> Backup:
        saved = Backup(self._folder, store.fingerprint, adapter, self._dim, "mapping", self.parts)
        _write_durably(_journal(self._draft), saved.journal())
        _sync_folder(self._draft)
        os.rename(self._draft, originals_of(self._folder))
        _sync_folder(self._folder)
        _sync_folder(self._folder.absolute().parent)
        return saved


def begun(folder: Path) -> bool:
    return originals_of(folder).exists()


def originals_of(folder: Path) -> Path:
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
def locked_backup(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process dies."""
    new = not folder.exists()
    if not new:
        _check_ours(folder)
    lock = folder / "lock"
    with locked(lock, StoreError(f"backup folder {folder} is in use by another call or process")):
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == ["lock"]:  # nothing was backed up
                if new:
                    remove_locked_folder(lock)
                else:
                    with contextlib.suppress(OSError):  # Windows removes no open file
                        lock.unlink()


def _check_ours(folder: Path) -> None:
    if not folder.is_dir():
        raise StoreError(f"backup must be a folder, {folder} is a file")
    others = {entry.name for entry in folder.iterdir()} - {"lock", "originals", "originals.new"}
    if others and not begun(folder):
        raise StoreError(
            f"backup folder {folder} holds other files ({sorted(others)[0]}, …); name a new one"
        )
