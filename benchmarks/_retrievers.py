"""A vector retriever whose vectors are computed once, for the re-rankers' benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.search import unit_rows


class MatrixRetriever(BaseRetriever):
    """Exact cosine search over nodes; queries were embedded beforehand."""

    def __init__(
        self, nodes: list[TextNode], matrix: np.ndarray, queries: dict[str, np.ndarray], k: int
    ) -> None:
        super().__init__()
        self.nodes, self.k = nodes, k
        self.matrix = unit_rows(matrix)
        self.queries = {text: unit_rows(row[None])[0] for text, row in queries.items()}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        scores = self.matrix @ self.queries[query_bundle.query_str]
        best = np.argsort(-scores, kind="stable")[: self.k]
        return [NodeWithScore(node=self.nodes[i], score=float(scores[i])) for i in best]


class WordRetriever(BaseRetriever):
    """BM25 alone, for LlamaIndex's own fusion."""

    def __init__(self, nodes: list[TextNode], index: BM25Index, k: int) -> None:
        super().__init__()
        self.nodes, self.index, self.k = {node.node_id: node for node in nodes}, index, k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.index.search(query_bundle.query_str, self.k)
        return [NodeWithScore(node=self.nodes[id_], score=score) for id_, score in found]


def retriever_for(
    dataset: RetrievalDataset, model: BaseEmbedding, cache: Path, k: int
) -> MatrixRetriever:
    """MiniLM's retriever over the dataset's corpus, for its queries."""
    embedder = Embedder(model, cache=cache)
    texts = list(dataset.queries.values())
    vectors = dict(zip(texts, embedder.queries(texts), strict=True))
    documents = embedder.documents(list(dataset.corpus.values()))
    return MatrixRetriever(dataset.to_nodes(), documents, vectors, k)
