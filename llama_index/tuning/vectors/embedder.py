"""Vectors of texts: from where they already are, else embedded once, in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning._running import progress, run_async
from llama_index.tuning.errors import MissingExtraError, VectorError
from llama_index.tuning.vectors.identity import PROBES, Signature, signature_of, vector_space
from llama_index.tuning.vectors.memory import Known, VectorCache

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


logger = logging.getLogger(__name__)

T = TypeVar("T")
Vector = Sequence[float]
Kind = Literal["text", "query"]
Embed = Callable[[list[str]], Sequence[Vector]]
AsyncEmbed = Callable[[list[str]], Awaitable[Sequence[Vector]]]

BATCHES_A_STEP = 8
"""Concurrent batches between two writes to the cache; one by one, each is written."""


class Embedder:
    """Embeds texts with a LlamaIndex model, each text once.

    Args:
        model: any `BaseEmbedding`; `None` if every vector should be known already.
        known: the memory of the process: (`"query"` or `"text"`, the text) → vector. Pass the
            same dictionary to several embedders of one model and each text is embedded once for
            all of them; `LatestVectors` has a limit and is for threads. None by default.
        cache: the memory on disk: a file that keeps the vectors, keyed by model and text; none
            by default.
        num_workers: concurrent calls, for models behind an API.
        show_progress: show bars.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> known = {}
        >>> Embedder(MockEmbedding(embed_dim=3), known=known).documents(["a", "b", "a"]).shape
        (3, 3)
        >>> list(known)
        [('text', 'a'), ('text', 'b')]
    """

    def __init__(
        self,
        model: BaseEmbedding | None,
        *,
        known: Known | None = None,
        cache: str | PathLike[str] | None = None,
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        from llama_index.core.base.embeddings.base import BaseEmbedding

        if model is not None and not isinstance(model, BaseEmbedding):
            raise TypeError(f"embed_model must be a BaseEmbedding, got {type(model).__name__}")
        self._model = model
        self.known = known
        self.cache_path = cache
        self.num_workers = num_workers
        self.show_progress = show_progress
        self._signatures: dict[str, Signature] = {}

    @property
    def model(self) -> BaseEmbedding:
        """The model.

        Raises:
            ValueError: there is none.
        """
        if self._model is None:
            raise ValueError("there is no embed_model")
        return self._model

    def documents(self, texts: Sequence[str]) -> Float32:
        """Vectors of documents, shape `(len(texts), dim)`."""
        return self._vectors("text", texts)

    def queries(self, texts: Sequence[str]) -> Float32:
        """Vectors of queries, shape `(len(texts), dim)`, with the model's query instruction."""
        return self._vectors("query", texts)

    def _vectors(self, kind: Kind, texts: Sequence[str]) -> Float32:
        found: dict[str, Float32] = {}
        missing: list[str] = []
        for text in dict.fromkeys(texts):
            vector = None if self.known is None else self.known.get((kind, text))
            if vector is None:
                missing.append(text)
            else:
                found[text] = vector
        if missing:
            found.update(self._embed(kind, missing))
            for text in missing if self.known is not None else ():
                # A copy: a row would keep the whole matrix of its step.
                self.known[kind, text] = found[text].copy()  # type: ignore[index]
        sizes = {len(vector) for vector in found.values()}
        if len(sizes) > 1:
            raise VectorError(f"the embedding model gave vectors of several dimensions: {sizes}")
        return np.stack([found[text] for text in texts])

    def _embed(self, kind: Kind, texts: list[str]) -> dict[str, Float32]:
        """text → vector, from the disk or the model."""
        if self._model is None:
            what, other = (
                ("queries", "query_vectors") if kind == "query" else ("documents", "vectors")
            )
            raise ValueError(f"{len(texts)} {what} have no vector; pass an embed_model or {other}")
        embed, aembed = self._ways(kind)
        space = f"{vector_space(self.model)}/{kind}"
        with VectorCache(self.cache_path, space, lambda: self._signature(kind)) as cache:
            found = cache.get(texts)
            # Texts of one length share a batch, so that a local model pads little.
            missing = sorted((t for t in texts if t not in found), key=len, reverse=True)
            batches = BATCHES_A_STEP if self.num_workers > 1 else 1
            steps = list(_chunks(missing, self.model.embed_batch_size * batches))
            vectors: Sequence[Vector]
            for step in progress(steps, self.show_progress and bool(steps), f"Embedding ({kind})"):
                if self.num_workers > 1:
                    vectors = run_async(self._concurrently(step, aembed))
                else:
                    vectors = embed(step)
                fresh = dict(zip(step, _checked(step, vectors), strict=True))
                cache.put(fresh)
                found.update(fresh)
        return found

    def _ways(self, kind: Kind) -> tuple[Embed, AsyncEmbed]:
        if kind == "query":
            return self._query_batch(), self._aquery_batch
        return self._text_batch, self.model.aget_text_embedding_batch

    def _signature(self, kind: Kind) -> Signature:
        if kind not in self._signatures:
            if kind == "query":
                vectors = [self.model.get_query_embedding(text) for text in PROBES]
            else:
                vectors = self.model.get_text_embedding_batch(list(PROBES))
            self._signatures[kind] = signature_of(vectors)
        return self._signatures[kind]

    def _text_batch(self, texts: list[str]) -> Sequence[Vector]:
        return self.model.get_text_embedding_batch(texts)

    def _query_batch(self) -> Embed:
        """How to embed queries in batches.

        LlamaIndex has no such call. If the model treats queries as texts, texts' batches do;
        a Hugging Face model takes its query prompt in a batch; any other goes one by one. Which
        of them is right is seen on one query.
        """
        ways: list[Embed] = [self._text_batch]
        if self.model.class_name() == "HuggingFaceEmbedding" and hasattr(self.model, "_embed"):
            prompted: Any = self.model._embed
            ways.append(lambda batch: prompted(batch, prompt_name="query"))
        right: list[Embed] = []

        def embed(batch: list[str]) -> Sequence[Vector]:
            if not right:
                right.append(self._right_way(batch, ways))
            return right[0](batch)

        return embed

    def _right_way(self, batch: list[str], ways: list[Embed]) -> Embed:
        if len(batch) > 4:
            wanted = np.asarray(self.model.get_query_embedding(batch[0]), dtype=np.float32)
            for way in ways:
                if np.allclose(wanted, np.asarray(way(batch[:1])[0]), rtol=0, atol=1e-5):
                    return way
        return lambda queries: [self.model.get_query_embedding(query) for query in queries]

    async def _aquery_batch(self, texts: list[str]) -> Sequence[Vector]:
        return await asyncio.gather(*map(self.model.aget_query_embedding, texts))

    async def _concurrently(self, texts: list[str], aembed: AsyncEmbed) -> list[Vector]:
        slots = asyncio.Semaphore(self.num_workers)
        size = 1 if aembed == self._aquery_batch else self.model.embed_batch_size

        async def one(batch: list[str]) -> Sequence[Vector]:
            async with slots:
                return await aembed(batch)

        batches = await asyncio.gather(*map(one, _chunks(texts, size)))
        return [vector for batch in batches for vector in batch]


def document_vectors(corpus: Mapping[str, str], source: Any, embedder: Embedder) -> Float32:
    """The corpus' vectors, row by row: from `source` if it has them, else embedded.

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
    if array is not None and isinstance(source, (str, Path)):
        _check_order(corpus, Path(f"{source}.ids.parquet"))
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
        except FileNotFoundError as exc:
            raise FileNotFoundError(f"vectors: {source} does not exist") from exc
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


def _check_order(corpus: Iterable[str], names: Path) -> None:
    """The ids beside an array of `scale.vectors_to_array` are the corpus', in its order."""
    if not names.is_file():
        return
    try:
        from pyarrow import parquet
    except ImportError as exc:
        raise MissingExtraError(f"vectors whose ids are in {names}", "pyarrow", "tables") from exc
    batches = parquet.ParquetFile(names).iter_batches(columns=["id"])
    written = (id_ for batch in batches for id_ in batch.column(0).to_pylist())
    for row, (ours, theirs) in enumerate(zip(corpus, written, strict=False)):
        if ours != theirs:
            raise VectorError(
                f"vectors: row {row} is the vector of {theirs!r} ({names}), but document {row} of "
                f"the dataset is {ours!r}; give the dataset its documents in the array's order"
            )


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
