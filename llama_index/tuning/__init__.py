"""Tune the parts of a LlamaIndex app on your own data: measured, gated, local first.

Names load on first use: `import llama_index.tuning` alone imports neither torch nor any
vendor's client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from llama_index.tuning.base import (
        BaseEmbeddingFinetuneEngine,
        BaseEvaluatorFinetuneEngine,
        BaseFinetuneEngine,
        BaseLLMFinetuneEngine,
        BaseRerankerFinetuneEngine,
        BaseSelectorFinetuneEngine,
    )
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.retrieval import (
        RetrievalDataset as EmbeddingQAFinetuneDataset,
    )
    from llama_index.tuning.datasets.routing import RoutingDataset
    from llama_index.tuning.embeddings.engine import EmbeddingAdapterFinetuneEngine
    from llama_index.tuning.embeddings.index import adapt_index, restore_index
    from llama_index.tuning.embeddings.model import AdapterEmbeddingModel
    from llama_index.tuning.embeddings.options import AdapterOptions
    from llama_index.tuning.evaluate.bootstrap import paired_gain
    from llama_index.tuning.evaluate.retrieval import (
        aevaluate_retriever,
        evaluate_retriever,
        evaluate_vectors,
    )
    from llama_index.tuning.generate.sentences import generate_sentence_queries
    from llama_index.tuning.registry import get_engine, list_engines, register_engine
    from llama_index.tuning.report import FinetuneReport
    from llama_index.tuning.routers.engine import RouterFinetuneEngine
    from llama_index.tuning.routers.options import RouterOptions
    from llama_index.tuning.routers.selector import TunedSelector
    from llama_index.tuning.routers.tools import TunedToolRetriever

__all__ = [
    "AdapterEmbeddingModel",
    "AdapterOptions",
    "BaseEmbeddingFinetuneEngine",
    "BaseEvaluatorFinetuneEngine",
    "BaseFinetuneEngine",
    "BaseLLMFinetuneEngine",
    "BaseRerankerFinetuneEngine",
    "BaseSelectorFinetuneEngine",
    "EmbeddingAdapterFinetuneEngine",
    "EmbeddingQAFinetuneDataset",
    "FinetuneReport",
    "RetrievalDataset",
    "RouterFinetuneEngine",
    "RouterOptions",
    "RoutingDataset",
    "TunedSelector",
    "TunedToolRetriever",
    "adapt_index",
    "aevaluate_retriever",
    "evaluate_retriever",
    "evaluate_vectors",
    "generate_sentence_queries",
    "get_engine",
    "list_engines",
    "paired_gain",
    "register_engine",
    "restore_index",
]

_HOMES = {
    "AdapterEmbeddingModel": "embeddings.model",
    "AdapterOptions": "embeddings.options",
    "BaseEmbeddingFinetuneEngine": "base",
    "BaseEvaluatorFinetuneEngine": "base",
    "BaseFinetuneEngine": "base",
    "BaseLLMFinetuneEngine": "base",
    "BaseRerankerFinetuneEngine": "base",
    "BaseSelectorFinetuneEngine": "base",
    "EmbeddingAdapterFinetuneEngine": "embeddings.engine",
    "EmbeddingQAFinetuneDataset": "datasets.retrieval:RetrievalDataset",
    "FinetuneReport": "report",
    "RetrievalDataset": "datasets.retrieval",
    "RouterFinetuneEngine": "routers.engine",
    "RouterOptions": "routers.options",
    "RoutingDataset": "datasets.routing",
    "TunedSelector": "routers.selector",
    "TunedToolRetriever": "routers.tools",
    "adapt_index": "embeddings.index",
    "aevaluate_retriever": "evaluate.retrieval",
    "evaluate_retriever": "evaluate.retrieval",
    "evaluate_vectors": "evaluate.retrieval",
    "generate_sentence_queries": "generate.sentences",
    "get_engine": "registry",
    "list_engines": "registry",
    "paired_gain": "evaluate.bootstrap",
    "register_engine": "registry",
    "restore_index": "embeddings.index",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
