"""A small corpus whose answers share rare words with their questions, and a poor retriever."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import RetrievalDataset

TOPICS = (
    *("refund", "fee", "account", "card", "transfer", "limit", "branch", "loan", "interest"),
    *("deposit", "currency", "statement", "password", "token", "device", "mortgage", "pension"),
    *("insurance", "salary", "tax", "invoice", "receipt", "voucher", "bonus"),
)


def shop(n=40, per_document=2, seed=0):
    """Documents about two topics each; questions name both of one document's."""
    rng = np.random.default_rng(seed)
    corpus, queries, relevant = {}, {}, {}
    for i in range(n):
        one, two = rng.choice(TOPICS, 2, replace=False)
        filler = " ".join(rng.choice(TOPICS, 3))
        corpus[f"d{i}"] = f"Article {i}. The {one} {two} rules say so. See also {filler}."
        for j in range(per_document):
            queries[f"q{i}-{j}"] = f"What do the {one} {two} rules of article {i} say, part {j}?"
            relevant[f"q{i}-{j}"] = [f"d{i}"]
    return RetrievalDataset(queries, corpus, relevant)


class NoisyRetriever(BaseRetriever):
    """Finds the right node among random ones, with a score that says little."""

    def __init__(self, dataset, k=10, found=0.9, seed=0):
        super().__init__()
        self.dataset, self.k, self.found, self.seed = dataset, k, found, seed
        self.nodes = dataset.to_nodes()
        texts = dict(zip(dataset.queries.values(), dataset.relevant_docs.values(), strict=True))
        self.answers = texts

    def _retrieve(self, query_bundle):
        text = query_bundle.query_str
        rng = np.random.default_rng([self.seed, *text.encode()])
        scores = rng.random(len(self.nodes))
        right = self.answers.get(text, [])
        for i, node in enumerate(self.nodes):
            if node.node_id in right and rng.random() < self.found:
                scores[i] = 0.8 + 0.2 * rng.random()
        best = np.argsort(-scores)[: self.k]
        return [NodeWithScore(node=self.nodes[i], score=float(scores[i])) for i in best]


def nodes():
    """Three found texts, the second of which answers a question about refunds."""
    texts = ("Fees are due.", "refund is paid", "Cats sleep.")
    return [
        NodeWithScore(node=TextNode(id_=str(i), text=text), score=0.9 - 0.1 * i)
        for i, text in enumerate(texts)
    ]


def ids(found):
    return [item.node.node_id for item in found]


class Untouched(NoisyRetriever):
    """Fails where arguments should have been refused before."""

    def _retrieve(self, query_bundle):
        raise AssertionError("the retriever was asked before the arguments were checked")


@pytest.fixture
def shop_data():
    return shop()


@pytest.fixture
def noisy(shop_data):
    return NoisyRetriever(shop_data)
