"""Vectors read from, and written to, real stores: simple, Chroma, Qdrant, and unknown ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid

import chromadb
import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryResult
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from llama_index.tuning.errors import StoreError, VectorError
from llama_index.tuning.vectors import stores
from llama_index.tuning.vectors.stores import open_store
from tests.embeddings.real_stores import (
    KINDS,
    everything_but_vectors,
    new_store,
    node_id,
    nodes_of,
    unit,
)

# Qdrant's embedded mode says so where LlamaIndex asks for an index of document ids.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

ROWS, DIM = 12, 4


@pytest.fixture
def vectors():
    return unit(np.random.default_rng(7).normal(size=(ROWS, DIM)))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def store(kind, tmp_path):
    store = new_store(kind, tmp_path)
    yield store
    if kind.startswith("qdrant"):
        store.client.close()


def test_lists_every_id_over_several_requests(kind, store, vectors, monkeypatch):
    monkeypatch.setattr(stores, "_IDS_PER_REQUEST", 5)
    ids = store.add(nodes_of(kind, vectors))
    assert sorted(open_store(store).ids()) == sorted(ids)


def test_reads_in_the_order_asked_for_and_leaves_out_what_is_missing(
    kind, store, vectors, monkeypatch
):
    monkeypatch.setattr(stores, "_ROWS_PER_REQUEST", 3)
    store.add(nodes_of(kind, vectors))
    wanted = [node_id(kind, n) for n in (9, 3, 99, 0, 10, 3, 11)]

    found, matrix = open_store(store).get(wanted)

    assert found == [node_id(kind, n) for n in (9, 3, 0, 10, 11)]
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, vectors[[9, 3, 0, 10, 11]], atol=1e-6)


def test_rewrites_only_the_vectors_named_and_nothing_beside_them(kind, store, vectors, monkeypatch):
    monkeypatch.setattr(stores, "_ROWS_PER_REQUEST", 3)
    store.add(nodes_of(kind, vectors))
    before = everything_but_vectors(store)
    opened = open_store(store)
    changed = [4, 0, 7, 11, 8]

    opened.set([node_id(kind, n) for n in changed], unit(vectors[changed] + 1))

    wanted = vectors.copy()
    wanted[changed] = unit(vectors[changed] + 1)
    _, matrix = opened.get([node_id(kind, n) for n in range(ROWS)])
    np.testing.assert_allclose(matrix, wanted, atol=1e-6)
    assert everything_but_vectors(store) == before


def test_an_empty_store_has_no_ids_and_no_vectors(store):
    opened = open_store(store)
    found, matrix = opened.get(["a"])
    assert (opened.ids(), found, matrix.shape) == ([], [], (0, 0))
    opened.set([], np.empty((0, DIM), np.float32))


def test_a_missing_id_is_never_created(kind, store, vectors):
    store.add(nodes_of(kind, vectors))
    opened = open_store(store)
    ids = [node_id(kind, 0), node_id(kind, 77)]
    with pytest.raises(StoreError, match="holds no vector with id") as caught:
        opened.set(ids, vectors[:2])
    assert type(store).__name__ in str(caught.value)
    assert len(opened.ids()) == ROWS


@pytest.mark.parametrize(
    ("matrix", "error", "words"),
    [
        (np.ones((1, DIM + 1)), VectorError, "vectors of 4 numbers, got vectors of 5"),
        (np.full((1, DIM), np.nan), VectorError, "not finite"),
        (np.full((1, DIM), -np.inf), VectorError, "not finite"),
        (np.ones((2, DIM)), ValueError, "one row for each of 1 ids"),
        (np.ones(DIM), ValueError, "one row for each of 1 ids"),
    ],
)
def test_bad_vectors_are_refused_before_anything_changes(
    kind, store, vectors, matrix, error, words
):
    store.add(nodes_of(kind, vectors))
    opened = open_store(store)
    with pytest.raises(error, match=words):
        opened.set([node_id(kind, 0)], matrix)
    _, after = opened.get([node_id(kind, 0)])
    np.testing.assert_allclose(after, vectors[:1], atol=1e-6)


def test_one_id_given_twice_is_refused(kind, store, vectors):
    store.add(nodes_of(kind, vectors))
    with pytest.raises(ValueError, match="distinct"):
        open_store(store).set([node_id(kind, 0)] * 2, vectors[:2])


def test_an_index_opens_its_vector_store(vectors):
    index = VectorStoreIndex(nodes_of("simple", vectors), embed_model=MockEmbedding(DIM))
    opened = open_store(index)
    assert len(opened.ids()) == ROWS
    assert open_store(opened) is opened
    assert not opened.durable


def test_a_subclass_of_a_known_store_is_known(vectors):
    class MyStore(SimpleVectorStore):
        pass

    store = MyStore()
    store.add(nodes_of("simple", vectors))
    assert open_store(store).name == "MyStore"
    open_store(store).set([node_id("simple", 0)], vectors[:1] + 1)


@pytest.mark.parametrize("thing", ["a path", None, {"id": [1.0]}, MockEmbedding(3)])
def test_what_is_no_store_is_a_type_error(thing):
    with pytest.raises(TypeError, match=f"got {type(thing).__name__}"):
        open_store(thing)


def test_vectors_of_different_dimensions_name_an_id_of_each():
    store = SimpleVectorStore()
    store.data.embedding_dict.update(a=[1.0, 2.0], b=[1.0, 2.0, 3.0])
    with pytest.raises(VectorError, match=r"2 \(id 'a'\), 3 \(id 'b'\)"):
        open_store(store).get(["a", "b"])


def test_a_chroma_collection_keeps_its_fingerprint_when_its_folder_moves(tmp_path, vectors):
    store = new_store("chroma-path", tmp_path)
    store.add(nodes_of("chroma", vectors))
    shutil.copytree(tmp_path / "chroma", tmp_path / "moved")
    client = chromadb.PersistentClient(str(tmp_path / "moved"))
    moved = ChromaVectorStore(client.get_collection(store.client.name))
    other = new_store("chroma-path", tmp_path)
    assert open_store(moved).fingerprint == open_store(store).fingerprint
    assert open_store(other).fingerprint != open_store(store).fingerprint


def qdrant_collection(client, **vectors_config):
    client.create_collection("docs", **vectors_config)
    return QdrantVectorStore("docs", client)


def cosine(dim=DIM, **options):
    return models.VectorParams(size=dim, distance=models.Distance.COSINE, **options)


def test_qdrant_ids_are_found_in_any_spelling_of_a_uuid():
    store = new_store("qdrant", None)
    key = "ABCDEF0123456789ABCDEF0123456789"
    store.add([TextNode(id_=key, text="t", embedding=[1.0, 0.0])])
    opened = open_store(store)
    assert opened.ids() == [str(uuid.UUID(key))]
    for spelling in (key, key.lower(), str(uuid.UUID(key))):
        assert opened.get([spelling])[0] == [spelling]
    opened.set([key], np.array([[0.0, 1.0]]))
    assert opened.get([key])[1].tolist() == [[0.0, 1.0]]


def test_qdrant_has_no_point_under_a_name_that_is_no_uuid(vectors):
    store = new_store("qdrant", None)
    store.add(nodes_of("qdrant", vectors))
    assert open_store(store).get(["Knoten", "nö", "", node_id("qdrant", 3)])[0] == [
        node_id("qdrant", 3)
    ]


def test_qdrant_points_numbered_by_integers():
    client = QdrantClient(":memory:")
    store = qdrant_collection(client, vectors_config={"text-dense": cosine(2)})
    points = [models.PointStruct(id=n, vector={"text-dense": [1.0, n]}) for n in (7, 8)]
    client.upsert("docs", points)
    opened = open_store(store)
    assert opened.ids() == ["7", "8"]
    opened.set(["8"], np.array([[0.0, 1.0]]))
    assert opened.get(["8", "9"])[1].tolist() == [[0.0, 1.0]]


def test_qdrant_collections_of_old_with_a_vector_without_name(vectors):
    client = QdrantClient(":memory:")
    store = qdrant_collection(client, vectors_config=cosine())
    store.add(nodes_of("qdrant", vectors))
    opened = open_store(store)
    ids = [node_id("qdrant", n) for n in range(ROWS)]
    np.testing.assert_allclose(opened.get(ids)[1], vectors, atol=1e-6)
    opened.set(ids[:2], vectors[2:4])
    np.testing.assert_allclose(opened.get(ids[:2])[1], vectors[2:4], atol=1e-6)


def test_qdrant_with_cosine_gives_unit_vectors_also_after_reopening(tmp_path, vectors):
    store = new_store("qdrant-path", tmp_path)
    ids = store.add(nodes_of("qdrant", vectors * 5))
    np.testing.assert_allclose(open_store(store).get(ids)[1], vectors, atol=1e-6)
    store.client.close()
    client = QdrantClient(path=str(tmp_path / "qdrant"))
    again = open_store(QdrantVectorStore(store.collection_name, client))
    np.testing.assert_allclose(again.get(ids)[1], vectors, atol=1e-6)
    client.close()


def test_qdrant_with_dot_product_keeps_lengths(vectors):
    client = QdrantClient(":memory:")
    dot = models.VectorParams(size=DIM, distance=models.Distance.DOT)
    store = qdrant_collection(client, vectors_config={"text-dense": dot})
    ids = store.add(nodes_of("qdrant", vectors * 5))
    opened = open_store(store)
    assert opened.get(ids)[1].tobytes() == (vectors * 5).tobytes()
    opened.set(ids, vectors * 7)
    assert opened.get(ids)[1].tobytes() == (vectors * 7).tobytes()


def test_qdrant_hybrid_keeps_its_sparse_vectors(vectors):
    def sparse(texts):
        return [[1, len(text)] for text in texts], [[0.5, 0.25] for _ in texts]

    client = QdrantClient(":memory:")
    store = QdrantVectorStore(
        "docs", client, enable_hybrid=True, sparse_doc_fn=sparse, sparse_query_fn=sparse
    )
    store.add(nodes_of("qdrant", vectors))
    ids = [node_id("qdrant", n) for n in range(ROWS)]

    def sparse_vectors():
        records = client.retrieve("docs", ids, with_vectors=[store.sparse_vector_name])
        return [record.vector for record in records]

    before = sparse_vectors()
    opened = open_store(store)
    opened.set(ids, vectors[::-1])
    np.testing.assert_allclose(opened.get(ids)[1], vectors[::-1], atol=1e-6)
    assert sparse_vectors() == before


def test_qdrant_points_without_a_dense_vector_are_left_out():
    client = QdrantClient(":memory:")
    both = {"text-dense": cosine(2), "image": cosine(3)}
    store = qdrant_collection(client, vectors_config=both)
    client.upsert("docs", [models.PointStruct(id=1, vector={"image": [1.0, 0.0, 0.0]})])
    client.upsert("docs", [models.PointStruct(id=2, vector={"text-dense": [1.0, 0.0]})])
    assert open_store(store).get(["1", "2"])[0] == ["2"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"image": cosine()}, "no dense vector 'text-dense'; its vectors: image"),
        ({"text-dense": cosine(datatype=models.Datatype.UINT8)}, "uint8"),
        (
            {
                "text-dense": cosine(
                    multivector_config=models.MultiVectorConfig(
                        comparator=models.MultiVectorComparator.MAX_SIM
                    )
                )
            },
            "several vectors for each point",
        ),
    ],
)
def test_qdrant_collections_that_cannot_be_mapped_say_why(config, words):
    store = qdrant_collection(QdrantClient(":memory:"), vectors_config=config)
    with pytest.raises(StoreError, match=words):
        open_store(store).check_writable()


def test_qdrant_with_an_async_client_only_says_what_it_needs():
    store = QdrantVectorStore("docs", aclient=AsyncQdrantClient(":memory:"))
    with pytest.raises(StoreError, match="client=QdrantClient"):
        open_store(store)


class SomeStore(BasePydanticVectorStore):
    """A store this package has never heard of, with none of the optional methods."""

    stores_text: bool = True

    @property
    def client(self):
        return None

    def add(self, nodes, **kwargs):
        return []

    def delete(self, ref_doc_id, **kwargs):
        return None

    def query(self, query, **kwargs):
        return VectorStoreQueryResult()


class NodeStore(SomeStore):
    def get_nodes(self, node_ids=None, filters=None):
        held = {"a": [1.0, 2.0], "ü": [3.0, 4.0], "bare": None}
        wanted = held if node_ids is None else [i for i in node_ids if i in held]
        return [TextNode(id_=i, text="t", embedding=held[i]) for i in wanted]


class TextStore(SomeStore):
    def get(self, text_id):
        return {"a": [1.0, 2.0], "ü": [3.0, 4.0]}[text_id]


@pytest.mark.parametrize("unknown", [NodeStore, TextStore])
def test_another_store_is_read_through_its_own_methods(unknown):
    found, matrix = open_store(unknown()).get(["ü", "bare", "gone", "a"])
    assert found == ["ü", "a"]
    assert matrix.tolist() == [[3.0, 4.0], [1.0, 2.0]]


@pytest.mark.parametrize("unknown", [NodeStore, TextStore, SomeStore])
def test_another_store_cannot_be_written_and_is_named(unknown):
    with pytest.raises(StoreError, match=f"{unknown.__name__} has no way to replace"):
        open_store(unknown()).set(["a"], np.ones((1, 2)))


def test_another_store_without_any_method_is_named():
    with pytest.raises(StoreError, match="SomeStore gives no stored vectors back"):
        open_store(SomeStore()).get(["a"])
    with pytest.raises(StoreError, match="SomeStore cannot list"):
        open_store(SomeStore()).ids()
    assert open_store(NodeStore()).ids() == ["a", "ü", "bare"]


def test_importing_this_module_loads_no_store_and_no_framework():
    code = (
        "import sys, llama_index.tuning.vectors.stores;"
        "print(*{'chromadb', 'qdrant_client', 'llama_index.core', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
