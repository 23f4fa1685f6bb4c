"""Which model made a vector: by what it does."""

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode

from llama_index.tuning import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    RetrievalDataset,
    RouterFinetuneEngine,
    RoutingDataset,
    TunedRetriever,
    TunedSelector,
)
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.identity import (
    PROBES,
    check_signature,
    model_signature,
    same_signature,
    vector_space,
)


class Stateful(BaseEmbedding):
    """A model as LlamaIndex' documentation writes them: its state is private."""

    max_tokens: int = 512
    _path: str = PrivateAttr()
    _noise: float = PrivateAttr(0.0)
    _calls: list = PrivateAttr(default_factory=list)

    def __init__(self, path, noise=0.0, **named):
        super().__init__(**named)
        self._path, self._noise = path, noise

    def _get_text_embedding(self, text):
        self._calls.append(text)
        words = [f"{self._path} {word}" for word in text.lower().split()]
        drawn = [np.random.default_rng(list(w.encode())).standard_normal(16) for w in words]
        jitter = np.random.default_rng(len(self._calls)).standard_normal(16)
        return (np.sum(drawn, axis=0) + self._noise * jitter).tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


TEXTS = [f"refund rule number {i}" for i in range(12)]


def fresh(model, cache):
    found = Embedder(model, cache=cache).documents(TEXTS)
    return found, [text for text in model._calls if text not in PROBES]


def test_a_cache_gives_each_model_its_own_vectors(tmp_path):
    cache = tmp_path / "v.sqlite"
    first, asked = fresh(Stateful("a"), cache)
    assert sorted(asked) == sorted(TEXTS)
    for path in ("b", "a", "b"):
        found, _ = fresh(Stateful(path), cache)
        assert np.allclose(found, fresh(Stateful(path), None)[0])
        assert np.allclose(found, first) == (path == "a")
    assert fresh(Stateful("a"), cache)[1] == fresh(Stateful("b"), cache)[1] == []


def test_an_apis_noise_is_no_other_model(tmp_path):
    cache = tmp_path / "v.sqlite"
    fresh(Stateful("a", noise=1e-3), cache)
    assert fresh(Stateful("a", noise=1e-3), cache)[1] == []


def test_a_model_trained_again_in_place_is_another(tmp_path):
    model, cache = Stateful("a"), tmp_path / "v.sqlite"
    before, _ = fresh(model, cache)
    model._path = "a, trained again"
    assert not np.allclose(before, fresh(model, cache)[0])


def test_queries_and_texts_are_told_apart(tmp_path):
    class Prompted(Stateful):
        def _get_query_embedding(self, query):
            return self._get_text_embedding(f"query: {query}")

    signature = model_signature(Prompted("a"))
    assert not same_signature(signature, model_signature(Stateful("a")))
    assert same_signature(signature, model_signature(Prompted("a")))


def test_a_limit_of_tokens_is_no_secret():
    assert vector_space(Stateful("a")) != vector_space(Stateful("a", max_tokens=128))


def test_other_dimensions_and_damaged_signatures_are_refused():
    class Short(Stateful):
        def _get_text_embedding(self, text):
            return super()._get_text_embedding(text)[:8]

        _get_query_embedding = _get_text_embedding

    saved = model_signature(Stateful("a"))
    check_signature(Stateful("a"), saved, "it")
    check_signature(Stateful("b"), None, "it")  # of an earlier version
    with pytest.raises(ArtifactError, match="it was tuned on other vectors than 'unknown' gives"):
        check_signature(Short("a"), saved, "it")
    with pytest.raises(ArtifactError, match="signature of the model is damaged"):
        check_signature(Stateful("a"), [["x"]], "it")


def test_a_router_is_refused_by_another_model(tmp_path):
    pairs = [(f"{verb} {noun} {i}", noun) for i in range(5) for verb in ("pay", "find")
             for noun in ("bills", "flats")]  # fmt: skip
    engine = RouterFinetuneEngine(RoutingDataset.from_pairs(pairs), Stateful("a"), accept="always")
    engine.finetune()
    engine.get_finetuned_model().save(tmp_path / "r")
    assert TunedSelector.load(tmp_path / "r", Stateful("a")).predict("pay bills").names
    with pytest.raises(ArtifactError, match="was tuned on other vectors"):
        TunedSelector.load(tmp_path / "r", Stateful("other"))


def test_a_retriever_is_refused_by_another_model(tmp_path):
    nodes = [TextNode(id_=text, text=text) for text in TEXTS]
    one, other = (VectorStoreIndex(nodes, embed_model=Stateful(p)).as_retriever() for p in "ab")
    TunedRetriever(one, nodes).save(tmp_path / "r")
    assert TunedRetriever.load(tmp_path / "r", one)
    with pytest.raises(ArtifactError, match="was tuned on other vectors"):
        TunedRetriever.load(tmp_path / "r", other)


def test_an_adapter_is_refused_by_another_model_and_without_its_settings(tmp_path):
    corpus = {f"d{i}": text for i, text in enumerate(TEXTS)}
    queries = {f"q{i}": f"which rule is {i}" for i in range(12)}
    data = RetrievalDataset(queries, corpus, {f"q{i}": [f"d{i}"] for i in range(12)})
    engine = EmbeddingAdapterFinetuneEngine(
        data,
        Stateful("a"),
        model_output_path=tmp_path / "adapter",
        options=AdapterOptions(max_epochs=2),
        accept="always",
    )
    engine.finetune()
    AdapterEmbeddingModel(Stateful("a"), tmp_path / "adapter")
    with pytest.raises(ArtifactError, match="was tuned on other vectors"):
        AdapterEmbeddingModel(Stateful("b"), tmp_path / "adapter")
    (tmp_path / "adapter" / "tuning.json").unlink()
    with pytest.raises(ArtifactError, match=r"has model.safetensors but no tuning.json"):
        AdapterEmbeddingModel(Stateful("a"), tmp_path / "adapter")
