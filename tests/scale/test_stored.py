"""An index as a folder of shards, whatever store holds it."""

import chromadb
import numpy as np
import pyarrow.parquet as pq
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from llama_index.tuning.errors import RunFileError
from llama_index.tuning.scale import index_to_folder, vectors_to_array
from llama_index.tuning.vectors.stores import StoredVectors, open_store
from tests.generate.scripted import WordEmbedding

UUID = "00000000-0000-0000-0000-0000000000"


def nodes(count=25):
    return [
        TextNode(text=f"Pump {i} costs {i} euros.", id_=f"{UUID}{i:02}", metadata={"page": i})
        for i in range(count)
    ]


def index_over(kind, tmp_path):
    store = None
    if kind == "chroma":
        client = chromadb.PersistentClient(str(tmp_path / "chroma"))
        store = ChromaVectorStore(client.create_collection("pumps"))
    if kind == "qdrant":
        store = QdrantVectorStore("pumps", client=QdrantClient(":memory:"))
    context = None if store is None else StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex(nodes(), storage_context=context, embed_model=WordEmbedding())


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("kind", ["simple", "chroma", "qdrant"])
def test_texts_and_stored_vectors_are_written_once(kind, tmp_path):
    index = index_over(kind, tmp_path)
    report = index_to_folder(index, tmp_path / "out", rows_per_shard=10)
    assert (report.shards, report.written, report.failed) == (3, 25, 0)
    table = pq.read_table(tmp_path / "out")
    assert set(table["id"].to_pylist()) == {node.node_id for node in nodes()}
    assert "page: 7\n\nPump 7 costs 7 euros." in table["text"].to_pylist()
    assert vectors_to_array(tmp_path / "out", tmp_path / "vectors.npy") == 25
    ids = pq.read_table(tmp_path / "vectors.npy.ids.parquet")["id"].to_pylist()
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), open_store(index).get(ids)[1])


def test_it_goes_on_where_it_was_stopped_and_refuses_another_index(tmp_path, monkeypatch):
    index = index_over("simple", tmp_path)
    asked = []
    real = StoredVectors.get

    def stopped(self, ids):
        asked.append(list(ids))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, ids)

    monkeypatch.setattr(StoredVectors, "get", stopped)
    with pytest.raises(KeyboardInterrupt):
        index_to_folder(index, tmp_path / "out", rows_per_shard=10)
    report = index_to_folder(index, tmp_path / "out", rows_per_shard=10)
    assert (report.resumed, report.written) == (1, 25)
    assert [len(ids) for ids in asked] == [10, 10, 10, 5]
    index.insert_nodes([TextNode(text="A new one.")])
    with pytest.raises(RunFileError):
        index_to_folder(index, tmp_path / "out", rows_per_shard=10)


def test_a_node_without_a_vector_is_a_failure(tmp_path, monkeypatch):
    index = index_over("simple", tmp_path)
    gone = nodes()[3].node_id
    real = StoredVectors.get
    monkeypatch.setattr(StoredVectors, "get", lambda s, ids: real(s, [i for i in ids if i != gone]))
    report = index_to_folder(index, tmp_path / "out")
    assert (report.written, report.failed) == (24, 1)
    [failures] = (tmp_path / "out" / "_failures").glob("*.jsonl")
    assert gone in failures.read_text()
