"""A tuned model's folder: what sentence-transformers loads, our settings, a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_index.tuning.artifacts import write_component
from llama_index.tuning.embeddings.full.prompts import Prompts
from llama_index.tuning.report import FinetuneReport

KIND = "sentence_transformer"


def write_model(
    folder: Path, model: Any, model_id: str, prompts: Prompts, report: FinetuneReport
) -> None:
    """The model with its card and report, into a folder that exists."""
    details = {
        "accepted": report.accepted,
        "reason": report.reason,
        "base_model": base_name(model_id),
        "query_prompt": prompts.query,
        "document_prompt": prompts.document,
        "options": report.options,
        "data": report.data,
        "versions": report.versions,
    }
    write_component(folder, KIND, details, {}, "")
    model.save_pretrained(str(folder), create_model_card=False)
    (folder / "README.md").write_text(card(model_id, prompts, report), encoding="utf-8")
    report.save_json(folder / "report.json")


def base_name(model_id: str) -> str:
    """A hub's name as it is; of a folder its last part, since it lies elsewhere elsewhere."""
    return Path(model_id).name if Path(model_id).is_dir() else model_id


def card(model_id: str, prompts: Prompts, report: FinetuneReport) -> str:
    """The model card, with the metadata that the Hugging Face hub reads."""
    head = ["---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    if not Path(model_id).is_dir():
        head.append(f"base_model: {model_id}")
    head += ["tags:", *(f"- {tag}" for tag in _TAGS), "---"]
    arguments = "".join(
        f", {name}={json.dumps(text, ensure_ascii=False)}"
        for name, text in (
            ("query_instruction", prompts.query),
            ("text_instruction", prompts.document),
        )
        if text
    )
    return "\n".join(
        [
            *head,
            "",
            f"# {base_name(model_id)}, tuned for retrieval",
            "",
            "```python",
            "from llama_index.embeddings.huggingface import HuggingFaceEmbedding",
            "",
            f'embed_model = HuggingFaceEmbedding("path/of/this/folder"{arguments})',
            "```",
            "",
            "Documents that were embedded by the base model must be embedded again.",
            "",
            "## What was measured",
            "",
            "```",
            str(report),
            "```",
            "",
            "## How it came about",
            "",
            "```json",
            json.dumps(
                {
                    "base_model": base_name(model_id),
                    "data": report.data,
                    "options": report.options,
                    "versions": report.versions,
                },
                ensure_ascii=False,
                indent=2,
            ),
            "```",
            "",
        ]
    )


_TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "llama-index")
