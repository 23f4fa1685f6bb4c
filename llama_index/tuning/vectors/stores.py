"""The vectors that are already in a vector store: listed, read, and rewritten in place.

`open_store` gives every kind of vector store the same four words: `ids`, `get`, `set`, `name`.
Nothing here imports a vendor's client: a store is recognised by the names of its classes.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set as AbstractSet
from typing import Any, ClassVar
from uuid import UUID

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning.errors import StoreError, VectorError

_ROWS_PER_REQUEST = 1000
_NUMBERS_PER_REQUEST = 500_000  # about 10 MB as JSON; a Qdrant server takes 32 MB
_IDS_PER_REQUEST = 10_000
_UNIT_LENGTH = 1e-5  # as far as float32 lets a unit vector's length be from 1


class StoredVectors(ABC):
    """The vectors of one store, by node id.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.vector_stores import SimpleVectorStore
        >>> store = SimpleVectorStore()
        >>> _ = store.add([TextNode(id_="a", text="…", embedding=[1.0, 2.0])])
        >>> open_store(store).get(["a", "b"])
        (['a'], array([[1., 2.]], dtype=float32))
    """

    name: str
    """What an error or a log line calls the store."""

    fingerprint: str
    """Tells one collection from another, wherever its files or its server have moved."""

    durable: ClassVar[bool] = True
    """Whether `set` outlives the process by itself."""

    @abstractmethod
    def ids(self) -> list[str]:
        """The ids of all vectors, in the store's own order."""

    def get(self, ids: Sequence[str]) -> tuple[list[str], Float32]:
        """Read vectors.

        Args:
            ids: the ids wanted; one that the store does not hold is simply absent from the answer.

        Returns:
            The ids found, in the order asked for, and their vectors, shape `(found, dim)`, float32.
        """
        found: list[str] = []
        blocks: list[Float32] = []
        for page in _pages(list(dict.fromkeys(ids)), _ROWS_PER_REQUEST):
            rows = self._read(page)
            present = [id_ for id_ in page if id_ in rows]
            if present:
                found += present
                blocks.append(self._matrix(present, [rows[id_] for id_ in present]))
        if len({block.shape[1] for block in blocks}) > 1:
            raise VectorError(f"{self.name} holds vectors of different dimensions")
        return found, np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)

    def set(self, ids: Sequence[str], matrix: Float32) -> None:
        """Replace vectors in place; text, metadata and every other field stay as they are.

        Args:
            ids: ids that the store holds, each once; none is ever created.
            matrix: their new vectors, shape `(len(ids), dim)`, finite.
        """
        ids = list(ids)
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        self._check(ids, matrix)
        if not ids:
            return
        size = max(1, min(_ROWS_PER_REQUEST, _NUMBERS_PER_REQUEST // max(1, matrix.shape[1])))
        for start in range(0, len(ids), size):
            self._write(ids[start : start + size], matrix[start : start + size])

    def check_writable(self) -> None:
        """Raise `StoreError` if `set` is not possible."""
        return

    @abstractmethod
    def _read(self, ids: list[str]) -> Mapping[str, Sequence[float] | Float32]:
        """At most a request's worth of vectors; those not found are left out."""

    @abstractmethod
    def _present(self, ids: list[str]) -> AbstractSet[str]:
        """Which of these ids the store holds."""

    @abstractmethod
    def _write(self, ids: list[str], matrix: Float32) -> None:
        """At most a request's worth of vectors, all of them known to be there."""

    def _matrix(self, ids: list[str], rows: list[Sequence[float] | Float32]) -> Float32:
        dims = {len(row): id_ for row, id_ in zip(rows, ids, strict=True)}
        if len(dims) > 1:
            told = ", ".join(f"{dim} (id {id_!r})" for dim, id_ in sorted(dims.items()))
            raise VectorError(f"{self.name} holds vectors of different dimensions: {told}")
        return np.array(rows, dtype=np.float32)

    def _check(self, ids: list[str], matrix: Float32) -> None:
        self.check_writable()
        if matrix.ndim != 2 or len(matrix) != len(ids):
            raise ValueError(
                f"matrix must have one row for each of {len(ids)} ids, got {matrix.shape}"
            )
        if len(set(ids)) < len(ids):
            raise ValueError("ids must be distinct, got one twice")
        for page in _pages(ids, _ROWS_PER_REQUEST):
            present = self._present(page)
            missing = [id_ for id_ in page if id_ not in present]
            if missing:
                raise StoreError(f"{self.name} holds no vector with id {missing[0]!r}")
        _, held = self.get(ids[:1])
        if len(held) and held.shape[1] != matrix.shape[1]:
            raise VectorError(
                f"{self.name} holds vectors of {held.shape[1]} numbers, "
                f"got vectors of {matrix.shape[1]}"
            )
        check_finite(ids, matrix, "a new vector")


def open_store(index_or_store: object) -> StoredVectors:
    """The stored vectors behind an index (anything with a `vector_store`) or a vector store.

    The simple store, Chroma and Qdrant are read and written; of any other store the vectors are
    read through its own `get_nodes(node_ids)` or `get(text_id)`, and `set` raises `StoreError`.
    """
    if isinstance(index_or_store, StoredVectors):
        return index_or_store
    store = getattr(index_or_store, "vector_store", index_or_store)
    own = getattr(getattr(index_or_store, "index_struct", None), "nodes_dict", None)
    if not _is_a(store, "llama_index.core.", "BasePydanticVectorStore"):
        raise TypeError(
            "vectors must come from an index with a vector_store, or a vector store, "
            f"got {type(index_or_store).__name__}"
        )
    for module, class_name, opened in _KINDS:
        if _is_a(store, module, class_name):
            return SimpleVectors(store, own) if opened is SimpleVectors else opened(store)
    return OtherVectors(store)


def check_finite(ids: Sequence[str], matrix: Float32, what: str) -> None:
    """Raise `VectorError`, naming the first id whose row of `matrix` has NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise VectorError(f"{what} is not finite (NaN or infinity): id {ids[bad[0]]!r}")


class SimpleVectors(StoredVectors):
    """`SimpleVectorStore`: a dict of lists in memory, which the user persists.

    Args:
        store: LlamaIndex's.
        own: of an index, the ids of its vectors; others share the store.
    """

    durable = False

    def __init__(self, store: Any, own: Mapping[str, str] | None = None) -> None:
        self._own = own
        self.name = type(store).__name__
        self.fingerprint = "simple"
        self._store = store

    def ids(self) -> list[str]:
        return [id_ for id_ in self._rows if self._own is None or id_ in self._own]

    def _read(self, ids: list[str]) -> Mapping[str, Sequence[float] | Float32]:
        rows, present = self._rows, self._present(ids)
        return {id_: rows[id_] for id_ in ids if id_ in present}

    def _present(self, ids: list[str]) -> AbstractSet[str]:
        rows = self._rows
        return {id_ for id_ in ids if id_ in rows and (self._own is None or id_ in self._own)}

    def _write(self, ids: list[str], matrix: Float32) -> None:
        self._rows.update(zip(ids, matrix.tolist(), strict=True))

    @property
    def _rows(self) -> dict[str, list[float]]:
        rows: dict[str, list[float]] = self._store.data.embedding_dict
        return rows


class ChromaVectors(StoredVectors):
    """`ChromaVectorStore`: a collection, whose ids are the nodes'.

    A collection with cosine space scales what it is given, and gives it back within rounding.
    """

    def __init__(self, store: Any) -> None:
        self._collection = store.client
        self.name = f"{type(store).__name__} {self._collection.name!r}"
        self.fingerprint = f"chroma:{self._collection.id}"

    def ids(self) -> list[str]:
        ids: list[str] = []
        while page := self._page_of_ids(len(ids)):
            ids += page
        return ids

    def _page_of_ids(self, offset: int) -> list[str]:
        page = self._collection.get(include=[], limit=_IDS_PER_REQUEST, offset=offset)
        return list(page["ids"])

    def _read(self, ids: list[str]) -> Mapping[str, Sequence[float] | Float32]:
        page = self._collection.get(ids=ids, include=["embeddings"])  # in an order of its own
        return dict(zip(page["ids"], page["embeddings"], strict=True))

    def _present(self, ids: list[str]) -> AbstractSet[str]:
        return set(self._collection.get(ids=ids, include=[])["ids"])

    def _write(self, ids: list[str], matrix: Float32) -> None:
        self._collection.update(ids=ids, embeddings=matrix)


class QdrantVectors(StoredVectors):
    """`QdrantVectorStore`: the dense vector, named or not, of a collection's points.

    A collection with cosine distance (LlamaIndex's default) holds unit vectors: it scales what it
    is given. The embedded mode scales even a unit vector again, which can move its last bit; and
    after reopening its folder it gives back the vectors as they came, which are scaled here.
    """

    def __init__(self, store: Any) -> None:
        self.name = f"{type(store).__name__} {store.collection_name!r}"
        self.fingerprint = f"qdrant:{store.collection_name}"
        self._store = store
        self._client = store.client
        self._config: tuple[str, Any] | None = None
        if self._client is None:
            raise StoreError(
                f"{self.name} has only an async client; build it with client=QdrantClient(…) too"
            )

    def ids(self) -> list[str]:
        if not self._exists():
            return []
        ids: list[str] = []
        offset: Any = None
        while True:
            records, offset = self._client.scroll(
                self._store.collection_name,
                limit=_IDS_PER_REQUEST,
                offset=offset,
                with_payload=False,
                with_vectors=False,
            )
            ids += [str(record.id) for record in records]
            if offset is None:
                return ids

    def check_writable(self) -> None:
        if not self._exists():
            return
        name, params = self._dense()
        if params.multivector_config is not None:
            raise StoreError(f"{self.name}: {name!r} holds several vectors for each point")
        if str(getattr(params.datatype, "value", params.datatype)) == "uint8":
            raise StoreError(f"{self.name}: {name!r} holds whole numbers from 0 to 255 (uint8)")

    def _read(self, ids: list[str]) -> Mapping[str, Sequence[float] | Float32]:
        if not self._exists():
            return {}
        name, _ = self._dense()
        rows = {id_: self._row(record.vector, name) for id_, record in self._retrieve(ids, True)}
        return {id_: row for id_, row in rows.items() if row is not None}

    def _present(self, ids: list[str]) -> AbstractSet[str]:
        return {id_ for id_, _ in self._retrieve(ids, False)} if self._exists() else set()

    def _write(self, ids: list[str], matrix: Float32) -> None:
        from qdrant_client.models import PointVectors

        name, _ = self._dense()
        points = [
            PointVectors(id=_point_id(id_), vector={name: row} if name else row)
            for id_, row in zip(ids, matrix.tolist(), strict=True)
        ]
        self._client.update_vectors(self._store.collection_name, points=points, wait=True)

    def _exists(self) -> bool:
        return bool(self._client.collection_exists(self._store.collection_name))

    def _dense(self) -> tuple[str, Any]:
        """Name ("" if it has none) and parameters of the dense vector that LlamaIndex searches."""
        if self._config is None:
            info = self._client.get_collection(self._store.collection_name)
            self._config = self._chosen(info.config.params.vectors)
        return self._config

    def _chosen(self, vectors: Any) -> tuple[str, Any]:
        if not isinstance(vectors, dict):
            return "", vectors
        name = self._store.dense_vector_name
        if name not in vectors:
            raise StoreError(
                f"{self.name} has no dense vector {name!r}; its vectors: {', '.join(vectors)}"
            )
        return name, vectors[name]

    def _matrix(self, ids: list[str], rows: list[Sequence[float] | Float32]) -> Float32:
        matrix = super()._matrix(ids, rows)
        if self._dense()[1].distance == "Cosine":
            norms = np.linalg.norm(matrix, axis=1, keepdims=True)
            scaled = (norms > 0) & (np.abs(norms - 1) > _UNIT_LENGTH)
            np.divide(matrix, norms, out=matrix, where=scaled)
        return matrix

    def _retrieve(self, ids: list[str], with_vectors: bool) -> Iterator[tuple[str, Any]]:
        """Records with the ids as they were asked for: Qdrant has its own way to write a UUID."""
        asked = {point: id_ for id_ in ids if (point := _point_id(id_)) is not None}
        if asked:
            records = self._client.retrieve(
                self._store.collection_name,
                ids=list(asked),
                with_payload=False,
                with_vectors=with_vectors,
            )
            for record in records:
                yield asked[record.id], record

    @staticmethod
    def _row(vector: Any, name: str) -> Sequence[float] | None:
        row: Sequence[float] | None = vector.get(name) if isinstance(vector, dict) else vector
        return row


class OtherVectors(StoredVectors):
    """Any other store, read through the methods that LlamaIndex's stores may have."""

    def __init__(self, store: Any) -> None:
        self.name = type(store).__name__
        self.fingerprint = f"other:{type(store).__module__}.{type(store).__qualname__}"
        self._store = store

    def ids(self) -> list[str]:
        try:
            return [node.node_id for node in self._store.get_nodes()]
        except (NotImplementedError, TypeError, ValueError) as exc:
            raise StoreError(f"{self.name} cannot list its vectors through get_nodes()") from exc

    def check_writable(self) -> None:
        raise StoreError(
            f"{self.name} has no way to replace stored vectors in place; "
            "SimpleVectorStore, ChromaVectorStore and QdrantVectorStore have one"
        )

    def _read(self, ids: list[str]) -> Mapping[str, Sequence[float] | Float32]:
        get = self._get_one()
        try:
            nodes = self._store.get_nodes(node_ids=ids)
        except NotImplementedError as exc:
            if get is None:
                raise StoreError(
                    f"{self.name} gives no stored vectors back: "
                    "it has neither get_nodes(node_ids) nor get(text_id)"
                ) from exc
            nodes = []
        rows = {node.node_id: node.embedding for node in nodes if node.embedding is not None}
        if rows or get is None:
            return rows
        return {id_: row for id_ in ids if (row := _or_none(get, id_)) is not None}

    def _present(self, ids: list[str]) -> AbstractSet[str]:
        return set(self._read(ids))

    def _write(self, ids: list[str], matrix: Float32) -> None:
        self.check_writable()

    def _get_one(self) -> Callable[[str], Any] | None:
        get: Callable[[str], Any] | None = getattr(self._store, "get", None)
        if get is not None and "text_id" in inspect.signature(get).parameters:
            return get
        return None


_KINDS: list[tuple[str, str, Callable[[Any], StoredVectors]]] = [
    ("llama_index.core.", "SimpleVectorStore", SimpleVectors),
    ("llama_index.vector_stores.chroma", "ChromaVectorStore", ChromaVectors),
    ("llama_index.vector_stores.qdrant", "QdrantVectorStore", QdrantVectors),
]

_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _is_a(thing: object, module: str, class_name: str) -> bool:
    return any(
        kind.__name__ == class_name and kind.__module__.startswith(module)
        for kind in type(thing).__mro__
    )


def _pages(ids: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def _point_id(id_: str) -> str | int | None:
    """The id as Qdrant writes it; None for one that no point of Qdrant can have."""
    if _UUID.fullmatch(id_):
        return str(UUID(id_))
    if re.fullmatch(r"[0-9]{1,20}", id_):
        return int(id_)
    return None


def _or_none(get: Callable[[str], Any], id_: str) -> Any:
    try:
        return get(id_)
    except KeyError:
        return None
