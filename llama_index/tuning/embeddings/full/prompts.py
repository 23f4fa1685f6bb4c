"""What is put before queries and documents."""

from __future__ import annotations

from typing import Any, NamedTuple

from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions


class Prompts(NamedTuple):
    """Put before each query and each document; empty for nothing."""

    query: str
    document: str

    def columns(self, names: list[str]) -> dict[str, str]:
        """Column of the training rows → its prompt, where it has one."""
        found = {name: self.query if name == "anchor" else self.document for name in names}
        return {name: prompt for name, prompt in found.items() if prompt and name != "label"}


def prompts_of(model: Any, model_id: str, options: SentenceTransformersOptions) -> Prompts:
    """The options', else the model's own, else those that LlamaIndex knows for its name."""
    from llama_index.embeddings.huggingface.utils import (
        get_query_instruct_for_model_name,
        get_text_instruct_for_model_name,
    )

    own = {name: text for name, text in model.prompts.items() if text}
    query = options.query_prompt
    if query is None:
        query = own.get("query") or get_query_instruct_for_model_name(model_id) or ""
    document = options.document_prompt
    if document is None:
        named = (own[name] for name in ("document", "passage", "text") if name in own)
        document = next(named, "") or get_text_instruct_for_model_name(model_id) or ""
    return Prompts(query, document)


def set_prompts(model: Any, prompts: Prompts) -> None:
    """Under the names that sentence-transformers and LlamaIndex look for."""
    model.prompts = {
        **model.prompts,
        "query": prompts.query,
        "document": prompts.document,
        "text": prompts.document,
    }
