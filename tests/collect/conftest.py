"""Scripted LLMs that keep what they received, and a recorder over a temporary log."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.llms import CompletionResponse
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockLLM
from pydantic import Field

from llama_index.tuning.collect import FinetuningRecorder


class ScriptedLLM(MockLLM):
    """Answers from a list, in turn, and keeps its prompts."""

    answers: list = Field(default_factory=lambda: ["An answer."])
    prompts: list = Field(default_factory=list)
    name: str = "scripted"

    @property
    def metadata(self):
        return super().metadata.model_copy(update={"model_name": self.name})

    def to_payload(self):
        return {"class_name": "ScriptedLLM", "model_name": self.name}

    def __init__(self, *answers, **fields):
        super().__init__()
        self.answers = list(answers) or ["An answer."]
        self.prompts = []
        self.name = fields.get("name", "scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any):
        self.prompts.append(prompt)
        answer = self.answers[(len(self.prompts) - 1) % len(self.answers)]
        if isinstance(answer, Exception):
            raise answer
        return CompletionResponse(text=answer)


@pytest.fixture
def scripted():
    return ScriptedLLM


@pytest.fixture
def function_llm():
    def make(respond):
        return MockFunctionCallingLLM(response_generator=respond)

    return make


@pytest.fixture
def recorder(tmp_path):
    with FinetuningRecorder(tmp_path / "traffic.jsonl") as recorder:
        yield recorder
    assert recorder.failures == 0
