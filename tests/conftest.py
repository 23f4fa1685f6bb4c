"""Tiny real parts: a model whose vectors are known, and a dataset with a gap to learn."""

from __future__ import annotations

import gc
import hashlib

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.vectors.identity import PROBES


@pytest.fixture(scope="module", autouse=True)
def imported_modules_are_no_garbage():
    """Every training ends in a search for garbage, which takes a second among all modules."""
    gc.collect()
    gc.freeze()


class TableEmbedding(BaseEmbedding):
    """Looks texts up in a table (unknown texts get vectors by hash) and counts its calls.

    The calls that only tell it from other models are counted apart.
    """

    dim: int = 8
    table: dict = Field(default_factory=dict, exclude=True)
    calls: list = Field(default_factory=list, exclude=True)
    probed: list = Field(default_factory=list, exclude=True)

    def __init__(self, table=None, **fields):
        super().__init__(table=table or {}, **{"model_name": "table", **fields})

    def vector(self, text):
        if text in self.table:
            return [float(x) for x in self.table[text]]
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        return np.random.default_rng(seed).standard_normal(self.dim).tolist()

    def _get_query_embedding(self, query):
        self.note([query])
        return self.vector(query)

    def note(self, texts):
        (self.probed if set(texts) <= set(PROBES) else self.calls).append(list(texts))

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text):
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text):
        return self._get_text_embedding(text)

    def _get_text_embeddings(self, texts):
        self.note(texts)
        return [self.vector(text) for text in texts]

    async def _aget_text_embeddings(self, texts):
        return self._get_text_embeddings(texts)


def rotated_problem(n_documents=60, per_document=3, dim=16, noise=0.6, seed=0):
    """Queries are their document's vector, turned by one hidden rotation, plus noise.

    A linear map can undo the rotation, so there is a true gain to find.
    """
    rng = np.random.default_rng(seed)
    documents = rng.standard_normal((n_documents, dim))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    turn = np.linalg.qr(np.eye(dim) + 0.35 * rng.standard_normal((dim, dim)))[0]
    turn *= np.sign(np.diag(turn))
    table, queries, relevant = {}, {}, {}
    corpus = {f"d{i}": f"document {i}" for i in range(n_documents)}
    for i, vector in enumerate(documents):
        table[f"document {i}"] = vector
        for j in range(per_document):
            query = vector @ turn + noise * rng.standard_normal(dim) / np.sqrt(dim)
            table[f"question {i} {j}"] = query / np.linalg.norm(query)
            queries[f"q{i}-{j}"] = f"question {i} {j}"
            relevant[f"q{i}-{j}"] = [f"d{i}"]
    return RetrievalDataset(queries, corpus, relevant), TableEmbedding(table, dim=dim)


@pytest.fixture
def rotated():
    return rotated_problem()


@pytest.fixture
def tiny_dataset():
    return RetrievalDataset(
        queries={"q1": "reset password", "q2": "refund fees", "q3": "close account"},
        corpus={"d1": "Forgot password link", "d2": "Fees and refunds", "d3": "Closing it"},
        relevant_docs={"q1": ["d1"], "q2": ["d2"], "q3": ["d3", "d1"]},
    )


def repeated(dataset, times=4):
    """The same questions under other ids, too."""
    queries = {f"{id_}.{n}": text for id_, text in dataset.queries.items() for n in range(times)}
    relevant = {id_: dataset.relevant_docs[id_.rpartition(".")[0]] for id_ in queries}
    return RetrievalDataset(queries, dataset.corpus, relevant)
