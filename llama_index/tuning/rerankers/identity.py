"""Which embedding model a retriever asks."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning.embeddings.identity import base_name


def embedding_model(retriever: Any) -> BaseEmbedding | None:
    """A vector retriever's embedding model; `None` where it has none."""
    model = getattr(retriever, "_embed_model", None)
    return model if isinstance(model, BaseEmbedding) else None


def embedding_name(retriever: Any) -> str | None:
    """The name of a vector retriever's embedding model; `None` where it has none."""
    model = embedding_model(retriever)
    return None if model is None else base_name(model)
