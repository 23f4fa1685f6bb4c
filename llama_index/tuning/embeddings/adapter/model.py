"""The tuned embedding model that an app uses: any base model with an adapter on its vectors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import folder_path, plain_arguments
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.embeddings.adapter.saved import Adapter, Side
from llama_index.tuning.embeddings.over_base import answering, direct, given_base, without_spans
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.vectors.identity import base_name, check_signature, same_name
from llama_index.tuning.vectors.learned import Answers, Learned

logger = logging.getLogger(__name__)

Vector = list[float]


class AdapterEmbeddingModel(BaseEmbedding):
    """A `BaseEmbedding` that maps another one's vectors with a tuned adapter.

    Goes wherever an embedding model goes: `Settings.embed_model`, `VectorStoreIndex`,
    `IngestionPipeline`, node parsers. Batches reach the base model as batches, and linear,
    low-rank and two-layer adapters answer with NumPy alone.

    Args:
        base_embed_model: the model that the adapter was tuned for.
        adapter_path: an adapter's folder, of this package or the old one; or an `Adapter`.
        adapter_cls: the class of a custom adapter.
        transform_query: map queries; `False` leaves them as the base model gives them.
        device: that a custom adapter runs on; `"cpu"` by default.
        embed_batch_size: texts a call; the base model's by default.
        callback_manager: the base model's by default.
        num_workers: concurrent calls of async batches; the base model's by default.

    Raises:
        ArtifactError: no adapter, a damaged one, or one tuned for another model.

    Example:
        >>> import numpy as np
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.tuning.embeddings.adapter.saved import Adapter
        >>> from llama_index.tuning.embeddings.adapter.maps import LinearMap
        >>> turn = Adapter(LinearMap(np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)))
        >>> model = AdapterEmbeddingModel(MockEmbedding(embed_dim=2), turn)
        >>> len(model.get_query_embedding("any question"))
        2
    """

    adapter_path: str = Field(description="The adapter's folder; empty for one in memory.")
    adapter_fingerprint: str = Field(description="Changes with the adapter's weights.")
    base_model_name: str = Field(description="Name of the base embedding model.")
    transform_query: bool = Field(default=True, description="Whether queries are mapped.")

    # Base model, adapter, whether the base's private methods are called, and what `answering`
    # gives: together, since each look-up of a private attribute costs microseconds.
    _parts: tuple[BaseEmbedding, Adapter, bool, Answers] = PrivateAttr()

    @plain_arguments
    def __init__(
        self,
        base_embed_model: BaseEmbedding,
        adapter_path: PathLike | Adapter,
        adapter_cls: type[Any] | None = None,
        transform_query: bool = True,
        device: str | None = None,
        embed_batch_size: int | None = None,
        callback_manager: CallbackManager | None = None,
        *,
        num_workers: int | None = None,
    ) -> None:
        if isinstance(adapter_path, Adapter):
            adapter, path = adapter_path, ""
        else:
            folder_path("adapter_path", adapter_path)
            adapter = Adapter.load(adapter_path, adapter_cls=adapter_cls, device=device or "cpu")
            path = str(Path(adapter_path))
        _check_base(adapter, base_embed_model, path)
        if path:  # one in memory was tuned just now
            saved = adapter.details.get("signature")
            check_signature(base_embed_model, saved, f"the adapter {path}")
        super().__init__(
            model_name=f"Adapter for {base_embed_model.model_name}",
            embed_batch_size=embed_batch_size or base_embed_model.embed_batch_size,
            callback_manager=callback_manager or base_embed_model.callback_manager,
            num_workers=num_workers or base_embed_model.num_workers,
            adapter_path=path,
            adapter_fingerprint=adapter.fingerprint,
            base_model_name=base_embed_model.model_name,
            transform_query=transform_query,
        )
        self._parts = base_embed_model, adapter, direct(base_embed_model), Answers()
        if adapter.details.get("accepted") is False:
            kept = "; the folder serves its vectors" if adapter.details.get("kept_base") else ""
            logger.warning(
                "%s: the base model is kept: %s%s",
                path or "the adapter",
                adapter.details.get("reason", "no reason recorded"),
                kept,
            )

    @classmethod
    def class_name(cls) -> str:
        return "AdapterEmbeddingModel"

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        yield "base", base_name(self.base_embed_model)
        yield "adapter", self.adapter.map.kind
        yield "side", self.side
        if not self.transform_query:
            yield "transform_query", False
        if self.adapter_path:
            yield "path", self.adapter_path

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> AdapterEmbeddingModel:
        """From `to_dict()`; the base model may hold keys, so it is given again.

        Args:
            data: what `to_dict()` gave.
            **kwargs: `base_embed_model`, and `adapter_cls` for a custom adapter.

        Raises:
            ArtifactError: the folder holds another adapter by now, or there is none.
        """
        base, adapter_cls = given_base(kwargs, "adapter_cls")
        if not data.get("adapter_path"):
            raise ArtifactError("the model was never saved: its adapter has no folder")
        model = cls(
            base,
            data["adapter_path"],
            adapter_cls,
            transform_query=data.get("transform_query", True),
            embed_batch_size=data.get("embed_batch_size"),
            num_workers=data.get("num_workers"),
        )
        if model.adapter_fingerprint != data.get("adapter_fingerprint"):
            raise ArtifactError(f"{data['adapter_path']} holds another adapter by now")
        return model

    @property
    def adapter(self) -> Adapter:
        """The adapter."""
        return self._parts[1]

    @property
    def base_embed_model(self) -> BaseEmbedding:
        """The model under the adapter."""
        return self._parts[0]

    @property
    def side(self) -> Side:
        """Which vectors are mapped: `"query"` or `"both"`."""
        return self.adapter.side

    @property
    def fingerprint(self) -> str:
        """The adapter's fingerprint."""
        return self.adapter_fingerprint

    def map_documents(self, vectors: Float32) -> Float32:
        """Stored vectors of the base model, `(rows, dim)`, as this model would have made them."""
        return self.adapter.map_documents(vectors)

    @property
    def learned(self) -> Learned | None:
        """The questions that the adapter has learnt, as far as it knows them."""
        return self.adapter.learned

    @contextlib.contextmanager
    def answering(self, vectors: Mapping[str, Vector]) -> Iterator[set[str]]:
        """Within the block, these questions have these vectors.

        Args:
            vectors: question → its vector, as it goes to the vector store.

        Yields:
            The questions that were asked so far.
        """
        with answering(self, self._parts[3], vectors) as asked:
            yield asked

    def save(self, path: PathLike) -> None:
        """Save the adapter's folder; load it with `AdapterEmbeddingModel(base, path)`."""
        self.adapter.save(path)

    def _query(self, vector: Vector, adapter: Adapter) -> Vector:
        return adapter.map_query(vector) if self.transform_query else vector

    def _get_query_embedding(self, query: str) -> Vector:
        base, adapter, plain, answers = self._parts
        if answers and query in answers:
            return answers.to(query)
        embed = base._get_query_embedding if plain else base.get_query_embedding
        return self._query(embed(query), adapter)

    async def _aget_query_embedding(self, query: str) -> Vector:
        base, adapter, plain, answers = self._parts
        if answers and query in answers:
            return answers.to(query)
        embed = base._aget_query_embedding if plain else base.aget_query_embedding
        return self._query(await embed(query), adapter)

    def _get_text_embedding(self, text: str) -> Vector:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Vector:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Vector]:
        base, adapter, plain, _ = self._parts
        embed = base._get_text_embeddings if plain else base.get_text_embedding_batch
        return _map_texts(embed(texts), adapter)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Vector]:
        base, adapter, plain, _ = self._parts
        embed = base._aget_text_embeddings if plain else base.aget_text_embedding_batch
        return _map_texts(await embed(texts), adapter)


def _map_texts(vectors: list[Vector], adapter: Adapter) -> list[Vector]:
    unchanged = adapter.side == "query" and adapter.document_map is None
    if unchanged or not vectors:
        return vectors
    mapped: list[Vector] = adapter.map_texts(np.array(vectors, dtype=np.float32)).tolist()
    return mapped


def _check_base(adapter: Adapter, base: BaseEmbedding, path: str) -> None:
    name = base_name(base)
    if adapter.base_model and not same_name(adapter.base_model, name):
        raise ArtifactError(
            f"the adapter {path or 'given'} was tuned for the embedding model "
            f"{adapter.base_model!r}, not for {name!r}"
        )


without_spans(AdapterEmbeddingModel)
