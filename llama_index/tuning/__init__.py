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
    from llama_index.tuning.collect.callbacks import OpenAIFineTuningHandler
    from llama_index.tuning.collect.recorder import FinetuningRecorder
    from llama_index.tuning.datasets.chat import ChatDataset
    from llama_index.tuning.datasets.judgments import Judgment, JudgmentDataset
    from llama_index.tuning.datasets.relevance import RelevanceDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset as EmbeddingQAFinetuneDataset
    from llama_index.tuning.datasets.routing import RoutingDataset
    from llama_index.tuning.embeddings.drift import DriftAdapterFinetuneEngine, DriftOptions
    from llama_index.tuning.embeddings.engine import EmbeddingAdapterFinetuneEngine
    from llama_index.tuning.embeddings.full.engine import SentenceTransformersFinetuneEngine
    from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
    from llama_index.tuning.embeddings.index import adapt_index, restore_index
    from llama_index.tuning.embeddings.model import AdapterEmbeddingModel
    from llama_index.tuning.embeddings.options import AdapterOptions
    from llama_index.tuning.ended import CohereRerankerFinetuneEngine, MistralAIFinetuneEngine
    from llama_index.tuning.evaluate.bootstrap import paired_gain
    from llama_index.tuning.evaluate.retrieval import (
        aevaluate_retriever,
        evaluate_retriever,
        evaluate_vectors,
    )
    from llama_index.tuning.generate.calls import CallOptions
    from llama_index.tuning.generate.cross_encoder import (
        generate_ce_fine_tuning_dataset,
        generate_synthetic_queries_over_documents,
    )
    from llama_index.tuning.generate.heldout import compare_queries
    from llama_index.tuning.generate.mined import MinedDataset
    from llama_index.tuning.generate.multihop import generate_multi_hop_queries
    from llama_index.tuning.generate.negatives import mine_hard_negatives
    from llama_index.tuning.generate.paraphrases import generate_paraphrases
    from llama_index.tuning.generate.questions import generate_qa_embedding_pairs
    from llama_index.tuning.generate.relevance import (
        CrossEncoderFinetuningDatasetSample,
        RelevanceLabels,
        label_relevance,
    )
    from llama_index.tuning.generate.results import GeneratedDataset
    from llama_index.tuning.generate.sentences import generate_sentence_queries
    from llama_index.tuning.generate.teacher import LabelledRelevance, label_by_reranker
    from llama_index.tuning.generate.unanswerable import generate_unanswerable_queries
    from llama_index.tuning.judges.compare import compare_versions
    from llama_index.tuning.judges.encoder_student import EncoderStudent
    from llama_index.tuning.judges.engine import JudgeFinetuneEngine
    from llama_index.tuning.judges.estimate import estimate_pass_rate
    from llama_index.tuning.judges.judge import TunedJudge
    from llama_index.tuning.judges.label import LabelledJudgments, label_judgments
    from llama_index.tuning.judges.llm_judge import load_llm_judge
    from llama_index.tuning.judges.llm_rows import JudgeRows, judge_rows
    from llama_index.tuning.judges.llm_student import LLMStudent
    from llama_index.tuning.judges.options import JudgeOptions
    from llama_index.tuning.judges.recalibrate import recalibrate_judge
    from llama_index.tuning.judges.report import JudgeReport
    from llama_index.tuning.llms.engine import HuggingFaceFinetuneEngine
    from llama_index.tuning.llms.hosted_azure import AzureOpenAIFinetuneEngine
    from llama_index.tuning.llms.hosted_engine import OpenAIFinetuneEngine
    from llama_index.tuning.llms.hosted_file import JobEstimate
    from llama_index.tuning.llms.options import HuggingFaceOptions
    from llama_index.tuning.llms.tasks.calls import (
        CallItem,
        ExpectedCall,
        call_dataset,
        call_scorer,
        call_scores,
    )
    from llama_index.tuning.llms.tasks.code import CheckScorer, check_scorer, checked_dataset
    from llama_index.tuning.llms.tasks.distil import (
        DistilledDataset,
        DroppedAnswer,
        distillation_dataset,
        distillation_scorer,
    )
    from llama_index.tuning.llms.tasks.knowledge import knowledge_dataset, knowledge_scorer
    from llama_index.tuning.llms.tasks.python import PythonCheck
    from llama_index.tuning.llms.tasks.recipes import (
        call_task,
        check_task,
        distillation_task,
        knowledge_task,
        sql_task,
        style_task,
    )
    from llama_index.tuning.llms.tasks.sql import (
        ExecutionScorer,
        execution_scorer,
        sql_dataset,
        text_to_sql_prompt,
    )
    from llama_index.tuning.llms.tasks.style import StyleItem, style_dataset, style_scorer
    from llama_index.tuning.llms.tasks.task import LLMTask
    from llama_index.tuning.llms.tool_parsers import HermesToolParser, ToolParser
    from llama_index.tuning.llms.tuned import TunedHuggingFaceLLM
    from llama_index.tuning.registry import get_engine, list_engines, register_engine
    from llama_index.tuning.report import FinetuneReport
    from llama_index.tuning.rerankers.cohere import generate_cohere_reranker_finetuning_dataset
    from llama_index.tuning.rerankers.cross_engine import CrossEncoderFinetuneEngine
    from llama_index.tuning.rerankers.cross_options import CrossEncoderOptions
    from llama_index.tuning.rerankers.light import LightReranker
    from llama_index.tuning.rerankers.light_engine import LightRerankerFinetuneEngine
    from llama_index.tuning.rerankers.loading import load_reranker
    from llama_index.tuning.rerankers.options import LightRerankerOptions
    from llama_index.tuning.rerankers.retriever import TunedRetriever
    from llama_index.tuning.rerankers.tuned import TunedReranker
    from llama_index.tuning.rerankers.words import Analyzer
    from llama_index.tuning.routers.engine import RouterFinetuneEngine
    from llama_index.tuning.routers.options import RouterOptions
    from llama_index.tuning.routers.selector import TunedSelector
    from llama_index.tuning.routers.tools import TunedToolRetriever

__all__ = [
    "AdapterEmbeddingModel",
    "AdapterOptions",
    "Analyzer",
    "AzureOpenAIFinetuneEngine",
    "BaseEmbeddingFinetuneEngine",
    "BaseEvaluatorFinetuneEngine",
    "BaseFinetuneEngine",
    "BaseLLMFinetuneEngine",
    "BaseRerankerFinetuneEngine",
    "BaseSelectorFinetuneEngine",
    "CallItem",
    "CallOptions",
    "ChatDataset",
    "CheckScorer",
    "CohereRerankerFinetuneEngine",
    "CrossEncoderFinetuneEngine",
    "CrossEncoderFinetuningDatasetSample",
    "CrossEncoderOptions",
    "DistilledDataset",
    "DriftAdapterFinetuneEngine",
    "DriftOptions",
    "DroppedAnswer",
    "EmbeddingAdapterFinetuneEngine",
    "EmbeddingQAFinetuneDataset",
    "EncoderStudent",
    "ExecutionScorer",
    "ExpectedCall",
    "FinetuneReport",
    "FinetuningRecorder",
    "GeneratedDataset",
    "HermesToolParser",
    "HuggingFaceFinetuneEngine",
    "HuggingFaceOptions",
    "JobEstimate",
    "JudgeFinetuneEngine",
    "JudgeOptions",
    "JudgeReport",
    "JudgeRows",
    "Judgment",
    "JudgmentDataset",
    "LLMStudent",
    "LLMTask",
    "LabelledJudgments",
    "LabelledRelevance",
    "LightReranker",
    "LightRerankerFinetuneEngine",
    "LightRerankerOptions",
    "MinedDataset",
    "MistralAIFinetuneEngine",
    "OpenAIFineTuningHandler",
    "OpenAIFinetuneEngine",
    "PythonCheck",
    "RelevanceDataset",
    "RelevanceLabels",
    "RetrievalDataset",
    "RouterFinetuneEngine",
    "RouterOptions",
    "RoutingDataset",
    "SentenceTransformersFinetuneEngine",
    "SentenceTransformersOptions",
    "StyleItem",
    "ToolParser",
    "TunedHuggingFaceLLM",
    "TunedJudge",
    "TunedReranker",
    "TunedRetriever",
    "TunedSelector",
    "TunedToolRetriever",
    "adapt_index",
    "aevaluate_retriever",
    "call_dataset",
    "call_scorer",
    "call_scores",
    "call_task",
    "check_scorer",
    "check_task",
    "checked_dataset",
    "compare_queries",
    "compare_versions",
    "distillation_dataset",
    "distillation_scorer",
    "distillation_task",
    "estimate_pass_rate",
    "evaluate_retriever",
    "evaluate_vectors",
    "execution_scorer",
    "generate_ce_fine_tuning_dataset",
    "generate_cohere_reranker_finetuning_dataset",
    "generate_multi_hop_queries",
    "generate_paraphrases",
    "generate_qa_embedding_pairs",
    "generate_sentence_queries",
    "generate_synthetic_queries_over_documents",
    "generate_unanswerable_queries",
    "get_engine",
    "judge_rows",
    "knowledge_dataset",
    "knowledge_scorer",
    "knowledge_task",
    "label_by_reranker",
    "label_judgments",
    "label_relevance",
    "list_engines",
    "load_llm_judge",
    "load_reranker",
    "mine_hard_negatives",
    "paired_gain",
    "recalibrate_judge",
    "register_engine",
    "restore_index",
    "sql_dataset",
    "sql_task",
    "style_dataset",
    "style_scorer",
    "style_task",
    "text_to_sql_prompt",
]

_HOMES = {
    "AdapterEmbeddingModel": "embeddings.model",
    "AdapterOptions": "embeddings.options",
    "Analyzer": "rerankers.words",
    "AzureOpenAIFinetuneEngine": "llms.hosted_azure",
    "BaseEmbeddingFinetuneEngine": "base",
    "BaseEvaluatorFinetuneEngine": "base",
    "BaseFinetuneEngine": "base",
    "BaseLLMFinetuneEngine": "base",
    "BaseRerankerFinetuneEngine": "base",
    "BaseSelectorFinetuneEngine": "base",
    "CallItem": "llms.tasks.calls",
    "CallOptions": "generate.calls",
    "ChatDataset": "datasets.chat",
    "CheckScorer": "llms.tasks.code",
    "CohereRerankerFinetuneEngine": "ended",
    "CrossEncoderFinetuneEngine": "rerankers.cross_engine",
    "CrossEncoderFinetuningDatasetSample": "generate.relevance",
    "CrossEncoderOptions": "rerankers.cross_options",
    "DriftAdapterFinetuneEngine": "embeddings.drift",
    "DriftOptions": "embeddings.drift",
    "DistilledDataset": "llms.tasks.distil",
    "DroppedAnswer": "llms.tasks.distil",
    "EmbeddingAdapterFinetuneEngine": "embeddings.engine",
    "EmbeddingQAFinetuneDataset": "datasets.retrieval:RetrievalDataset",
    "EncoderStudent": "judges.encoder_student",
    "ExecutionScorer": "llms.tasks.sql",
    "ExpectedCall": "llms.tasks.calls",
    "FinetuneReport": "report",
    "FinetuningRecorder": "collect.recorder",
    "GeneratedDataset": "generate.results",
    "HermesToolParser": "llms.tool_parsers",
    "HuggingFaceFinetuneEngine": "llms.engine",
    "HuggingFaceOptions": "llms.options",
    "JobEstimate": "llms.hosted_file",
    "Judgment": "datasets.judgments",
    "JudgeFinetuneEngine": "judges.engine",
    "JudgeOptions": "judges.options",
    "JudgeReport": "judges.report",
    "JudgeRows": "judges.llm_rows",
    "JudgmentDataset": "datasets.judgments",
    "LLMStudent": "judges.llm_student",
    "LabelledJudgments": "judges.label",
    "LabelledRelevance": "generate.teacher",
    "LightReranker": "rerankers.light",
    "LightRerankerFinetuneEngine": "rerankers.light_engine",
    "LightRerankerOptions": "rerankers.options",
    "MinedDataset": "generate.mined",
    "MistralAIFinetuneEngine": "ended",
    "OpenAIFineTuningHandler": "collect.callbacks",
    "OpenAIFinetuneEngine": "llms.hosted_engine",
    "PythonCheck": "llms.tasks.python",
    "RelevanceDataset": "datasets.relevance",
    "RelevanceLabels": "generate.relevance",
    "RetrievalDataset": "datasets.retrieval",
    "RouterFinetuneEngine": "routers.engine",
    "RouterOptions": "routers.options",
    "RoutingDataset": "datasets.routing",
    "StyleItem": "llms.tasks.style",
    "ToolParser": "llms.tool_parsers",
    "TunedHuggingFaceLLM": "llms.tuned",
    "SentenceTransformersFinetuneEngine": "embeddings.full.engine",
    "SentenceTransformersOptions": "embeddings.full.options",
    "TunedJudge": "judges.judge",
    "TunedReranker": "rerankers.tuned",
    "TunedRetriever": "rerankers.retriever",
    "TunedSelector": "routers.selector",
    "TunedToolRetriever": "routers.tools",
    "adapt_index": "embeddings.index",
    "aevaluate_retriever": "evaluate.retrieval",
    "check_scorer": "llms.tasks.code",
    "checked_dataset": "llms.tasks.code",
    "call_dataset": "llms.tasks.calls",
    "call_scorer": "llms.tasks.calls",
    "call_scores": "llms.tasks.calls",
    "compare_queries": "generate.heldout",
    "compare_versions": "judges.compare",
    "estimate_pass_rate": "judges.estimate",
    "distillation_dataset": "llms.tasks.distil",
    "LLMTask": "llms.tasks.task",
    "distillation_scorer": "llms.tasks.distil",
    "call_task": "llms.tasks.recipes",
    "check_task": "llms.tasks.recipes",
    "distillation_task": "llms.tasks.recipes",
    "knowledge_task": "llms.tasks.recipes",
    "sql_task": "llms.tasks.recipes",
    "style_task": "llms.tasks.recipes",
    "evaluate_retriever": "evaluate.retrieval",
    "evaluate_vectors": "evaluate.retrieval",
    "execution_scorer": "llms.tasks.sql",
    "generate_ce_fine_tuning_dataset": "generate.cross_encoder",
    "generate_cohere_reranker_finetuning_dataset": "rerankers.cohere",
    "generate_multi_hop_queries": "generate.multihop",
    "generate_paraphrases": "generate.paraphrases",
    "generate_qa_embedding_pairs": "generate.questions",
    "generate_sentence_queries": "generate.sentences",
    "generate_synthetic_queries_over_documents": "generate.cross_encoder",
    "generate_unanswerable_queries": "generate.unanswerable",
    "get_engine": "registry",
    "judge_rows": "judges.llm_rows",
    "label_by_reranker": "generate.teacher",
    "label_judgments": "judges.label",
    "knowledge_dataset": "llms.tasks.knowledge",
    "knowledge_scorer": "llms.tasks.knowledge",
    "label_relevance": "generate.relevance",
    "list_engines": "registry",
    "load_reranker": "rerankers.loading",
    "load_llm_judge": "judges.llm_judge",
    "mine_hard_negatives": "generate.negatives",
    "paired_gain": "evaluate.bootstrap",
    "recalibrate_judge": "judges.recalibrate",
    "register_engine": "registry",
    "restore_index": "embeddings.index",
    "sql_dataset": "llms.tasks.sql",
    "text_to_sql_prompt": "llms.tasks.sql",
    "style_dataset": "llms.tasks.style",
    "style_scorer": "llms.tasks.style",
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
