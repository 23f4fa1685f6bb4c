"""Training data from documents."""

from llama_index.tuning.generate.calls import CallOptions
from llama_index.tuning.generate.cross_encoder import (
    generate_ce_fine_tuning_dataset,
    generate_synthetic_queries_over_documents,
)
from llama_index.tuning.generate.failures import Failure
from llama_index.tuning.generate.heldout import QueryComparison, compare_queries
from llama_index.tuning.generate.mined import MinedDataset
from llama_index.tuning.generate.multihop import generate_multi_hop_queries
from llama_index.tuning.generate.negatives import mine_hard_negatives
from llama_index.tuning.generate.paraphrases import generate_paraphrases
from llama_index.tuning.generate.prompts import (
    DEFAULT_QA_GENERATE_PROMPT_TMPL,
    DEFAULT_QUERY_DOC_RELEVANCE_PROMPT,
    QUESTION_STYLES,
)
from llama_index.tuning.generate.questions import generate_qa_embedding_pairs
from llama_index.tuning.generate.relevance import (
    CallEstimate,
    CrossEncoderFinetuningDatasetSample,
    RelevanceLabels,
    label_relevance,
)
from llama_index.tuning.generate.results import GeneratedDataset, QuestionAnswer
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.generate.teacher import LabelledRelevance, label_by_reranker
from llama_index.tuning.generate.unanswerable import (
    UnansweredQueries,
    generate_unanswerable_queries,
)

__all__ = [
    "DEFAULT_QA_GENERATE_PROMPT_TMPL",
    "DEFAULT_QUERY_DOC_RELEVANCE_PROMPT",
    "QUESTION_STYLES",
    "CallEstimate",
    "CallOptions",
    "CrossEncoderFinetuningDatasetSample",
    "Failure",
    "GeneratedDataset",
    "LabelledRelevance",
    "MinedDataset",
    "QueryComparison",
    "QuestionAnswer",
    "RelevanceLabels",
    "UnansweredQueries",
    "compare_queries",
    "generate_ce_fine_tuning_dataset",
    "generate_multi_hop_queries",
    "generate_paraphrases",
    "generate_qa_embedding_pairs",
    "generate_sentence_queries",
    "generate_synthetic_queries_over_documents",
    "generate_unanswerable_queries",
    "label_by_reranker",
    "label_relevance",
    "mine_hard_negatives",
]
