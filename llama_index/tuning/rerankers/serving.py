"""What every re-ranker does around its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

RETRIEVAL_SCORE = "retrieval_score"


def check_top_n(top_n: int | None) -> None:
    """A whole number from 1 on, or `None` for all."""
    whole = isinstance(top_n, int) and not isinstance(top_n, bool)
    if top_n is not None and (not whole or top_n < 1):
        raise ValueError(f"top_n must be a whole number >= 1, or None for all; got {top_n!r}")


def check_min_score(min_score: float | None) -> None:
    """A probability, or `None` for no limit."""
    if min_score is not None and not 0 <= min_score <= 1:
        raise ValueError(f"min_score is a probability from 0 to 1, got {min_score!r}")


def query_text(query_bundle: QueryBundle | None) -> str:
    """The query's text; a re-ranker cannot do without."""
    if query_bundle is None:
        raise ValueError(
            "a re-ranker needs the query: pass query_bundle= or query_str= to postprocess_nodes()"
        )
    return query_bundle.query_str


def node_text(item: NodeWithScore) -> str:
    """The text that an index embeds; empty for a node without text."""
    return item.node.get_content(MetadataMode.EMBED)


def metadata_text(value: Any) -> str:
    """A metadata value as text; empty where there is none."""
    return "" if value is None else str(value)


def node_scores(nodes: Sequence[NodeWithScore]) -> list[float]:
    """The retriever's scores, NaN where it gave none."""
    return [np.nan if item.score is None else float(item.score) for item in nodes]


def ranked(
    nodes: Sequence[NodeWithScore],
    order: Sequence[int],
    scores: Sequence[float],
    *,
    top_n: int | None,
    min_score: float | None,
    keep_retrieval_score: bool,
) -> list[NodeWithScore]:
    """The best nodes with their new scores; the given ones are left as they are."""
    best = [i for i in order if min_score is None or scores[i] >= min_score][:top_n]
    found = []
    for i in best:
        node = nodes[i].node
        if keep_retrieval_score and nodes[i].score is not None:
            node = _with_retrieval_score(node, nodes[i].score)
        found.append(NodeWithScore(node=node, score=float(scores[i])))
    return found


def _with_retrieval_score(node: BaseNode, score: float | None) -> BaseNode:
    # A copy, since the node is the docstore's; out of what models read, since it is no content.
    return node.model_copy(
        update={
            "metadata": {**node.metadata, RETRIEVAL_SCORE: score},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, RETRIEVAL_SCORE],
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, RETRIEVAL_SCORE],
        }
    )
