"""Widen candidates by BM25 and re-rank them, untuned and tuned; no key, no network, no model.

    python examples/reranker_quickstart.py

Texts and questions: Python's language reference and this project's questions about it. The
retriever is a plain hash embedding, so that the example needs nothing downloaded.
"""

import re
import zlib

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import LightRerankerFinetuneEngine, TunedRetriever, evaluate_retriever
from llama_index.tuning.demo import questions_about, reference_nodes


class HashEmbedding(BaseEmbedding):
    """Sums a random vector for each word: a poor embedding model, but one without weights."""

    def _get_text_embedding(self, text: str) -> list[float]:
        words = re.findall(r"\w+", text.lower()) or [""]
        rows = [np.random.default_rng(zlib.crc32(w.encode())).standard_normal(64) for w in words]
        return np.sum(rows, axis=0).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


nodes = reference_nodes()
train, held_out = questions_about(nodes, "train"), questions_about(nodes, "held_out")
index = VectorStoreIndex(nodes, embed_model=HashEmbedding())
base = index.as_retriever(similarity_top_k=100)

untuned = TunedRetriever(base, nodes)
engine = LightRerankerFinetuneEngine(train, untuned)
print(engine.finetune())
tuned = untuned.with_reranker(engine.get_finetuned_model())

for name, retriever in {"retriever": base, "untuned": untuned, "tuned": tuned}.items():
    print(f"{name:10} nDCG@10 {evaluate_retriever(retriever, held_out).mean()['ndcg@10']:.3f}")
