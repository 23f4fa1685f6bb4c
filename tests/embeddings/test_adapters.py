import json

import numpy as np
import pytest
import torch
from llama_index.core import MockEmbedding
from llama_index.embeddings.adapter import (
    AdapterEmbeddingModel as StockModel,
    BaseAdapter,
    LinearLayer,
)
from llama_index.embeddings.adapter.utils import TwoLayerNN

from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.adapter.modules import (
    LowRankLayer,
    linear_layer,
    map_of_module,
    two_layer,
)
from llama_index.tuning.embeddings.adapter.saved import Adapter, identity_adapter
from llama_index.tuning.errors import ArtifactError, VectorError

DIM = 6


class Deep(BaseAdapter):
    """A user's own three-layer network with a residual."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(dim, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, dim)
        )

    def forward(self, embed):
        return embed + self.layers(embed)

    def get_config_dict(self):
        return {"dim": self.dim, "hidden": self.hidden}


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.manual_seed(1)))
    return module


MODULES = {
    "linear": lambda: LinearLayer(DIM, DIM),
    "linear with bias": lambda: LinearLayer(DIM, DIM, bias=True),
    "low-rank": lambda: LowRankLayer(DIM, 2),
    "two-layer": lambda: two_layer(DIM, 5),
    "two-layer without residual": lambda: TwoLayerNN(DIM, 5, DIM, activation_fn_str="tanh"),
    "leaky": lambda: TwoLayerNN(DIM, 5, DIM, activation_fn_str="leaky_relu", add_residual=True),
    "sigmoid": lambda: TwoLayerNN(DIM, 5, DIM, activation_fn_str="sigmoid"),
    "custom": lambda: Deep(DIM, 5),
}


@pytest.fixture(params=MODULES)
def module(request):
    return randomised(MODULES[request.param]())


def vectors(n=4):
    return np.random.default_rng(0).standard_normal((n, DIM)).astype(np.float32)


def test_the_served_map_gives_what_the_module_gives(module):
    expected = module(torch.from_numpy(vectors())).detach().numpy()
    np.testing.assert_allclose(map_of_module(module)(vectors()), expected, atol=1e-5)


def test_save_and_load_keep_the_map_bit_for_bit(module, tmp_path):
    adapter = Adapter(map_of_module(module), "both", base_model="m", details={"seed": 3})
    adapter.save(tmp_path / "a")
    loaded = Adapter.load(tmp_path / "a", adapter_cls=Deep)
    assert loaded.fingerprint == adapter.fingerprint
    assert (loaded.side, loaded.base_model, loaded.details["seed"]) == ("both", "m", 3)
    assert np.array_equal(loaded.map_documents(vectors()), adapter.map_documents(vectors()))


def test_the_stock_adapter_loads_our_folder(module, tmp_path):
    Adapter(map_of_module(module), normalise=False).save(tmp_path / "a")
    kinds = {Deep: Deep, TwoLayerNN: TwoLayerNN}
    stock = StockModel(
        MockEmbedding(embed_dim=DIM), str(tmp_path / "a"), adapter_cls=kinds.get(type(module))
    )
    base = np.array([MockEmbedding(embed_dim=DIM).get_query_embedding("q")], dtype=np.float32)
    expected = map_of_module(module)(base)[0]
    np.testing.assert_allclose(stock.get_query_embedding("q"), expected, rtol=1e-4, atol=1e-5)


def test_a_stock_folder_loads_in_ours(tmp_path):
    for name, stock in (("l", LinearLayer(DIM, DIM, bias=True)), ("t", TwoLayerNN(DIM, 3, DIM))):
        randomised(stock).save(str(tmp_path / name))
        loaded = Adapter.load(tmp_path / name)
        expected = stock(torch.from_numpy(vectors())).detach().numpy()
        np.testing.assert_allclose(loaded.map_queries(vectors()), expected, rtol=1e-4, atol=1e-5)


def test_untrained_adapters_leave_vectors_unchanged():
    for module in (linear_layer(DIM), LowRankLayer(DIM, 2), two_layer(DIM, 5)):
        adapter = Adapter(map_of_module(module), normalise=False)
        np.testing.assert_allclose(adapter.map_queries(vectors()), vectors(), atol=1e-6)
    assert np.array_equal(identity_adapter(DIM).map_queries(vectors()), vectors())


def test_a_query_side_adapter_leaves_documents_alone():
    adapter = Adapter(LinearMap(2 * np.eye(DIM, dtype=np.float32)))
    assert adapter.map_documents(vectors()) is not None
    assert np.array_equal(adapter.map_documents(vectors()), vectors())


def test_a_pickle_in_place_of_weights_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    LinearLayer(DIM, DIM).save(str(tmp_path / "old"))
    torch.save({"linear.weight": Bomb()}, tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="holds more than weights, or is damaged"):
        Adapter.load(tmp_path / "old")
    assert not (tmp_path / "ran").exists()


def test_vectors_of_another_size_are_refused():
    with pytest.raises(VectorError, match=r"of dimension 6, got 3; .* model 'minilm'"):
        identity_adapter(DIM, "minilm").map_queries(np.ones((1, 3), np.float32))


def change(path, **values):
    config = json.loads((path / "tuning.json").read_text())
    config.update(values)
    (path / "tuning.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"side": "left"}, "side must be query or both, got 'left'"),
        ({"map": "cubic"}, "unknown kind 'cubic'"),
        ({"map": "two_layer"}, "the weights are not those of a two_layer map"),
        ({"config": {"in_features": 9, "out_features": 6, "bias": False}}, "do not fit"),
        ({"fingerprint": "0" * 16}, "damaged or was edited"),
        ({"normalise": False}, "damaged or was edited"),
        ({"format": 2}, "has format 2"),
        ({"map": "custom"}, "pass its class as adapter_cls="),
    ],
)
def test_an_edited_folder_is_refused(tmp_path, values, words):
    path = tmp_path / "a"
    Adapter(LinearMap(np.eye(DIM, dtype=np.float32))).save(path)
    change(path, **values)
    with pytest.raises(ArtifactError, match=words):
        Adapter.load(path)


def test_a_folder_that_is_no_adapter_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="is not a folder"):
        Adapter.load(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"has no config.json and no pytorch_model.bin"):
        Adapter.load(tmp_path)
    Adapter(map_of_module(Deep(DIM, 5))).save(tmp_path / "deep")
    with pytest.raises(ArtifactError, match="does not fit LinearLayer"):
        Adapter.load(tmp_path / "deep", adapter_cls=LinearLayer)
