"""A small app: pages of prose about parts of a machine, and questions about them."""

import re
import zlib
from functools import cache

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import TextNode

from llama_index.tuning import RetrievalDataset

COLOURS = ["red", "green", "blue", "grey", "white", "black"]
PLACES = ["roof", "cellar", "yard", "kitchen", "hall"]


@cache
def word_vector(word, dim):
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(dim)


class WordEmbedding(BaseEmbedding):
    """A vector for each word, by its hash; few dimensions, so that words are confused."""

    dim: int = 24
    salt: str = ""
    texts: list = Field(default_factory=list, exclude=True)

    def __init__(self, **fields):
        super().__init__(**{"model_name": "words", **fields})

    def vector(self, text):
        self.texts.append(text)
        total = np.full(self.dim, 1e-3)
        for word in re.findall(r"\w+", text.lower()):
            total += word_vector(self.salt + word, self.dim)
        return (total / np.linalg.norm(total)).tolist()

    def _get_query_embedding(self, query):
        return self.vector(query)

    async def _aget_query_embedding(self, query):
        return self.vector(query)

    def _get_text_embedding(self, text):
        return self.vector(text)


def page(i):
    return (
        f"The {COLOURS[i % 6]} pump number {i} is in the {PLACES[i % 5]} of the house and it has "
        f"been there since the year {1900 + i}. It is cleaned by the owner of the house, and the "
        f"price of a new one is {3 * i + 7} euros. There are also other pumps in the town."
    )


def nodes_of(count=60, ids="n{}"):
    return [
        TextNode(id_=ids.format(i), text=page(i), metadata={"half": i % 2}) for i in range(count)
    ]


def questions_of(count=60, ids="n{}", each=1):
    queries, relevant = {}, {}
    for i in range(count):
        asked = [f"What does pump number {i} cost?", f"Where is the pump of {1900 + i}?"][:each]
        for place, text in enumerate(asked):
            queries[f"q{i}-{place}"], relevant[f"q{i}-{place}"] = text, [ids.format(i)]
    corpus = {ids.format(i): page(i) for i in range(count)}
    return RetrievalDataset(queries, corpus, relevant)


@pytest.fixture
def model():
    return WordEmbedding()


@pytest.fixture
def index(model):
    return VectorStoreIndex(nodes_of(), embed_model=model)


@pytest.fixture
def questions():
    return questions_of()
