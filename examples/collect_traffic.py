"""From a running query engine's traffic to a routing dataset and a chat file: no key, seconds.

A router sends questions to one of two query engines; the recorder listens. The LLMs here follow a
script; put your own in their place, nothing else changes.
"""

import tempfile
from typing import Any

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.llms import CompletionResponse, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool

from llama_index.tuning import ChatDataset, FinetuningRecorder


class Script(MockLLM):
    """Routes by one word, and answers in one sentence."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        if "choices are given" in prompt:
            choice = 1 if "fee" in prompt.rsplit("question", 1)[-1] else 2
            return CompletionResponse(text=f'[{{"choice": {choice}, "reason": "by its words"}}]')
        return CompletionResponse(text="The fee is 5 euros." if "fee" in prompt else "By app.")


def engine(*texts: str) -> BaseQueryEngine:
    documents = [Document(text=text) for text in texts]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(8))
    return index.as_query_engine(llm=Script())


fees = engine("The monthly fee is 5 euros.", "Cards are free.")
help_ = engine("Block a card in the app.", "Reset the code at any machine.")
app = RouterQueryEngine(
    LLMSingleSelector.from_defaults(llm=Script()),
    [
        QueryEngineTool.from_defaults(fees, name="fees", description="Prices and fees"),
        QueryEngineTool.from_defaults(help_, name="help", description="Cards, codes, the app"),
    ],
    llm=Script(),
)

folder = tempfile.mkdtemp()
with FinetuningRecorder(f"{folder}/traffic.jsonl") as recorder:
    for month in ("January", "May", "June", "July", "October", "December"):
        app.query(f"What fee do I pay in {month}?")
        recorder.feedback(recorder.last_trace_id(), 1.0)
        app.query(f"My card was stolen in {month}. What now?")
        recorder.feedback(recorder.last_trace_id(), 1.0)
    app.query("Is there a fee for a new code?")  # the router was wrong, and the user says so
    recorder.feedback(recorder.last_trace_id(), -1.0, choice="help")

print(recorder.traffic().stats())

routing = recorder.routing_dataset()
print("routing:", routing.class_counts())

chats = recorder.chat_dataset(where=lambda record: record.data["within"] is None)
chats.save_jsonl(f"{folder}/train.jsonl", format="openai")
print("chat file:", len(ChatDataset.from_jsonl(f"{folder}/train.jsonl")), "lines")
