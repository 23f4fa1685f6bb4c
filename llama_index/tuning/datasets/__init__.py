"""What engines learn from: plain data, validated, saved as JSON or JSON Lines."""

from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.datasets.routing import RoutingDataset, RoutingExample

__all__ = ["RetrievalDataset", "RoutingDataset", "RoutingExample"]
