"""What an app loads to serve a component: nothing that trains, asks or collects, and no torch.

A local LLM is served by torch: that alone may come along.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVING = (
    "rerankers.light.model",
    "rerankers.retriever.retriever",
    "rerankers.cross.model",
    "judges.judge",
    "judges.light.model",
    "judges.serving",
    "llms.hosted.model",
    "llms.serving.generation",
    "llms.serving.loading",
    "llms.serving.model",
    "llms.serving.saved",
    "routers.serving.model",
    "routers.serving.selector",
    "routers.serving.tools",
    "embeddings.adapter.maps",
    "embeddings.adapter.model",
    "embeddings.adapter.saved",
    "embeddings.query.model",
    "vectors.embedder",
    "vectors.identity",
    "vectors.memory",
    "vectors.search",
    "vectors.stores",
)
HEAVY = {"torch", "transformers", "sentence_transformers", "sklearn", "scipy"}
LOCAL_LLM = {"torch", "transformers"}
FLOORS = {"app", "asking", "cli", "collect", "generate"}
TRAINING = {"cross_fit", "engine", "fit", "measure", "run", "train", "trainer"}


@pytest.mark.parametrize("name", SERVING)
def test_a_serving_file_loads_nothing_that_trains(name):
    code = f"import sys, llama_index.tuning.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    allowed = LOCAL_LLM if name == "llms.serving.model" else set()
    assert HEAVY & set(loaded) <= allowed
    ours = [module.split(".")[2:] for module in loaded if module.startswith("llama_index.tuning.")]
    assert name.split(".") in ours
    assert [parts for parts in ours if parts[0] in FLOORS or parts[-1] in TRAINING] == []
