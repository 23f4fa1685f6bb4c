__version__: str

from .app.load import load_app as load_app
from .app.model import TunedApp as TunedApp
from .app.tune import tune_app as tune_app
from .collect.callbacks import OpenAIFineTuningHandler as OpenAIFineTuningHandler
from .collect.recorder import FinetuningRecorder as FinetuningRecorder
from .datasets.chat import ChatDataset as ChatDataset
from .datasets.judgments import JudgmentDataset as JudgmentDataset
from .datasets.relevance import RelevanceDataset as RelevanceDataset
from .datasets.retrieval import (
    EmbeddingQAFinetuneDataset as EmbeddingQAFinetuneDataset,
    RetrievalDataset as RetrievalDataset,
)
from .datasets.routing import RoutingDataset as RoutingDataset
from .embeddings.adapter.engine import (
    EmbeddingAdapterFinetuneEngine as EmbeddingAdapterFinetuneEngine,
)
from .embeddings.adapter.model import AdapterEmbeddingModel as AdapterEmbeddingModel
from .embeddings.drift.engine import DriftAdapterFinetuneEngine as DriftAdapterFinetuneEngine
from .embeddings.full.engine import (
    SentenceTransformersFinetuneEngine as SentenceTransformersFinetuneEngine,
)
from .embeddings.query.engine import QueryEncoderFinetuneEngine as QueryEncoderFinetuneEngine
from .embeddings.query.model import QueryEncoderEmbeddingModel as QueryEncoderEmbeddingModel
from .embeddings.reindex.index import adapt_index as adapt_index, restore_index as restore_index
from .evaluate.chunkings import compare_chunkings as compare_chunkings
from .evaluate.retrieval import (
    aevaluate_retriever as aevaluate_retriever,
    evaluate_retriever as evaluate_retriever,
)
from .generate.cross_encoder import (
    generate_ce_fine_tuning_dataset as generate_ce_fine_tuning_dataset,
    generate_synthetic_queries_over_documents as generate_synthetic_queries_over_documents,
)
from .generate.multihop import generate_multi_hop_queries as generate_multi_hop_queries
from .generate.negatives import mine_hard_negatives as mine_hard_negatives
from .generate.paraphrases import generate_paraphrases as generate_paraphrases
from .generate.questions import generate_qa_embedding_pairs as generate_qa_embedding_pairs
from .generate.relevance import (
    CrossEncoderFinetuningDatasetSample as CrossEncoderFinetuningDatasetSample,
    label_relevance as label_relevance,
)
from .generate.reranker_labels import label_by_reranker as label_by_reranker
from .generate.sentences import generate_sentence_queries as generate_sentence_queries
from .generate.unanswerable import generate_unanswerable_queries as generate_unanswerable_queries
from .judges.engine import JudgeFinetuneEngine as JudgeFinetuneEngine
from .judges.judge import TunedJudge as TunedJudge
from .judges.label import label_judgments as label_judgments
from .judges.pass_rates.compare import compare_versions as compare_versions
from .judges.pass_rates.estimate import estimate_pass_rate as estimate_pass_rate
from .judges.pass_rates.recalibrate import recalibrate_judge as recalibrate_judge
from .llms.hosted.azure import AzureOpenAIFinetuneEngine as AzureOpenAIFinetuneEngine
from .llms.hosted.engine import OpenAIFinetuneEngine as OpenAIFinetuneEngine
from .llms.local.engine import HuggingFaceFinetuneEngine as HuggingFaceFinetuneEngine
from .llms.serving.model import TunedHuggingFaceLLM as TunedHuggingFaceLLM
from .llms.tasks.recipes import (
    call_task as call_task,
    check_task as check_task,
    distillation_task as distillation_task,
    knowledge_task as knowledge_task,
    sql_task as sql_task,
    style_task as style_task,
)
from .predecessor.ended import (
    CohereRerankerFinetuneEngine as CohereRerankerFinetuneEngine,
    MistralAIFinetuneEngine as MistralAIFinetuneEngine,
)
from .registry import get_engine as get_engine, list_engines as list_engines
from .rerankers.cohere import (
    generate_cohere_reranker_finetuning_dataset as generate_cohere_reranker_finetuning_dataset,
)
from .rerankers.cross.engine import CrossEncoderFinetuneEngine as CrossEncoderFinetuneEngine
from .rerankers.cross.model import TunedReranker as TunedReranker
from .rerankers.light.engine import LightRerankerFinetuneEngine as LightRerankerFinetuneEngine
from .rerankers.light.model import LightReranker as LightReranker
from .rerankers.loading import load_reranker as load_reranker
from .rerankers.retriever.retriever import TunedRetriever as TunedRetriever
from .routers.engine import RouterFinetuneEngine as RouterFinetuneEngine
from .routers.serving.selector import TunedSelector as TunedSelector
from .routers.serving.tools import TunedToolRetriever as TunedToolRetriever
