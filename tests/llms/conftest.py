"""Tiny parts for the tests of LLM tuning."""

from __future__ import annotations

import pytest

from llama_index.tuning.datasets.chat import ChatDataset
from tests.llms.tiny import save_tiny

CITIES = ["Oslo", "Lima", "Cairo", "Quito", "Paris", "Delhi", "Rome", "Seoul", "Accra", "Baku"]


def fees(n: int = 20) -> ChatDataset:
    """Questions whose answers follow a rule."""
    return ChatDataset.from_messages(
        [
            [
                {"role": "user", "content": f"Fee in {CITIES[i % 10]} for {i // 10 + 1}?"},
                {"role": "assistant", "content": f"{CITIES[i % 10]}: {i // 10 + 1} euros."},
            ]
            for i in range(n)
        ]
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    texts = [m["content"] for e in fees(50).examples for m in e.messages]
    return save_tiny(tmp_path_factory.mktemp("tiny-llm") / "model", texts)
