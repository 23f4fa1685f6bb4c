"""Vectors kept on disk between runs, keyed by model and text.

A model is known by what it answers to a few probe texts: one that is called as another, or was
trained again under its old name, has vectors of its own here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.embeddings.identity import Signature, same_signature
from llama_index.tuning.errors import VectorError

FloatArray = NDArray[np.float32]

_LOOKUPS = 500  # keys a query; SQLite's oldest limit is 999


class VectorCache:
    """A SQLite file of text hash → vector; several processes may use it at once.

    Texts are not kept, only their hashes. Without a path nothing is kept.

    Args:
        path: the file; made where it is not.
        space: what the vectors belong to, such as the model's hash.
        probe: gives the model's signature; asked only where there is a path.
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
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, timeout=60)
            try:
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
                raise VectorError(f"vector_cache: {self.path} is not a vector cache") from exc
        return self

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

    def get(self, texts: Sequence[str]) -> dict[str, FloatArray]:
        """text → vector for the texts that it has."""
        if self._file is None:
            return {}
        keys = {self._key(text): text for text in texts}
        found: dict[str, FloatArray] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), _LOOKUPS):
            part = wanted[start : start + _LOOKUPS]
            marks = ",".join("?" * len(part))
            rows = self._file.execute(
                f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part
            )
            found.update((keys[key], np.frombuffer(blob, np.float32)) for key, blob in rows)
        return found

    def put(self, vectors: Mapping[str, FloatArray]) -> None:
        """Keep these; they are on disk when this returns."""
        if self._file is None:
            return
        rows = [(self._key(text), vector.tobytes()) for text, vector in vectors.items()]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.space}\0{text}".encode()).digest()
