"""Training data from documents."""

from llama_index.tuning.generate.sentences import generate_sentence_queries

__all__ = ["generate_sentence_queries"]
