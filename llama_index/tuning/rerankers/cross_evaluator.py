"""The ranking metric that early stopping looks at; imported while training only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from llama_index.tuning.datasets.relevance import RelevanceList
from llama_index.tuning.evaluate.metrics import score_grades
from llama_index.tuning.rerankers.tuned import list_logits

METRIC = "ndcg@10"


class RankingEvaluator(BaseEvaluator):
    """nDCG@10, of graded relevance too, on queries that are not trained on."""

    def __init__(self, lists: Sequence[RelevanceList], *, bf16: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.lists = lists
        self.bf16 = bf16
        self.primary_metric = METRIC

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The metric, as the trainer wants it."""
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.bf16):
            scores = list_logits(model, self.lists, 32)
        found = [
            np.array([item.candidates[i].score for i in np.argsort(-given, kind="stable")])
            for item, given in zip(self.lists, scores, strict=True)
        ]
        missed = [np.array([*item.missed.values()], dtype=np.float64) for item in self.lists]
        ids = [item.query_id for item in self.lists]
        return {METRIC: score_grades(ids, found, missed, [10]).mean()[METRIC]}
