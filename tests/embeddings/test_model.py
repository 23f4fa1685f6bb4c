import logging
import pickle

import numpy as np
import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SemanticSplitterNodeParser
from llama_index.core.storage.kvstore import SimpleKVStore

from llama_index.tuning import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.adapter.saved import Adapter, identity_adapter
from llama_index.tuning.errors import ArtifactError, VectorError
from tests.conftest import TableEmbedding

FLIP = np.array([[0, 1], [1, 0]], dtype=np.float32)
TABLE = {"east": [1, 0], "north": [0, 1], "to the east": [0, 3]}


def flipped(side="query", **fields):
    base = TableEmbedding(TABLE, dim=2, **fields)
    return AdapterEmbeddingModel(base, Adapter(LinearMap(FLIP), side)), base


def test_queries_are_mapped_to_unit_length_and_documents_are_not():
    model, _ = flipped()
    assert model.get_query_embedding("to the east") == [1.0, 0.0]
    assert model.get_text_embedding("to the east") == [0.0, 3.0]


def test_both_sides_map_documents_too():
    model, _ = flipped("both")
    assert model.get_text_embedding("to the east") == [1.0, 0.0]
    assert model.get_text_embedding_batch(["north", "east"]) == [[1.0, 0.0], [0.0, 1.0]]
    assert model.get_text_embedding_batch([]) == []


async def test_async_gives_the_same():
    for side in ("query", "both"):
        model, _ = flipped(side)
        assert await model.aget_query_embedding("north") == model.get_query_embedding("north")
        texts = ["north", "east", "to the east"]
        assert await model.aget_text_embedding_batch(texts) == model.get_text_embedding_batch(texts)
        assert await model.aget_text_embedding("east") == model.get_text_embedding("east")


def test_a_hundred_texts_are_as_many_calls_as_the_base_model_makes():
    model, base = flipped("both", embed_batch_size=10)
    model.get_text_embedding_batch([f"text {i}" for i in range(100)])
    assert [len(call) for call in base.calls] == [10] * 10


def test_transform_query_false_leaves_queries_alone():
    base = TableEmbedding(TABLE, dim=2)
    model = AdapterEmbeddingModel(base, Adapter(LinearMap(FLIP)), transform_query=False)
    assert model.get_query_embedding("north") == [0.0, 1.0]


def test_an_index_finds_what_the_adapter_says():
    model, base = flipped()
    nodes = [Document(id_="e", text="east"), Document(id_="n", text="north")]
    index = VectorStoreIndex.from_documents(nodes, embed_model=model)
    before = index.as_retriever(similarity_top_k=1, embed_model=base).retrieve("to the east")
    after = index.as_retriever(similarity_top_k=1).retrieve("to the east")
    assert (before[0].text, after[0].text) == ("north", "east")


def test_settings_and_the_semantic_splitter_take_it(monkeypatch):
    model, _ = flipped("both")
    monkeypatch.setattr(Settings, "_embed_model", None)
    Settings.embed_model = model
    assert Settings.embed_model is model
    splitter = SemanticSplitterNodeParser(embed_model=model, buffer_size=1)
    document = Document(text="It is east. It is north. It is both. It is none.")
    assert splitter.get_nodes_from_documents([document])


def test_an_ingestion_cache_never_mixes_two_adapters():
    base = TableEmbedding(TABLE, dim=2)
    cache = IngestionCache(cache=SimpleKVStore())
    vectors = []
    for matrix in (FLIP, -FLIP, FLIP):
        model = AdapterEmbeddingModel(base, Adapter(LinearMap(matrix), "both"))
        pipeline = IngestionPipeline(transformations=[model], cache=cache)
        vectors.append(pipeline.run(documents=[Document(id_="e", text="east")])[0].embedding)
    assert vectors[0] == vectors[2] == [0.0, 1.0]
    assert vectors[1] == [0.0, -1.0]
    assert len(base.calls) == 2  # the third run came from the cache


def test_to_dict_carries_the_fingerprint_and_from_dict_checks_it(tmp_path):
    Adapter(LinearMap(FLIP)).save(tmp_path / "a")
    base = TableEmbedding(TABLE, dim=2)
    data = AdapterEmbeddingModel(base, tmp_path / "a").to_dict()
    again = AdapterEmbeddingModel.from_dict(data, base_embed_model=base)
    assert again.get_query_embedding("north") == [1.0, 0.0]
    Adapter(LinearMap(-FLIP)).save(tmp_path / "a")
    with pytest.raises(ArtifactError, match="holds another adapter by now"):
        AdapterEmbeddingModel.from_dict(data, base_embed_model=base)
    with pytest.raises(TypeError, match="base_embed_model"):
        AdapterEmbeddingModel.from_dict(data)


def test_it_can_be_pickled_for_worker_processes():
    model, _ = flipped("both")
    copy = pickle.loads(pickle.dumps(model))
    assert copy.get_text_embedding("north") == [1.0, 0.0]


def test_another_base_model_is_refused():
    adapter = Adapter(LinearMap(FLIP), base_model="text-embedding-3-small")
    with pytest.raises(ArtifactError, match="'text-embedding-3-small', not for 'table'"):
        AdapterEmbeddingModel(TableEmbedding(dim=2), adapter)


def test_a_local_model_may_lie_elsewhere_on_the_serving_machine():
    adapter = Adapter(LinearMap(FLIP), base_model="minilm/model")
    model = AdapterEmbeddingModel(TableEmbedding(dim=2, model_name="/srv/minilm/model"), adapter)
    assert model.base_model_name == "/srv/minilm/model"


def test_a_base_model_of_another_dimension_is_refused_at_the_first_vector():
    model = AdapterEmbeddingModel(TableEmbedding(dim=3), Adapter(LinearMap(FLIP)))
    with pytest.raises(VectorError, match="maps vectors of dimension 2, got 3"):
        model.get_query_embedding("anything")


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="base_embed_model must be a BaseEmbedding, got str"):
        AdapterEmbeddingModel("minilm", identity_adapter(2))


def test_a_refused_adapter_serves_the_base_and_says_so(tmp_path, caplog):
    identity_adapter(2, accepted=False, reason="no gain is shown").save(tmp_path / "a")
    with caplog.at_level(logging.WARNING):
        model = AdapterEmbeddingModel(TableEmbedding(TABLE, dim=2), tmp_path / "a")
    assert "no gain is shown" in caplog.text
    assert model.get_query_embedding("to the east") == [0.0, 3.0]


def test_the_bases_own_cache_is_used():
    base = TableEmbedding(TABLE, dim=2, embeddings_cache=SimpleKVStore())
    model = AdapterEmbeddingModel(base, Adapter(LinearMap(FLIP)))
    assert [model.get_query_embedding("north") for _ in range(3)] == [[1.0, 0.0]] * 3
    assert len(base.calls) == 1
