"""The memory of single questions: who is pulled, when it is chosen, how it is kept."""

import numpy as np
import pytest
import torch
from llama_index.core import MockEmbedding
from llama_index.embeddings.adapter import AdapterEmbeddingModel as StockModel

from llama_index.tuning import EmbeddingAdapterFinetuneEngine
from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.fit import make_adapter, map_vectors
from llama_index.tuning.embeddings.adapter.maps import LinearForm, LinearMap, RememberingMap
from llama_index.tuning.embeddings.adapter.modules import (
    LinearLayer,
    RememberingLayer,
    map_of_module,
    module_of_map,
)
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.embeddings.adapter.solved.memory import Memory, remembering_module

DIM = 24


def unit(matrix):
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def variants():
    """Forty questions in four wordings each, which no map leads to their documents."""
    rng = np.random.default_rng(0)
    documents = unit(rng.normal(size=(60, DIM)))
    topics = unit(rng.normal(size=(40, DIM)))
    asked = unit(topics.repeat(4, 0) + 0.4 * unit(rng.normal(size=(160, DIM))))
    return Pairs(asked, [np.array([row]) for row in np.arange(40).repeat(4)]), documents


@pytest.fixture
def remembering():
    rng = np.random.default_rng(1)
    form = LinearForm(2.0, *(rng.normal(size=s).astype(np.float32) for s in ((DIM, 3), (3, DIM))))
    memory = Memory(unit(rng.normal(size=(7, DIM))), unit(rng.normal(size=(7, DIM))), 0.3)
    return form, memory


def test_a_question_near_a_remembered_one_is_pulled_to_its_answer(variants):
    pairs, documents = variants
    memory = Memory.of(pairs, documents)
    again = memory(pairs.vectors[:1])[0]
    assert (documents @ again).argmax() == 0
    far = -pairs.vectors.mean(0, keepdims=True)
    np.testing.assert_array_equal(memory(unit(far)), np.zeros((1, DIM)))


def test_near_is_nearer_than_questions_about_other_documents_are(variants):
    pairs, documents = variants
    cosines = pairs.vectors @ pairs.vectors.T
    topic = np.arange(160) // 4
    foreign = np.where(topic[:, None] == topic, -1, cosines).max(1)
    assert Memory.of(pairs, documents).near == pytest.approx(np.quantile(foreign, 0.75), abs=1e-5)


def test_it_is_chosen_where_questions_return_in_other_words(variants):
    pairs, documents = variants
    options = AdapterOptions(scale=20.0)
    done = cross_fit(lambda: make_adapter(DIM, options), pairs, documents, options)
    assert isinstance(done.adapter, RememberingLayer)
    found = (unit(map_vectors(done.adapter, pairs.vectors)) @ documents.T).argmax(1)
    assert (found == np.arange(40).repeat(4)).mean() > 0.9
    for plain in (AdapterOptions(memory=False), AdapterOptions(side="both")):
        done = cross_fit(lambda: make_adapter(DIM, plain), pairs, documents, plain)  # noqa: B023
        assert not isinstance(done.adapter, RememberingLayer)


def test_the_module_and_the_served_map_are_the_sum_of_map_and_memory(remembering):
    form, memory = remembering
    asked = unit(np.random.default_rng(2).normal(size=(9, DIM)))
    wanted = unit(form(asked) + 0.5 * memory(asked))
    module = remembering_module(form, memory, 0.5)
    np.testing.assert_allclose(unit(map_vectors(module, asked)), wanted, atol=1e-5)
    served = map_of_module(module)
    np.testing.assert_allclose(unit(served(asked)), wanted, atol=1e-5)
    back = module_of_map(served).state_dict()
    assert all(torch.equal(back[name], weight) for name, weight in module.state_dict().items())


def test_its_folder_loads_and_the_stock_adapter_reads_the_linear_part(remembering, tmp_path):
    form, memory = remembering
    adapter = Adapter(map_of_module(remembering_module(form, memory, 0.5)))
    adapter.save(tmp_path / "adapter")
    loaded = Adapter.load(tmp_path / "adapter")
    assert isinstance(loaded.map, RememberingMap)
    asked = np.random.default_rng(2).normal(size=(9, DIM)).astype(np.float32)
    np.testing.assert_array_equal(loaded.map_queries(asked), adapter.map_queries(asked))
    stock = StockModel(MockEmbedding(embed_dim=DIM), str(tmp_path / "adapter"))
    assert isinstance(stock._adapter, LinearLayer)
    weight = stock._adapter.linear.weight.detach().numpy()
    np.testing.assert_allclose(weight * form.factor, form.matrix(), rtol=1e-3, atol=1e-3)


def test_length_of_the_models_vectors_does_not_matter(remembering):
    adapter = Adapter(map_of_module(remembering_module(*remembering, 0.5)))
    asked = unit(np.random.default_rng(3).normal(size=(2, DIM)))
    wanted = adapter.map_queries(asked)
    np.testing.assert_allclose(adapter.map_queries(7 * asked), wanted, atol=1e-5)
    one = adapter.map_query((7 * asked[0]).tolist())
    np.testing.assert_allclose(one, wanted[0], atol=1e-5)


def test_going_on_starts_at_the_linear_part(remembering, tmp_path):
    Adapter(map_of_module(remembering_module(*remembering, 0.5))).save(tmp_path / "adapter")
    engine = EmbeddingAdapterFinetuneEngine.from_model_path(
        None, MockEmbedding(embed_dim=DIM), str(tmp_path / "adapter"), unlabelled=["a", "b"]
    )
    assert isinstance(engine.adapter_model, LinearLayer)


def test_the_linear_part_keeps_its_bias():
    rng = np.random.default_rng(4)
    bias = rng.normal(size=DIM).astype(np.float32)
    form = LinearForm(2.0, np.zeros((DIM, 1), np.float32), np.zeros((1, DIM), np.float32), bias)
    memory = Memory(unit(rng.normal(size=(3, DIM))), unit(rng.normal(size=(3, DIM))), 0.3)
    linear = map_of_module(remembering_module(form, memory, 0.5)).merged()
    assert isinstance(linear, LinearMap)
    np.testing.assert_allclose(linear.bias, bias / 2, atol=1e-6)
