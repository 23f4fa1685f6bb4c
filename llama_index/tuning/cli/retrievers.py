"""The retriever whose candidates the re-ranker commands use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.tuning.cli.models import embedding_model
from llama_index.tuning.datasets import RetrievalDataset

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index.tuning.rerankers.retriever import TunedRetriever
    from llama_index.tuning.rerankers.words import Analyzer


def vector_index(
    corpus: Mapping[str, str], embed_model: BaseEmbedding, cache: Path | None
) -> VectorStoreIndex:
    """An exact index over the texts, whose vectors are kept between runs."""
    from llama_index.core import VectorStoreIndex

    from llama_index.tuning.embeddings.vectors import Embedder, document_vectors

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
    from llama_index.tuning.rerankers.bm25 import BM25Index
    from llama_index.tuning.rerankers.retriever import TunedRetriever

    corpus = dict(dataset.corpus)
    for other in others:
        corpus |= other.corpus if other else {}
    index = vector_index(corpus, embedding_model(model), cache)
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
