"""The trainable forms of the adapters, all starting as the identity."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llama_index.embeddings.adapter.utils import BaseAdapter, LinearLayer, TwoLayerNN
from torch import Tensor, nn

from llama_index.tuning.embeddings.adapter.maps import MAPS, LinearForm, TorchMap, VectorMap


class LowRankLayer(BaseAdapter):
    """`x + U D x`, with `D` random and `U` zero at first (LoRA; Hu et al. 2021).

    Args:
        in_features: dimension of the vectors.
        rank: rows of `D`.
    """

    def __init__(self, in_features: int, rank: int) -> None:
        super().__init__()
        self.in_features, self.rank = in_features, rank
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, in_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, embed: Tensor) -> Tensor:
        """*Shape:* `(batch, dim)` → `(batch, dim)`."""
        mapped: Tensor = embed + self.up(self.down(embed))
        return mapped

    def get_config_dict(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "rank": self.rank}


class RememberingLayer(BaseAdapter):
    """The trained form of `RememberingMap`; it is solved, not trained.

    Args:
        in_features: dimension of the vectors.
        rank: of the linear part.
        questions: how many are remembered.
        bias: whether it adds a constant vector.
    """

    def __init__(self, in_features: int, rank: int, questions: int, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.rank = in_features, rank
        self.down = nn.Parameter(torch.zeros(rank, in_features))
        self.up = nn.Parameter(torch.zeros(in_features, rank))
        self.questions = nn.Parameter(torch.zeros(questions, in_features))
        self.answers = nn.Parameter(torch.zeros(questions, in_features))
        self.near = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(in_features)) if bias else None

    def forward(self, embed: Tensor) -> Tensor:
        """*Shape:* `(batch, dim)` → `(batch, dim)`."""
        near = torch.relu(embed @ self.questions.T - self.near)
        mapped: Tensor = embed + (embed @ self.down.T) @ self.up.T + near @ self.answers
        return mapped if self.bias is None else mapped + self.bias

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "rank": self.rank,
            "questions": len(self.questions),
            "bias": self.bias is not None,
        }


def linear_layer(dim: int, *, bias: bool = False) -> LinearLayer:
    """The stock linear layer; it starts as the identity by itself."""
    return LinearLayer(dim, dim, bias=bias)


def linear_module(form: LinearForm, *, bias: bool) -> BaseAdapter:
    """A linear map as the smaller module: of its rank, if that is below half its dimension.

    Its vectors keep their direction, not their length.
    """
    dim, rank = form.up.shape
    with torch.no_grad():
        if not bias and 2 * rank < dim:
            low_rank = LowRankLayer(dim, rank)
            low_rank.up.weight.copy_(torch.from_numpy(form.up))
            low_rank.down.weight.copy_(torch.from_numpy(form.down))
            return low_rank.eval()
        full = linear_layer(dim, bias=bias)
        full.linear.weight.copy_(torch.from_numpy(form.matrix()))
        if form.bias is not None:
            full.linear.bias.copy_(torch.from_numpy(form.bias))
        return full.eval()


def linear_form(module: LinearLayer) -> LinearForm:
    """A linear layer's map; the identity has rank 0."""
    weight = module.linear.weight.detach().numpy()
    bias = module.linear.bias
    constant = None if bias is None else bias.detach().numpy().copy()
    apart = weight - np.eye(*weight.shape, dtype=np.float32)
    if np.allclose(apart, 0, atol=1e-6):
        empty = np.zeros((len(weight), 0), np.float32)
        return LinearForm(1.0, empty, empty.T, constant)
    return LinearForm(1.0, apart, np.eye(len(weight), dtype=np.float32), constant)


def two_layer(dim: int, hidden: int) -> TwoLayerNN:
    """The stock two-layer network with a residual, made to start as the identity.

    The stock class starts its residual weight at 0, which leaves the layers without gradient;
    here that weight is 1 and the last layer is zero.
    """
    module = TwoLayerNN(dim, hidden, dim, bias=True, add_residual=True)
    with torch.no_grad():
        module.residual_weight.fill_(1.0)
        module.linear2.weight.zero_()
        module.linear2.bias.zero_()
    return module


def module_of_map(served: VectorMap) -> BaseAdapter:
    """The trainable form of a served map, with its weights."""
    if isinstance(served, TorchMap):
        custom: BaseAdapter = served.module
        return custom
    classes = {kind: layer for layer, kind in _KINDS.items()}
    module: BaseAdapter = classes[served.kind](**served.config())
    module.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in served.state().items()})
    return module


def map_of_module(module: Any, device: str = "cpu", dim: int = 0) -> VectorMap:
    """The served form of a trained torch module: NumPy if its class is known."""
    custom = TorchMap(module.eval().to(device), device, dim)
    kind = _KINDS.get(type(module))  # a subclass may do anything: it stays a torch module
    return custom if kind is None else MAPS[kind](module.get_config_dict(), custom.state())


_KINDS: dict[type[BaseAdapter], str] = {
    LinearLayer: "linear",
    TwoLayerNN: "two_layer",
    LowRankLayer: "low_rank",
    RememberingLayer: "remembering",
}
