"""An LLM that answers from a function, and a four-number embedding model."""

import hashlib
import threading

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.schema import TextNode
from pydantic import Field, PrivateAttr


class ScriptedLLM(CustomLLM):
    """`answer` is called with each prompt; what it raises is raised."""

    answer: object = Field(exclude=True)
    name: str = "scripted"
    _prompts: list = PrivateAttr(default_factory=list)
    _lock: object = PrivateAttr(default_factory=threading.Lock)

    @property
    def metadata(self):
        return LLMMetadata(model_name=self.name)

    @property
    def prompts(self):
        return self._prompts

    def complete(self, prompt, formatted=False, **kwargs):
        with self._lock:
            self._prompts.append(prompt)
        return CompletionResponse(text=self.answer(prompt))

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


class WordEmbedding(BaseEmbedding):
    """The sum of a text's words, each a fixed random vector: like words, like vectors."""

    dim: int = 32

    def _get_text_embedding(self, text):
        words = text.lower().replace("?", "").replace(".", "").split() or [""]
        return np.sum([self._word(word) for word in words], axis=0).tolist()

    def _word(self, word):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        return np.random.default_rng(seed).standard_normal(self.dim)

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


def subjects(count):
    """Nodes `n0`, `n1`, … on `subject-0`, `subject-1`, …"""
    return [TextNode(id_=f"n{i}", text=f"All about subject-{i}.") for i in range(count)]


class Untouched(BaseRetriever):
    """Fails where arguments should have been refused before."""

    def _retrieve(self, query_bundle):
        raise AssertionError("the retriever was asked before the arguments were checked")
