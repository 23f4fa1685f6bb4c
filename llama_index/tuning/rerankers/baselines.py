"""What a tuned re-ranker has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_index.tuning.datasets.relevance import RelevanceDataset, RelevanceList
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList
from llama_index.tuning.rerankers.ranker import (
    LightRanker,
    rank_fusion,
    retriever_order,
    score_fusion,
)

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor


@dataclass(frozen=True, eq=False)
class Baseline:
    """A way to order candidates that learns nothing from the dataset.

    Attributes:
        name: for the report.
        ranker: fixed weights; those of the retriever's order where `reranker` is used.
        reranker: the app's own re-ranker, instead.
    """

    name: str
    ranker: LightRanker
    reranker: BaseNodePostprocessor | None = None

    def scores(self, dataset: RelevanceDataset, lists: Sequence[FeatureList]) -> list[FloatArray]:
        """One score for each candidate of each list."""
        if self.reranker is None:
            return [self.ranker.scores(item.features) for item in lists]
        return [reranked(self.reranker, item) for item in dataset.lists]


def base_lines(default: LightRanker, reranker: BaseNodePostprocessor | None) -> list[Baseline]:
    """No re-ranker, the two fusions, the package's default, and the app's own."""
    fixed = [retriever_order(), rank_fusion(), score_fusion()]
    found = [Baseline(str(ranker.details["name"]), ranker) for ranker in fixed]
    found.append(Baseline("default light re-ranker", default))
    if reranker is not None:
        found.append(Baseline("base re-ranker", retriever_order(), reranker))
    return found


def reranked(reranker: BaseNodePostprocessor, item: RelevanceList) -> FloatArray:
    """Scores that give a postprocessor's order; what it drops comes last, in the given order."""
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [
        NodeWithScore(
            node=TextNode(
                id_=c.node_id,
                text=c.text,
                metadata=dict(c.metadata),
                excluded_embed_metadata_keys=list(c.metadata),  # the text has them already
                excluded_llm_metadata_keys=list(c.metadata),
            ),
            score=c.retrieval_score,
        )
        for c in item.candidates
    ]
    answered = reranker.postprocess_nodes(nodes, query_str=item.query) if nodes else []
    place = {node.node.node_id: rank for rank, node in enumerate(answered)}
    last = len(nodes)
    return -np.array(
        [place.get(c.node_id, last + i) for i, c in enumerate(item.candidates)], dtype=np.float64
    )
