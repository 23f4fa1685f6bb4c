"""Honest measurement: metrics, exact search, paired intervals."""

from llama_index.tuning.evaluate.bootstrap import Gain, paired_gain
from llama_index.tuning.evaluate.metrics import RetrievalScores, score_grades, score_rankings
from llama_index.tuning.evaluate.retrieval import (
    aevaluate_retriever,
    evaluate_retriever,
    evaluate_vectors,
)
from llama_index.tuning.evaluate.search import top_k

__all__ = [
    "Gain",
    "RetrievalScores",
    "aevaluate_retriever",
    "evaluate_retriever",
    "evaluate_vectors",
    "paired_gain",
    "score_grades",
    "score_rankings",
    "top_k",
]
