"""The parts of a query that may each ask for something else."""

from llama_index.tuning.text.segmentation import clauses

__all__ = ["clauses"]
