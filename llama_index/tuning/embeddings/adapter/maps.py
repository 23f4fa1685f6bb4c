"""Maps of vectors as they are served: plain NumPy for the kinds that are known.

A user's own torch module is the one kind that needs torch to answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning.errors import ArtifactError

State = dict[str, Float32]

_ACTIVATIONS: dict[str, Callable[[Float32], Float32]] = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.maximum(x, np.float32(0.01) * x),
    "tanh": np.tanh,
    "sigmoid": lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)),
}


class VectorMap(ABC):
    """A map of vectors, `(rows, in)` → `(rows, out)`."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension of the vectors it takes."""

    @property
    def of_unit_vectors(self) -> bool:
        """Whether the length of a vector matters to where it is mapped."""
        return True

    @abstractmethod
    def __call__(self, vectors: Float32) -> Float32:
        """Map them."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments of the torch class with these weights."""

    @abstractmethod
    def state(self) -> State:
        """The weights, by the names of the torch class."""


@dataclass(frozen=True, eq=False)
class LinearMap(VectorMap):
    """`x Wᵀ + b`; `weight` has shape `(out, in)`."""

    kind: ClassVar[str] = "linear"
    weight: Float32
    bias: Float32 | None = None

    @property
    def dim(self) -> int:
        return int(self.weight.shape[1])

    @property
    def of_unit_vectors(self) -> bool:
        return self.bias is not None

    def __call__(self, vectors: Float32) -> Float32:
        mapped: Float32 = vectors @ self.weight.T
        return mapped if self.bias is None else mapped + self.bias

    def config(self) -> dict[str, Any]:
        out, dim = self.weight.shape
        return {"in_features": dim, "out_features": out, "bias": self.bias is not None}

    def state(self) -> State:
        bias = {} if self.bias is None else {"linear.bias": self.bias}
        return {"linear.weight": self.weight, **bias}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: State) -> LinearMap:
        return cls(state["linear.weight"], state.get("linear.bias"))


@dataclass(frozen=True, eq=False)
class LowRankMap(VectorMap):
    """`x + x Dᵀ Uᵀ`; `down` has shape `(rank, dim)`, `up` `(dim, rank)`. (Hu et al. 2021)"""

    kind: ClassVar[str] = "low_rank"
    down: Float32
    up: Float32

    @property
    def dim(self) -> int:
        return int(self.down.shape[1])

    @property
    def of_unit_vectors(self) -> bool:
        return False

    def __call__(self, vectors: Float32) -> Float32:
        mapped: Float32 = vectors + (vectors @ self.down.T) @ self.up.T
        return mapped

    def config(self) -> dict[str, Any]:
        return {"in_features": self.dim, "rank": self.down.shape[0]}

    def state(self) -> State:
        return {"down.weight": self.down, "up.weight": self.up}

    def merged(self) -> LinearMap:
        """The same map as one matrix."""
        return LinearMap(np.eye(self.dim, dtype=np.float32) + self.up @ self.down)

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: State) -> LowRankMap:
        return cls(state["down.weight"], state["up.weight"])


@dataclass(frozen=True, eq=False)
class RememberingMap(VectorMap):
    """`x + up (down x) + answersᵀ relu(questions x - near) + bias`: a linear map and a memory.

    Of unit vectors: `questions` and `answers` have shape `(n, dim)`, `near` is a cosine, `(1,)`.
    """

    kind: ClassVar[str] = "remembering"
    weights: State

    @property
    def dim(self) -> int:
        return int(self.weights["down"].shape[1])

    def __call__(self, vectors: Float32) -> Float32:
        w = self.weights
        near = np.maximum(vectors @ w["questions"].T - w["near"], 0)
        mapped: Float32 = vectors + (vectors @ w["down"].T) @ w["up"].T + near @ w["answers"]
        return mapped + w["bias"] if "bias" in w else mapped

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.dim,
            "rank": self.weights["down"].shape[0],
            "questions": self.weights["questions"].shape[0],
            "bias": "bias" in self.weights,
        }

    def state(self) -> State:
        return self.weights

    def merged(self) -> LinearMap:
        """The linear part as one matrix: what there is for questions that are near to none."""
        product = self.weights["up"] @ self.weights["down"]
        return LinearMap(np.eye(self.dim, dtype=np.float32) + product, self.weights.get("bias"))

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: State) -> RememberingMap:
        names = ["up", "down", "questions", "answers", "near"]
        return cls({name: state[name] for name in names + ["bias"] * bool(config.get("bias"))})


@dataclass(frozen=True, eq=False)
class LinearForm:
    """`factor · (x + up (down x)) + bias`, of any rank.

    Attributes:
        factor: a positive number.
        up: shape `(dim, m)`.
        down: shape `(m, dim)`.
        bias: shape `(dim,)`, or `None`.
    """

    factor: float
    up: Float32
    down: Float32
    bias: Float32 | None = None

    def __call__(self, vectors: Float32) -> Float32:
        mapped: Float32 = np.float32(self.factor) * (vectors + (vectors @ self.down.T) @ self.up.T)
        return mapped if self.bias is None else mapped + self.bias

    def matrix(self) -> Float32:
        """*Shape:* `(dim, dim)`; the bias is left out."""
        product: Float32 = np.eye(len(self.up), dtype=np.float32) + self.up @ self.down
        product *= np.float32(self.factor)
        return product

    def plus(self, up: Float32, down: Float32, bias: Float32 | None) -> LinearForm:
        """The sum with `up (down x) + bias`."""
        total = bias if self.bias is None or bias is None else self.bias + bias
        return LinearForm(
            self.factor,
            np.concatenate([self.up, up / np.float32(self.factor)], axis=1),
            np.concatenate([self.down, down]),
            self.bias if total is None else total,
        )

    def compressed(self) -> LinearForm:
        """The same map, of no higher rank than it needs."""
        left, upper = np.linalg.qr(self.up)
        right, lower = np.linalg.qr(self.down.T)
        u, s, v = np.linalg.svd(upper @ lower.T)
        rank = max(1, int((s > s[0] * 1e-4).sum()))
        up = left @ (u[:, :rank] * s[:rank])
        down = np.ascontiguousarray((right @ v[:rank].T).T)
        return replace(self, up=up.astype(np.float32), down=down.astype(np.float32))


@dataclass(frozen=True, eq=False)
class TwoLayerMap(VectorMap):
    """`r · (act(x W₁ᵀ + b₁) W₂ᵀ + b₂) + x`, the stock `TwoLayerNN`; `+ x` and `r` by option."""

    kind: ClassVar[str] = "two_layer"
    weights: State
    activation: str
    residual: bool

    @property
    def dim(self) -> int:
        return int(self.weights["linear1.weight"].shape[1])

    def __call__(self, vectors: Float32) -> Float32:
        w = self.weights
        hidden = _ACTIVATIONS[self.activation](vectors @ w["linear1.weight"].T + w["linear1.bias"])
        mapped: Float32 = hidden @ w["linear2.weight"].T + w["linear2.bias"]
        return w["residual_weight"] * mapped + vectors if self.residual else mapped

    def config(self) -> dict[str, Any]:
        hidden, dim = self.weights["linear1.weight"].shape
        return {
            "in_features": dim,
            "hidden_features": hidden,
            "out_features": self.weights["linear2.weight"].shape[0],
            "bias": True,
            "activation_fn_str": self.activation,
            "add_residual": self.residual,
        }

    def state(self) -> State:
        return self.weights

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: State) -> TwoLayerMap:
        activation = config.get("activation_fn_str", "relu")
        if activation not in _ACTIVATIONS:
            raise ArtifactError(
                f"unknown activation {activation!r}; choose one of: {', '.join(_ACTIVATIONS)}"
            )
        names = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
        weights = {name: state[name] for name in (*names, "residual_weight")}
        return cls(weights, activation, bool(config.get("add_residual", False)))


@dataclass(frozen=True, eq=False)
class TorchMap(VectorMap):
    """A user's own `llama_index.embeddings.adapter.BaseAdapter`; needs torch to answer."""

    kind: ClassVar[str] = "custom"
    module: Any
    device: str = "cpu"
    given_dim: int = 0

    @property
    def dim(self) -> int:
        return self.given_dim

    def __call__(self, vectors: Float32) -> Float32:
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(vectors)).to(self.device)
            mapped: Float32 = self.module(given).cpu().numpy()
        return mapped

    def config(self) -> dict[str, Any]:
        return dict(self.module.get_config_dict())

    def state(self) -> State:
        return {
            name: tensor.detach().cpu().numpy().astype(np.float32)
            for name, tensor in self.module.state_dict().items()
        }


MAPS: dict[str, Callable[[Mapping[str, Any], State], VectorMap]] = {
    "linear": LinearMap.from_state,
    "low_rank": LowRankMap.from_state,
    "two_layer": TwoLayerMap.from_state,
    "remembering": RememberingMap.from_state,
}
