"""What a tuned re-ranker has to beat."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning.datasets.relevance import RelevanceDataset, RelevanceList
from llama_index.tuning.rerankers.bm25 import BM25Index
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList
from llama_index.tuning.rerankers.light import LightReranker, default_ranker
from llama_index.tuning.rerankers.ranker import (
    LightRanker,
    rank_fusion,
    retriever_order,
    score_fusion,
)
from llama_index.tuning.rerankers.serving import CalibratedReranker
from llama_index.tuning.rerankers.statistics import WordStatistics
from llama_index.tuning.rerankers.words import Analyzer

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Baseline:
    """A way to order candidates that learns nothing from the dataset.

    Attributes:
        name: for the report.
        ranker: fixed weights; those of the retriever's order where `reranker` is used.
        reranker: the app's own re-ranker, instead.
        index: of a retriever that fuses, in which `reranker` is served.
    """

    name: str
    ranker: LightRanker
    reranker: BaseNodePostprocessor | None = None
    index: BM25Index | None = None

    def scores(self, dataset: RelevanceDataset, lists: Sequence[FeatureList]) -> list[FloatArray]:
        """One score for each candidate of each list."""
        if self.reranker is None:
            return [self.ranker.scores(item.features) for item in lists]
        served = self.reranker
        if self.index is not None and isinstance(served, CalibratedReranker):
            served = served.with_index(self.index)
        return [reranked(served, item) for item in dataset.lists]

    def kept(
        self, reason: str, analyzer: Analyzer, statistics: WordStatistics, **arguments: Any
    ) -> BaseNodePostprocessor:
        """What the app uses where the gate keeps this baseline, with a warning that says so.

        Args:
            reason: the gate's.
            analyzer, statistics, **arguments: the `LightReranker`'s, where it is one.
        """
        logger.warning(
            'the base is kept (%s): %s; accept="always" would override it', self.name, reason
        )
        if self.reranker is not None:
            return self.reranker
        details = {"name": self.name, "accepted": False, "reason": reason}
        return LightReranker(
            replace(self.ranker, details=details), analyzer, statistics, **arguments
        )


def base_lines(
    reranker: BaseNodePostprocessor | None, index: BM25Index | None = None
) -> list[Baseline]:
    """No re-ranker, the two fusions, the package's default, and the app's own.

    Args:
        reranker: the app's own.
        index: the deployed retriever's, where it fuses.
    """
    fixed = [retriever_order(), rank_fusion(), score_fusion()]
    found = [Baseline(str(ranker.details["name"]), ranker) for ranker in fixed]
    found.append(Baseline("default light re-ranker", default_ranker()))
    if reranker is not None:
        found.append(Baseline("base re-ranker", retriever_order(), reranker, index))
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
