"""The two memories of an embedder: the latest vectors in the process, all of them on disk.

On disk a model is known by what it answers to a few probe texts: one that is called as another,
or was trained again under its old name, has vectors of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import folder_path
from llama_index.tuning._running import ThreadLock
from llama_index.tuning.errors import VectorError
from llama_index.tuning.vectors.identity import Signature, same_signature

Known = MutableMapping[tuple[str, str], Float32]
"""(`"query"` or `"text"`, the text) → vector."""

LATEST = 8192
"""Texts that `LatestVectors` remembers by default: 13 MB at 384 numbers each."""


class LatestVectors(Known):
    """The vectors of the latest texts: the least recently used are forgotten first.

    For a component that serves: threads may share it; two that want the same new text at once
    may both embed it. A copy, or one sent to another process, starts empty.

    Args:
        size: how many vectors to remember.
    """

    def __init__(self, size: int = LATEST) -> None:
        self.size = size
        self._vectors: OrderedDict[tuple[str, str], Float32] = OrderedDict()
        self._lock = ThreadLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return LatestVectors, (self.size,)

    def __getitem__(self, key: tuple[str, str]) -> Float32:
        with self._lock:
            self._vectors.move_to_end(key)
            return self._vectors[key]

    def __setitem__(self, key: tuple[str, str], vector: Float32) -> None:
        with self._lock:
            self._vectors[key] = vector
            self._vectors.move_to_end(key)
            while len(self._vectors) > self.size:
                self._vectors.popitem(last=False)

    def __delitem__(self, key: tuple[str, str]) -> None:
        with self._lock:
            del self._vectors[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        with self._lock:
            return iter(list(self._vectors))

    def __len__(self) -> int:
        return len(self._vectors)


_OWN_TABLES = {"vectors", "models"}


class VectorCache:
    """A SQLite file of text hash → vector; several processes may use it at once.

    Texts are not kept, only their hashes. Without a path nothing is kept.

    Args:
        path: the file; made if it is not there.
        space: what the vectors belong to, such as the model's hash.
        probe: gives the model's signature; asked only if there is a path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        space: str,
        probe: Callable[[], Signature] | None = None,
    ) -> None:
        self.path = path
        self.space = space
        self.probe = probe
        self._file: sqlite3.Connection | None = None

    def __enter__(self) -> VectorCache:
        if self.path is not None:
            path = folder_path("vector_cache", self.path)
            if path.exists() and not path.is_file():
                raise VectorError(f"vector_cache: {path} is no ordinary file")
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = sqlite3.connect(path, timeout=60)
            except sqlite3.Error as exc:
                raise VectorError(f"vector_cache: {path} cannot be opened: {exc}") from exc
            try:
                self._check_own(self._file)
                self._file.execute("PRAGMA journal_mode=WAL")
                self._file.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) "
                    "WITHOUT ROWID"
                )
                self._file.execute("CREATE TABLE IF NOT EXISTS models (space TEXT, signature TEXT)")
                if self.probe is not None:
                    self._enter_model(self._file, self.probe())
            except VectorError:
                self._file.close()
                raise
            except sqlite3.DatabaseError as exc:
                self._file.close()
                raise VectorError(
                    f"vector_cache: {self.path} is not a vector cache, or cannot be used: {exc}"
                ) from exc
        return self

    def _check_own(self, file: sqlite3.Connection) -> None:
        tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
        if others := tables.difference(_OWN_TABLES):
            raise VectorError(
                f"vector_cache: {self.path} is a database of something else: it has {min(others)!r}"
            )

    def _enter_model(self, file: sqlite3.Connection, signature: Signature) -> None:
        """Take the space of the model with this signature; a new one if there is none yet."""
        with file:
            file.execute("BEGIN IMMEDIATE")  # another process may enter the same model
            rows = file.execute(
                "SELECT rowid, signature FROM models WHERE space = ? ORDER BY rowid", [self.space]
            ).fetchall()
            same = [n for n, known in rows if same_signature(json.loads(known), signature)]
            if not same:
                values = [self.space, json.dumps(signature)]
                same = [file.execute("INSERT INTO models VALUES (?, ?)", values).lastrowid]
        self.space = f"{self.space}/{same[0]}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def get(self, texts: Sequence[str]) -> dict[str, Float32]:
        """text → vector for the texts that it has."""
        if self._file is None:
            return {}
        found: dict[str, Float32] = {}
        for text in texts:
            key = (self._key(text),)
            row = self._file.execute("SELECT vector FROM vectors WHERE key = ?", key).fetchone()
            if row is not None:
                found[text] = np.frombuffer(row[0], np.float32)
        return found

    def put(self, vectors: Mapping[str, Float32]) -> None:
        """Keep these; they are on disk when this returns."""
        if self._file is None:
            return
        rows = [(self._key(text), vector.tobytes()) for text, vector in vectors.items()]
        try:
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.DatabaseError as exc:  # the disk is full, or the file was changed
            raise VectorError(f"vector_cache: {self.path} cannot be written: {exc}") from exc

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.space}\0{text}".encode()).digest()
