"""Training data from documents."""

from llama_index.tuning.generate.calls import CallOptions
from llama_index.tuning.generate.failures import Failure
from llama_index.tuning.generate.mined import MinedDataset
from llama_index.tuning.generate.negatives import mine_hard_negatives
from llama_index.tuning.generate.prompts import DEFAULT_QA_GENERATE_PROMPT_TMPL, QUESTION_STYLES
from llama_index.tuning.generate.questions import generate_qa_embedding_pairs
from llama_index.tuning.generate.results import GeneratedDataset, QuestionAnswer
from llama_index.tuning.generate.sentences import generate_sentence_queries

__all__ = [
    "DEFAULT_QA_GENERATE_PROMPT_TMPL",
    "QUESTION_STYLES",
    "CallOptions",
    "Failure",
    "GeneratedDataset",
    "MinedDataset",
    "QuestionAnswer",
    "generate_qa_embedding_pairs",
    "generate_sentence_queries",
    "mine_hard_negatives",
]
