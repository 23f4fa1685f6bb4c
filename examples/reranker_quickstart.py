"""Tune a re-ranker without a model

A light re-ranker weighs a dozen features: the retriever's order, BM25, which words question and
passage share. It costs a query a millisecond or two. It is of use untuned, and learns the weights
of your documents from your questions.
"""

import re
import zlib

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import LightRerankerFinetuneEngine, TunedRetriever, evaluate_retriever
from llama_index.tuning.demo import questions_about, reference_nodes

# The app's embedding model: a poor one, the sum of a random vector for each word, so that nothing
# has to be downloaded. Yours takes its place.


class HashEmbedding(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        words = re.findall(r"\w+", text.lower()) or [""]
        rows = [np.random.default_rng(zlib.crc32(w.encode())).standard_normal(64) for w in words]
        return np.sum(rows, axis=0).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


# The app: Python's language reference, and beginners' questions about it.

nodes = reference_nodes()
train, held_out = questions_about(nodes, "train"), questions_about(nodes, "held_out")
index = VectorStoreIndex(nodes, embed_model=HashEmbedding())
base = index.as_retriever(similarity_top_k=100)

# `TunedRetriever` widens the candidates by BM25 and re-ranks them, with weights that come with the
# package.

untuned = TunedRetriever(base, nodes)

# Tuning on questions, each of which is measured by weights that had not seen it.

engine = LightRerankerFinetuneEngine(train, untuned)
print(engine.finetune())
tuned = untuned.with_reranker(engine.get_finetuned_model())

# All three on questions that none of them has seen:

for name, retriever in {"retriever": base, "untuned": untuned, "tuned": tuned}.items():
    print(f"{name:10} nDCG@10 {evaluate_retriever(retriever, held_out).mean()['ndcg@10']:.3f}")
