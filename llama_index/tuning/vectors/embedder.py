"""Vectors of texts: from where they already are, else embedded once, in batches.

Vectors of the latest texts, kept in memory: what is served again is not embedded again.

Vectors kept on disk between runs, keyed by model and text.

A model is known by what it answers to a few probe texts: one that is called as another, or was
trained again under its old name, has vectors of its own here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning._running import ThreadLock, progress, run_async
from llama_index.tuning.errors import VectorError
from llama_index.tuning.vectors.stores import (
    PROBES,
    Signature,
    same_signature,
    signature_of,
    vector_space,
)

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


logger = logging.getLogger(__name__)

Vector = Sequence[float]
T = TypeVar("T")

BATCHES_A_STEP = 8
"""Batches between two writes to the cache."""


class Embedder:
    """Embeds texts with a LlamaIndex model, each text once, remembering across runs.

    Args:
        model: any `BaseEmbedding`.
        cache: a file that keeps the vectors, keyed by model and text; none by default.
        num_workers: concurrent calls, for models behind an API.
        show_progress: show bars.
    """

    def __init__(
        self,
        model: BaseEmbedding,
        *,
        cache: str | PathLike[str] | None = None,
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        self.model = model
        self.cache_path = cache
        self.num_workers = num_workers
        self.show_progress = show_progress
        self._signatures: dict[str, Signature] = {}

    def documents(self, texts: Sequence[str]) -> Float32:
        """Vectors of documents, shape `(len(texts), dim)`."""
        return self._embed("text", texts, self._text_batch, self.model.aget_text_embedding_batch)

    def queries(self, texts: Sequence[str]) -> Float32:
        """Vectors of queries, shape `(len(texts), dim)`, with the model's query instruction."""
        return self._embed("query", texts, self._query_batch(texts), self._aquery_batch)

    def _embed(
        self,
        kind: str,
        texts: Sequence[str],
        embed: Callable[[list[str]], Sequence[Vector]],
        aembed: Callable[[list[str]], Awaitable[Sequence[Vector]]],
    ) -> Float32:
        distinct = list(dict.fromkeys(texts))
        space = f"{vector_space(self.model)}/{kind}"
        with VectorCache(self.cache_path, space, lambda: self._signature(kind)) as cache:
            known = cache.get(distinct)
            # Texts of one length share a batch, so that a local model pads little.
            missing = sorted((t for t in distinct if t not in known), key=len, reverse=True)
            steps = list(_chunks(missing, self.model.embed_batch_size * BATCHES_A_STEP))
            vectors: Sequence[Vector]
            for step in progress(steps, self.show_progress and bool(steps), f"Embedding ({kind})"):
                if self.num_workers > 1:
                    vectors = run_async(self._concurrently(step, aembed))
                else:
                    vectors = embed(step)
                fresh = dict(zip(step, _checked(step, vectors), strict=True))
                cache.put(fresh)
                known.update(fresh)
        sizes = {len(vector) for vector in known.values()}
        if len(sizes) > 1:
            raise VectorError(f"the embedding model gave vectors of several dimensions: {sizes}")
        return np.stack([known[text] for text in texts])

    def _signature(self, kind: str) -> Signature:
        if kind not in self._signatures:
            if kind == "query":
                vectors = [self.model.get_query_embedding(text) for text in PROBES]
            else:
                vectors = self.model.get_text_embedding_batch(list(PROBES))
            self._signatures[kind] = signature_of(vectors)
        return self._signatures[kind]

    def _text_batch(self, texts: list[str]) -> Sequence[Vector]:
        return self.model.get_text_embedding_batch(texts)

    def _query_batch(self, texts: Sequence[str]) -> Callable[[list[str]], Sequence[Vector]]:
        """How to embed queries in batches.

        LlamaIndex has no such call. Where the model treats queries as texts, texts' batches do;
        a Hugging Face model takes its query prompt in a batch; any other goes one by one. Which
        of them is right is seen on one query.
        """
        ways: list[Callable[[list[str]], Sequence[Vector]]] = [self._text_batch]
        if self.model.class_name() == "HuggingFaceEmbedding" and hasattr(self.model, "_embed"):
            prompted: Any = self.model._embed
            ways.append(lambda batch: prompted(batch, prompt_name="query"))
        remembered: list[Callable[[list[str]], Sequence[Vector]]] = []

        def embed(batch: list[str]) -> Sequence[Vector]:
            if not remembered:
                remembered.append(self._right_way(batch, ways))
            return remembered[0](batch)

        return embed

    def _right_way(
        self, batch: list[str], ways: list[Callable[[list[str]], Sequence[Vector]]]
    ) -> Callable[[list[str]], Sequence[Vector]]:
        if len(batch) > 4:
            wanted = np.asarray(self.model.get_query_embedding(batch[0]), dtype=np.float32)
            for way in ways:
                if np.allclose(wanted, np.asarray(way(batch[:1])[0]), rtol=0, atol=1e-5):
                    return way
        return lambda queries: [self.model.get_query_embedding(query) for query in queries]

    async def _aquery_batch(self, texts: list[str]) -> Sequence[Vector]:
        return await asyncio.gather(*map(self.model.aget_query_embedding, texts))

    async def _concurrently(
        self, texts: list[str], aembed: Callable[[list[str]], Awaitable[Sequence[Vector]]]
    ) -> list[Vector]:
        slots = asyncio.Semaphore(self.num_workers)
        size = 1 if aembed == self._aquery_batch else self.model.embed_batch_size

        async def one(batch: list[str]) -> Sequence[Vector]:
            async with slots:
                return await aembed(batch)

        batches = await asyncio.gather(*map(one, _chunks(texts, size)))
        return [vector for batch in batches for vector in batch]


def document_vectors(corpus: Mapping[str, str], source: Any, embedder: Embedder) -> Float32:
    """The corpus' vectors, row by row: from `source` where it has them, else embedded.

    Args:
        corpus: document id → text.
        source: where vectors are already – `None`, a dictionary id → vector, an array or
            memory-mapped array with one row for each document in the corpus' order, the path
            of a `.npy` file of that kind, a LlamaIndex index, or a vector store.
        embedder: for what the source lacks.

    Returns:
        Shape `(len(corpus), dim)`; a memory-mapped source is returned as it is.
    """
    array = _whole_array(source, len(corpus))
    if array is not None:
        return array
    found = known_vectors(list(corpus), source)
    missing = [id_ for id_ in corpus if id_ not in found]
    if source is not None and missing:
        logger.info("%d of %d documents have no stored vector", len(missing), len(corpus))
    if not missing:
        return _stacked(corpus, found)
    fresh = embedder.documents([corpus[id_] for id_ in missing])
    if not found:
        return fresh
    return _stacked(corpus, {**found, **dict(zip(missing, fresh, strict=True))})


def known_vectors(ids: list[str], source: Any) -> dict[str, Float32]:
    """id → vector for the documents that a dictionary, index or store has."""
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return {id_: _vector(source[id_], f"vectors[{id_!r}]") for id_ in ids if id_ in source}
    from llama_index.tuning.vectors.stores import open_store

    stored, matrix = open_store(source).get(ids)
    check_matrix(matrix, [f"the stored vector of {id_!r}" for id_ in stored])
    return dict(zip(stored, matrix, strict=True))


def check_matrix(
    matrix: Float32, names: Sequence[str] | None = None, *, block: int = 65_536
) -> None:
    """Every row finite and not zero; the error names the first bad one."""
    for start in range(0, len(matrix), block):
        rows = np.asarray(matrix[start : start + block], dtype=np.float32)
        squares = np.einsum("ij,ij->i", rows, rows)
        bad = np.flatnonzero(~np.isfinite(squares) | (squares == 0))
        if bad.size:
            row = start + int(bad[0])
            fault = "is all zeros" if squares[bad[0]] == 0 else "holds NaN or infinite values"
            raise VectorError(f"{names[row] if names else f'row {row} of the vectors'} {fault}")


def _whole_array(source: Any, rows: int) -> Float32 | None:
    if isinstance(source, (str, Path)):
        try:
            source = np.load(source, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as exc:
            raise VectorError(f"vectors: {source} is not a .npy array: {exc}") from exc
    if not isinstance(source, np.ndarray):
        return None
    if source.ndim != 2 or len(source) != rows:
        raise VectorError(
            f"vectors must have shape (documents, dim) with one row for each of the {rows} "
            f"documents in the corpus' order, got {source.shape}"
        )
    if source.dtype.kind != "f":
        raise VectorError(f"vectors must hold floating-point numbers, got {source.dtype}")
    check_matrix(source)
    return source


def _stacked(corpus: Mapping[str, str], found: Mapping[str, Float32]) -> Float32:
    sizes = {len(vector) for vector in found.values()}
    if len(sizes) > 1:
        raise VectorError(f"the documents' vectors have several dimensions: {sorted(sizes)}")
    return np.stack([found[id_] for id_ in corpus])


def _vector(values: Any, name: str) -> Float32:
    try:
        vector = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise VectorError(f"{name} must be a list of numbers") from None
    if vector.ndim != 1:
        raise VectorError(f"{name} must be a list of numbers, got shape {vector.shape}")
    check_matrix(vector[None], [name])
    return vector


def _checked(texts: Sequence[str], vectors: Sequence[Vector]) -> Float32:
    if len(vectors) != len(texts):
        raise VectorError(f"the embedding model gave {len(vectors)} vectors for {len(texts)} texts")
    sizes = {len(vector) for vector in vectors}
    if len(sizes) > 1:
        raise VectorError(f"the embedding model gave vectors of several dimensions: {sizes}")
    matrix = np.asarray(vectors, dtype=np.float32)
    check_matrix(matrix, [f"the embedding of {text[:60]!r}" for text in texts])
    return matrix


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


TEXTS = 4096
"""Texts of each kind to remember by default: 6 MB of 384 numbers each."""


class RememberingEmbedder(Embedder):
    """An embedder for serving: the least recently used texts are forgotten first.

    Threads may share it; two that want the same new text at once may both embed it.

    Args:
        model: any `BaseEmbedding`.
        size: queries, and other texts, to remember.
    """

    def __init__(self, model: BaseEmbedding, *, size: int = TEXTS) -> None:
        super().__init__(model)
        self.size = size
        self._known: dict[str, OrderedDict[str, Float32]] = {
            kind: OrderedDict() for kind in ("query", "text")
        }
        self._lock = ThreadLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return RememberingEmbedder, (self.model,), {"size": self.size}

    def documents(self, texts: Sequence[str]) -> Float32:
        """Vectors of documents, shape `(len(texts), dim)`."""
        return self._remembered("text", texts, super().documents)

    def queries(self, texts: Sequence[str]) -> Float32:
        """Vectors of queries, shape `(len(texts), dim)`, with the model's query instruction."""
        return self._remembered("query", texts, super().queries)

    def _remembered(
        self, kind: str, texts: Sequence[str], embed: Callable[[Sequence[str]], Float32]
    ) -> Float32:
        known = self._known[kind]
        found: dict[str, Float32] = {}
        with self._lock:
            for text in texts:
                if text in known:
                    known.move_to_end(text)
                    found[text] = known[text]
        new = list(dict.fromkeys(text for text in texts if text not in found))
        if new:
            learnt = {text: vector.copy() for text, vector in zip(new, embed(new), strict=True)}
            found.update(learnt)
            with self._lock:
                known.update(learnt)
                while len(known) > self.size:
                    known.popitem(last=False)
        return np.stack([found[text] for text in texts])


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

    def get(self, texts: Sequence[str]) -> dict[str, Float32]:
        """text → vector for the texts that it has."""
        if self._file is None:
            return {}
        keys = {self._key(text): text for text in texts}
        found: dict[str, Float32] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), _LOOKUPS):
            part = wanted[start : start + _LOOKUPS]
            marks = ",".join("?" * len(part))
            rows = self._file.execute(
                f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part
            )
            found.update((keys[key], np.frombuffer(blob, np.float32)) for key, blob in rows)
        return found

    def put(self, vectors: Mapping[str, Float32]) -> None:
        """Keep these; they are on disk when this returns."""
        if self._file is None:
            return
        rows = [(self._key(text), vector.tobytes()) for text, vector in vectors.items()]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.space}\0{text}".encode()).digest()
