"""Adapters as they are served and saved: a map, the side it is for, the model it was tuned for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import folder_path, plain_arguments
from llama_index.tuning._files import read_json
from llama_index.tuning.embeddings.adapter.maps import (
    MAPS,
    LinearMap,
    LowRankMap,
    RememberingMap,
    State,
    TorchMap,
    VectorMap,
)
from llama_index.tuning.errors import ArtifactError, VectorError
from llama_index.tuning.vectors.learned import Learned
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.tuning.report import FinetuneReport
    from llama_index.tuning.vectors.identity import Signature

Side = Literal["query", "both"]

KIND = "embedding_adapter"


@dataclass(frozen=True, eq=False, repr=False)
class Adapter:
    """A map, the side it is for, and the model whose vectors it maps.

    Args:
        map: the map itself.
        side: `"query"` maps queries only, stored vectors stay; `"both"` maps documents too.
        normalise: scale mapped vectors to unit length, as they were in training.
        base_model: name of the embedding model; empty if unknown.
        details: what else is worth keeping: verdict, options, scores.
        document_map: for an index of another model's vectors (see `drift/`): maps what
            `base_model` makes of a text to its place among them.
        learned: the questions that it has learnt, and their vectors before it had.

    Example:
        >>> import numpy as np
        >>> adapter = Adapter(LinearMap(np.eye(3, dtype=np.float32)))
        >>> adapter.map_queries(np.ones((2, 3), dtype=np.float32)).shape
        (2, 3)
    """

    map: VectorMap
    side: Side = "query"
    normalise: bool = True
    base_model: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    document_map: VectorMap | None = None
    learned: Learned | None = None

    def __repr__(self) -> str:
        of = f", base {self.base_model!r}" if self.base_model else ""
        return f"Adapter({self.map.kind}, {self.dim} dimensions, side {self.side!r}{of})"

    @property
    def dim(self) -> int:
        """Dimension of the vectors it takes; 0 if a custom module does not say."""
        return self.map.dim

    @property
    def fingerprint(self) -> str:
        """A short hash of what the adapter does: its kind, side and weights."""
        digest = hashlib.sha256()
        head = [self.map.kind, self.map.config(), self.side, self.normalise]
        digest.update(json.dumps(head, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.map.state().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        if self.document_map is not None:
            digest.update(Adapter(self.document_map).fingerprint.encode())
        return digest.hexdigest()[:16]

    def map_queries(self, vectors: Float32) -> Float32:
        """Query vectors, `(rows, dim)`, as they go to the vector store."""
        return self._apply(vectors)

    def map_query(self, vector: list[float]) -> list[float]:
        """One query vector: `map_queries` without the cost of a matrix."""
        given = np.fromiter(vector, dtype=np.float32, count=len(vector))
        if len(vector) != self.dim:
            return self.map_queries(given[None])[0].tolist()  # type: ignore[no-any-return]
        if self.normalise and self.map.of_unit_vectors:
            given = unit_rows(given[None])[0]
        mapped = self.map(given)
        if self.normalise:
            length = math.sqrt(mapped @ mapped)
            mapped = mapped / np.float32(length) if length > 0 else mapped
        return mapped.tolist()  # type: ignore[no-any-return]

    def map_documents(self, vectors: Float32) -> Float32:
        """Document vectors, `(rows, dim)`; unchanged for a query-side adapter."""
        return vectors if self.side == "query" else self._apply(vectors)

    def map_texts(self, vectors: Float32) -> Float32:
        """Fresh vectors of texts, `(rows, dim)`, as they go to the vector store."""
        if self.document_map is None:
            return self.map_documents(vectors)
        return Adapter(self.document_map, base_model=self.base_model).map_queries(vectors)

    def _apply(self, vectors: Float32) -> Float32:
        if self.dim and vectors.shape[-1] != self.dim:
            raise VectorError(
                f"the adapter maps vectors of dimension {self.dim}, got {vectors.shape[-1]}; "
                f"it was tuned for the embedding model {self.base_model or '(unknown)'!r}"
            )
        if self.normalise and self.map.of_unit_vectors:
            vectors = unit_rows(vectors)  # as they were in training
        mapped = self.map(vectors)
        return unit_rows(mapped) if self.normalise else mapped

    def save(self, path: artifacts.PathLike) -> None:
        """Write the adapter's folder, atomically.

        `tuning.json`, `model.safetensors` and `README.md` are what `load` reads. `config.json`
        and `pytorch_model.bin` are written for the stock
        `llama_index.embeddings.adapter.AdapterEmbeddingModel`, which loads the folder too: of a
        map that remembers questions the linear part alone.
        """
        with artifacts.replacing_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write the adapter's files into a folder that exists."""
        config = {
            "map": self.map.kind,
            "config": self.map.config(),
            "side": self.side,
            "normalise": self.normalise,
            "base_model": self.base_model,
            "dim": self.dim,
            "fingerprint": self.fingerprint,
            **self.details,
        }
        state = self.map.state()
        if self.document_map is not None:
            config["document_map"] = {
                "map": self.document_map.kind, "config": self.document_map.config()
            }  # fmt: skip
            state = {**state, **_prefixed(self.document_map.state())}
        artifacts.write_component(folder, KIND, config, state, _card(self))
        if self.learned is not None:
            self.learned.write(folder)
        if self.document_map is None:  # the stock adapter would embed texts into the wrong space
            _write_stock_files(folder, self.map)

    @classmethod
    @plain_arguments
    def load(
        cls, path: artifacts.PathLike, *, adapter_cls: type[Any] | None = None, device: str = "cpu"
    ) -> Adapter:
        """Load a folder of this package, or one that the old package or stock adapter wrote.

        Args:
            path: the folder.
            adapter_cls: the class of a custom adapter, or of one in the old format that is not
                linear.
            device: that a custom adapter's module runs on.

        Raises:
            ArtifactError: no adapter, damaged, or of another class.
        """
        if not (folder_path("path", path) / artifacts.CONFIG).exists():
            if (Path(path) / artifacts.WEIGHTS).exists():
                raise ArtifactError(
                    f"{path} is damaged: it has {artifacts.WEIGHTS} but no {artifacts.CONFIG}, "
                    "which says how the adapter is used"
                )
            return cls(_load_stock_map(Path(path), adapter_cls, device), normalise=False)
        config = artifacts.read_config(path, KIND)
        try:
            kind, arguments = config.pop("map"), config.pop("config")
            side, normalise = config.pop("side"), config.pop("normalise")
            base_model, recorded = config.pop("base_model"), config.pop("fingerprint")
            dim = config.pop("dim")
        except KeyError as exc:
            raise ArtifactError(f"{path}: {artifacts.CONFIG} lacks {exc}") from None
        for name, value in {"map": kind, "base_model": base_model}.items():
            if not isinstance(value, str):
                raise ArtifactError(f"{path}: {name} must be a text, got {value!r:.100}")
        if side not in ("query", "both"):
            raise ArtifactError(f"{path}: side must be query or both, got {side!r}")
        state, documents = _split(artifacts.read_tensors(path))
        document_map = _document_map(path, config.pop("document_map", None), documents)
        loaded: VectorMap
        if kind == "custom":
            loaded = _custom_map(path, adapter_cls, arguments, state, device, dim)
        elif kind in MAPS:
            loaded = _known_map(path, kind, arguments, state)
        else:
            raise ArtifactError(f"{path} holds an adapter of unknown kind {kind!r}")
        details = {
            key: value for key, value in config.items() if key not in ("format", "kind", "version")
        }
        learned = Learned.read(Path(path), f"the embedding adapter {path}")
        adapter = cls(
            loaded, side, bool(normalise), str(base_model), details, document_map, learned
        )
        artifacts.check_intact(path)
        if adapter.fingerprint != recorded:
            raise ArtifactError(
                f"{path} is damaged or was edited: its weights do not match {artifacts.CONFIG}"
            )
        return adapter


def run_details(report: FinetuneReport, signature: Signature) -> dict[str, Any]:
    """What an adapter's folder keeps of the run that made it."""
    return {
        "accepted": report.accepted,
        "reason": report.reason,
        "options": report.options,
        "data": report.data,
        "signature": signature,
    }


def identity_adapter(dim: int, base_model: str = "", **details: Any) -> Adapter:
    """The adapter that changes nothing: what is saved if the gate keeps the base."""
    unit = LinearMap(np.eye(dim, dtype=np.float32))
    return Adapter(unit, normalise=False, base_model=base_model, details=details)


_DOCUMENTS = "documents/"


def _prefixed(state: State) -> State:
    return {f"{_DOCUMENTS}{name}": array for name, array in state.items()}


def _split(tensors: State) -> tuple[State, State]:
    """The tensors of the map, and those of the document map."""
    own = {name: array for name, array in tensors.items() if not name.startswith(_DOCUMENTS)}
    others = {name.removeprefix(_DOCUMENTS): tensors[name] for name in tensors if name not in own}
    return own, others


def _document_map(path: artifacts.PathLike, told: Any, state: State) -> VectorMap | None:
    if told is None and not state:
        return None
    if not isinstance(told, dict) or told.get("map") not in MAPS or "config" not in told:
        raise ArtifactError(f"{path}: document_map is not that of a known kind: {told!r}")
    return _known_map(path, told["map"], told["config"], state)


def _known_map(
    path: artifacts.PathLike, kind: str, arguments: Mapping[str, Any], state: State
) -> VectorMap:
    try:
        loaded = MAPS[kind](arguments, state)
        if loaded.config() != dict(arguments):
            raise ArtifactError(f"{path}: the weights' shapes do not fit {dict(arguments)}")
        loaded(np.zeros((1, loaded.dim), dtype=np.float32))
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as exc:
        if isinstance(exc, ArtifactError):
            raise
        raise ArtifactError(f"{path}: the weights are not those of a {kind} map: {exc}") from exc
    return loaded


def _custom_map(
    path: artifacts.PathLike,
    adapter_cls: type[Any] | None,
    arguments: Mapping[str, Any],
    state: State,
    device: str,
    dim: int,
) -> TorchMap:
    if adapter_cls is None:
        raise ArtifactError(f"{path} holds a custom adapter; pass its class as adapter_cls=")
    import torch

    try:
        module = adapter_cls(**arguments)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    except (TypeError, RuntimeError) as exc:
        raise ArtifactError(f"{path} does not fit {adapter_cls.__name__}: {exc}") from exc
    return TorchMap(module.eval().to(device), device, dim)


def _load_stock_map(path: Path, adapter_cls: type[Any] | None, device: str) -> VectorMap:
    """config.json and pytorch_model.bin, as the old package wrote them."""
    if not path.is_dir():
        raise ArtifactError(f"{path} is not a folder")
    missing = [n for n in ("config.json", "pytorch_model.bin") if not (path / n).is_file()]
    if missing:
        raise ArtifactError(f"{path} holds no adapter: it has no {' and no '.join(missing)}")
    import pickle

    import torch
    from llama_index.embeddings.adapter.utils import LinearLayer, TwoLayerNN

    try:
        config = read_json(path / "config.json", ArtifactError)
        guess = TwoLayerNN if "hidden_features" in config else LinearLayer
        module = (adapter_cls or guess)(**config)
        state = torch.load(path / "pytorch_model.bin", map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except pickle.UnpicklingError as exc:
        raise ArtifactError(
            f"{path / 'pytorch_model.bin'} holds more than weights, or is damaged; it is not read"
        ) from exc
    except (ValueError, TypeError, RuntimeError, EOFError, OSError, AttributeError) as exc:
        raise ArtifactError(f"{path} holds no adapter that can be loaded: {exc}") from exc
    from llama_index.tuning.embeddings.adapter.modules import map_of_module

    return map_of_module(module, device)


def _write_stock_files(folder: Path, saved: VectorMap) -> None:
    import torch

    stock = saved.merged() if isinstance(saved, (LowRankMap, RememberingMap)) else saved
    (folder / "config.json").write_text(json.dumps(stock.config()), encoding="utf-8")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in stock.state().items()}
    torch.save(tensors, folder / "pytorch_model.bin")


def _card(adapter: Adapter) -> str:
    reason = adapter.details.get("reason", "")
    query_side = "for queries only: stored vectors stay"
    side = query_side if adapter.side == "query" else "for queries and documents"
    return f"""# Embedding adapter

A {adapter.map.kind.replace("_", "-")} map for the vectors of `{adapter.base_model or "?"}`,
{side}.

{reason}

```python
from llama_index.tuning import AdapterEmbeddingModel

embed_model = AdapterEmbeddingModel(base_embed_model, "this/folder")
```

Written by llama-index-tuning; `tuning.json` holds options, data fingerprint and scores.
"""
