"""The old package's submodules: `llama_index.finetuning.X` is found as `llama_index.tuning.X`.

Nothing lies there. A finder at the end of `sys.meta_path` makes the old module on import, and the
module looks a name up in its new place when it is asked for. Two old addresses are folders of this
package too (`embeddings.adapter` and `rerankers`): these hold the old names themselves.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "llama_index.tuning."

MODULES = {
    "azure_openai": "AzureOpenAIFinetuneEngine",
    "azure_openai.base": "AzureOpenAIFinetuneEngine",
    "callbacks": "BaseFinetuningHandler OpenAIFineTuningHandler MistralAIFineTuningHandler",
    "callbacks.finetuning_handler": "BaseFinetuningHandler OpenAIFineTuningHandler "
    "MistralAIFineTuningHandler GradientAIFineTuningHandler",
    "cross_encoders": "CrossEncoderFinetuneEngine",
    "cross_encoders.cross_encoder": "CrossEncoderFinetuneEngine",
    "cross_encoders.dataset_gen": "CrossEncoderFinetuningDatasetSample "
    "generate_synthetic_queries_over_documents generate_ce_fine_tuning_dataset "
    "DEFAULT_QUERY_GEN_SYSTEM_PROMPT DEFAULT_QUERY_GEN_USER_PROMPT "
    "DEFAULT_QUERY_DOC_RELEVANCE_PROMPT",
    "embeddings.adapter_utils": "MyMultipleNegativesRankingLoss train_model",
    "embeddings.common": "EmbeddingQAFinetuneDataset generate_qa_embedding_pairs "
    "DEFAULT_QA_GENERATE_PROMPT_TMPL load_existing_data",
    "embeddings.sentence_transformer": "SentenceTransformersFinetuneEngine",
    "gradient": "GradientFinetuneEngine",
    "gradient.base": "GradientFinetuneEngine",
    "mistralai": "MistralAIFinetuneEngine",
    "mistralai.base": "MistralAIFinetuneEngine",
    "mistralai.utils": "reformat_jsonl",
    "openai": "OpenAIFinetuneEngine",
    "openai.base": "OpenAIFinetuneEngine",
    "openai.validate_json": "validate_json",
    "rerankers.cohere_reranker": "CohereRerankerFinetuneEngine",
    "rerankers.dataset_gen": "CohereRerankerFinetuneDataset generate_hard_negatives "
    "generate_cohere_reranker_finetuning_dataset generate_embeddings get_query_context_lists",
    "types": "BaseLLMFinetuneEngine BaseEmbeddingFinetuneEngine BaseCrossEncoderFinetuningEngine "
    "BaseCohereRerankerFinetuningEngine",
}
"""Old submodule → the names that were imported from it."""

PLACES = {
    "AzureOpenAIFinetuneEngine": "llms.hosted.azure",
    "BaseCohereRerankerFinetuningEngine": "base:BaseRerankerFinetuneEngine",
    "BaseCrossEncoderFinetuningEngine": "base:BaseRerankerFinetuneEngine",
    "BaseEmbeddingFinetuneEngine": "base",
    "BaseFinetuningHandler": "collect.callbacks",
    "BaseLLMFinetuneEngine": "base",
    "CohereRerankerFinetuneDataset": "rerankers.cohere",
    "CohereRerankerFinetuneEngine": "predecessor.ended",
    "CrossEncoderFinetuneEngine": "rerankers.cross.engine",
    "CrossEncoderFinetuningDatasetSample": "generate.relevance",
    "DEFAULT_QA_GENERATE_PROMPT_TMPL": "generate.questions",
    "DEFAULT_QUERY_DOC_RELEVANCE_PROMPT": "generate.questions",
    "DEFAULT_QUERY_GEN_SYSTEM_PROMPT": "generate.questions",
    "DEFAULT_QUERY_GEN_USER_PROMPT": "generate.questions",
    "EmbeddingQAFinetuneDataset": "datasets.retrieval",
    "MistralAIFineTuningHandler": "collect.callbacks",
    "MistralAIFinetuneEngine": "predecessor.ended",
    "OpenAIFineTuningHandler": "collect.callbacks",
    "OpenAIFinetuneEngine": "llms.hosted.engine",
    "SentenceTransformersFinetuneEngine": "embeddings.full.engine",
    "generate_ce_fine_tuning_dataset": "generate.cross_encoder",
    "generate_cohere_reranker_finetuning_dataset": "rerankers.cohere",
    "generate_hard_negatives": "rerankers.cohere",
    "generate_qa_embedding_pairs": "generate.questions",
    "generate_synthetic_queries_over_documents": "generate.cross_encoder",
    "reformat_jsonl": "predecessor.files",
    "validate_json": "predecessor.files",
}
"""Old name → its module here; and its name here, if that is another."""

GONE = {
    "GradientAIFineTuningHandler": "nothing trains on its file. Use OpenAIFineTuningHandler or "
    "FinetuningRecorder: HuggingFaceFinetuneEngine learns from what they write",
    "GradientFinetuneEngine": "llama-index-finetuning 0.4.2 does not have it either. Use "
    "HuggingFaceFinetuneEngine",
    "MyMultipleNegativesRankingLoss": "EmbeddingAdapterFinetuneEngine has the loss inside; "
    "options=AdapterOptions(scale=…) sets its factor",
    "generate_embeddings": "use embed_model.get_text_embedding(text)",
    "get_query_context_lists": "use query_docid_pairs and corpus of the dataset",
    "load_existing_data": "use RetrievalDataset.from_json(path); generate_qa_embedding_pairs("
    "output_path=…) goes on from what it finds there",
    "train_model": "use EmbeddingAdapterFinetuneEngine(dataset, embed_model, adapter_model=model)",
}
"""Old names that nothing stands for, and what to use."""


class OldAddresses(MetaPathFinder, Loader):
    """Finds and makes the old submodules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec, if it is one of the old ones."""
        old = fullname.removeprefix(PACKAGE)
        if old == fullname or old not in MODULES:
            return None
        within = any(other.startswith(f"{old}.") for other in MODULES)
        return ModuleSpec(fullname, self, origin="llama-index-finetuning", is_package=within)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names, to be looked up when they are asked for."""
        names = MODULES[module.__name__.removeprefix(PACKAGE)].split()
        served = [name for name in names if name in PLACES]

        def look_up(name: str) -> Any:
            if name not in names:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            if name in GONE:
                raise ImportError(f"{name} is gone: {GONE[name]}", name=module.__name__)
            place, _, renamed = PLACES[name].partition(":")
            found = getattr(importlib.import_module(PACKAGE + place), renamed or name)
            setattr(module, name, found)
            return found

        module.__doc__ = "The old package's address; see docs/moving_over.md."
        vars(module).update(__all__=served, __getattr__=look_up, __dir__=lambda: served)


_FINDER = OldAddresses()


def serve_old_addresses() -> None:
    """Let the old submodules be imported, from now on."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
