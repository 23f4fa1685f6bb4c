"""Engines by name; third parties add theirs through the entry-point group below.

[project.entry-points."llama_index.tuning.engines"]
my-engine = "my_package.engine:MyFinetuneEngine"
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from llama_index.tuning._checks import of_type, plain_arguments
from llama_index.tuning.base import BaseFinetuneEngine

GROUP = "llama_index.tuning.engines"

_BUILT_IN = {
    "azure-openai": "llama_index.tuning.llms.hosted.azure:AzureOpenAIFinetuneEngine",
    "cross-encoder": "llama_index.tuning.rerankers.cross.engine:CrossEncoderFinetuneEngine",
    "drift-adapter": "llama_index.tuning.embeddings.drift.engine:DriftAdapterFinetuneEngine",
    "embedding-adapter": (
        "llama_index.tuning.embeddings.adapter.engine:EmbeddingAdapterFinetuneEngine"
    ),
    "huggingface-llm": "llama_index.tuning.llms.local.engine:HuggingFaceFinetuneEngine",
    "embedding-model": (
        "llama_index.tuning.embeddings.full.engine:SentenceTransformersFinetuneEngine"
    ),
    "judge": "llama_index.tuning.judges.engine:JudgeFinetuneEngine",
    "light-reranker": "llama_index.tuning.rerankers.light.engine:LightRerankerFinetuneEngine",
    "openai": "llama_index.tuning.llms.hosted.engine:OpenAIFinetuneEngine",
    "query-encoder": "llama_index.tuning.embeddings.query.engine:QueryEncoderFinetuneEngine",
    "router": "llama_index.tuning.routers.engine:RouterFinetuneEngine",
}
_registered: dict[str, type[BaseFinetuneEngine]] = {}


def register_engine(name: str, engine: type[BaseFinetuneEngine]) -> None:
    """Make an engine class known under a name for this process.

    Raises:
        ValueError: the name is empty or taken by another class.
        TypeError: the class is not an engine.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name must be a non-empty string, got {name!r}")
    if not (isinstance(engine, type) and issubclass(engine, BaseFinetuneEngine)):
        raise TypeError(f"engine must be a subclass of BaseFinetuneEngine, got {engine!r}")
    taken = name in _BUILT_IN or _registered.get(name, engine) is not engine
    if taken:
        raise ValueError(f"an engine named {name!r} exists already; choose another name")
    _registered[name] = engine


@plain_arguments
def get_engine(name: str) -> type[BaseFinetuneEngine]:
    """The engine class of that name: registered, built in, or another package's."""
    of_type("name", name, str, "a text")
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        engine = getattr(importlib.import_module(module), attribute)
    else:
        points = entry_points(group=GROUP, name=name)
        if not points:
            raise ValueError(f"unknown engine {name!r}; choose one of: {', '.join(list_engines())}")
        engine = next(iter(points)).load()
    if not (isinstance(engine, type) and issubclass(engine, BaseFinetuneEngine)):
        raise TypeError(f"engine {name!r} must be a subclass of BaseFinetuneEngine, got {engine!r}")
    return engine


def list_engines() -> list[str]:
    """The names that `get_engine` knows, sorted; no engine is imported for it."""
    return sorted({*_BUILT_IN, *_registered, *(point.name for point in entry_points(group=GROUP))})
