"""The ranking metric that early stopping looks at; imported while training only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from llama_index.tuning.datasets.records import RelevanceList
from llama_index.tuning.rerankers.cross.model import list_logits
from llama_index.tuning.rerankers.data import feature_list
from llama_index.tuning.rerankers.light.fit import ndcg

METRIC = "ndcg@10"


class RankingEvaluator(BaseEvaluator):
    """nDCG@10, of graded relevance too, on queries that are not trained on."""

    def __init__(self, lists: Sequence[RelevanceList], *, bf16: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.lists = lists
        self.graded = [feature_list(item) for item in lists]
        self.bf16 = bf16
        self.primary_metric = METRIC

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The metric, as the trainer wants it."""
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.bf16):
            scores = list_logits(model, self.lists, 32)
        return {METRIC: float(ndcg(self.graded, scores).mean())}
