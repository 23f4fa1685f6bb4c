"""Let an LLM re-rank once, and learn a re-ranker that needs none; no key, no network, no model.

    python examples/reranker_from_teacher.py

The LLM here is a script with the answers to the training questions at hand: put your own in its
place, or take any other re-ranker of LlamaIndex as the teacher. What was learnt is measured on
labelled questions that the teacher never saw.
"""

import re
import zlib
from typing import Any

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.postprocessor import LLMRerank

from llama_index.tuning import (
    LightRerankerFinetuneEngine,
    TunedRetriever,
    evaluate_retriever,
    label_by_reranker,
)
from llama_index.tuning.demo import questions_about, reference_nodes


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower()) or [""]


class HashEmbedding(BaseEmbedding):
    """Sums a random vector for each word: a poor embedding model, but one without weights."""

    def _get_text_embedding(self, text: str) -> list[float]:
        rows = [
            np.random.default_rng(zlib.crc32(w.encode())).standard_normal(64) for w in words(text)
        ]
        return np.sum(rows, axis=0).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class KnowingLLM(CustomLLM):
    """Answers LLMRerank's prompt: 9 for the passage with the answer, less for shared words."""

    answers: dict[str, set[str]]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="knowing")

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        shown, question = prompt.split("Let's try this now:")[1].rsplit("Question:", 1)
        question = question.removesuffix("Answer:\n").strip()
        asked, lines = set(words(question)), []
        for number, passage in re.findall(
            r"Document (\d+):\n(.*?)\n\n(?=Document|\s*$)", shown, re.S
        ):
            right = " ".join(words(passage)) in self.answers[question]
            grade = 9 if right else round(4 * len(asked & set(words(passage))) / len(asked))
            lines.append(f"Doc: {number}, Relevance: {grade}")
        return CompletionResponse(text="\n".join(lines))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        raise NotImplementedError


nodes = reference_nodes()
train, held_out = questions_about(nodes, "train"), questions_about(nodes, "held_out")
index = VectorStoreIndex(nodes, embed_model=HashEmbedding())
untuned = TunedRetriever(index.as_retriever(similarity_top_k=100), nodes)

queries = dict(list(train.queries.items())[:150])
known = {
    text: {" ".join(words(train.corpus[doc])) for doc in train.relevant_docs[id_]}
    for id_, text in queries.items()
}
teacher = LLMRerank(llm=KnowingLLM(answers=known), top_n=30)
lists = label_by_reranker(queries, untuned, teacher)
print(f"{len(lists)} questions graded in {lists.requests} requests, {len(lists.failures)} failures")

engine = LightRerankerFinetuneEngine(lists, untuned)
print(engine.finetune())
tuned = untuned.with_reranker(engine.get_finetuned_model())

for name, retriever in {"retriever": untuned.retriever, "untuned": untuned, "tuned": tuned}.items():
    print(f"{name:10} nDCG@10 {evaluate_retriever(retriever, held_out).mean()['ndcg@10']:.3f}")
