"""Questions for passages from an LLM: durable, resumable, checked; here with a scripted LLM.

In an app, pass any LlamaIndex LLM, or none for `Settings.llm`.
"""

import re
import tempfile
from typing import Any

from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.schema import TextNode

from llama_index.tuning import (
    generate_paraphrases,
    generate_qa_embedding_pairs,
    generate_unanswerable_queries,
)


class ScriptedLLM(CustomLLM):
    """Answers like a real one: with a preamble, numbers and quotes."""

    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.calls += 1
        what = re.findall(r"fee of the (\w+) card", prompt)[-1:] or ["gold"]
        if "Can the question be answered" in prompt:
            return CompletionResponse(text="No." if "Who invented" in prompt else "Yes.")
        return CompletionResponse(
            text=f'Sure! Here are two questions:\n\n1. "What does the {what[0]} card cost?"\n'
            f"2. **Who invented the {what[0]} card?**"
        )

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


nodes = [
    TextNode(id_=name, text=f"The fee of the {name} card is {fee} euros.")
    for name, fee in (("gold", 50), ("basic", 5), ("student", 0))
]
llm = ScriptedLLM()
with tempfile.TemporaryDirectory() as folder:
    for attempt in ("first run", "started again"):
        before = llm.calls
        dataset = generate_qa_embedding_pairs(
            nodes, llm, verify=True, output_path=f"{folder}/train.json"
        )
        print(f"{attempt}: {llm.calls - before} calls, {dataset.counts}")
for query, documents in dataset.query_docid_pairs:
    print(f"  {query}  ->  {documents}")

more = generate_paraphrases(dataset, llm, num_paraphrases=1)
print(f"with paraphrases: {len(more)} queries")
refusals = generate_unanswerable_queries(nodes, llm, num_queries_per_chunk=2, verify=True)
print(f"without an answer: {list(refusals.queries.values())}")
