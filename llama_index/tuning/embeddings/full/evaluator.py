"""nDCG@10 on the deciding queries; imported while training only."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers.base.evaluation import BaseEvaluator

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.full.model import encode
from llama_index.tuning.embeddings.full.prompts import Prompts
from llama_index.tuning.embeddings.measure import positive_rows
from llama_index.tuning.evaluate.retrieval import evaluate_vectors

METRIC = "ndcg@10"


class DecidingEvaluator(BaseEvaluator):
    """nDCG@10 of exact search, on queries that are not trained on.

    Args:
        dataset: the queries, and the documents that they search.
        prompts: of queries and documents.
        bf16: embed in that precision, where training does: it only compares.
    """

    def __init__(self, dataset: RetrievalDataset, prompts: Prompts, *, bf16: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.dataset, self.prompts, self.bf16 = dataset, prompts, bf16
        self.positives = positive_rows(dataset)
        self.primary_metric = METRIC

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The metric, as the trainer wants it."""
        return {METRIC: float(self.scores(model).mean())}

    def scores(self, model: Any) -> NDArray[np.float64]:
        """The metric of each query."""
        import torch

        low = torch.autocast(model.device.type, torch.bfloat16)
        with low if self.bf16 else contextlib.nullcontext():
            queries = encode(model, list(self.dataset.queries.values()), self.prompts.query)
            documents = encode(model, list(self.dataset.corpus.values()), self.prompts.document)
        return evaluate_vectors(queries, documents, self.positives, ks=[10]).values[METRIC]
