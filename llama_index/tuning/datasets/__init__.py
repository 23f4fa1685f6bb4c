"""What engines learn from: plain data, validated, saved as JSON or JSON Lines."""

from llama_index.tuning.datasets.retrieval import RetrievalDataset

__all__ = ["RetrievalDataset"]
