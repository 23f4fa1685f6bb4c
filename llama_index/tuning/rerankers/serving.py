"""What every re-ranker does around its scores, and what it has to know of the app's retriever.

That is: the nodes of its index, its embedding model, and whether its scores are distances, the
smaller the better: FAISS, and Qdrant with Euclidean distance, hand these on as they are.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from numpy.typing import ArrayLike

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import items_of, of_type, whole_number
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.rerankers.light.features import RRF_K, LinearRanker
from llama_index.tuning.text.statistics import Statistics
from llama_index.tuning.text.words import Analyzer
from llama_index.tuning.vectors.identity import base_name

if TYPE_CHECKING:
    from typing_extensions import Self


RETRIEVAL_SCORE = "retrieval_score"


class CalibratedReranker(BaseNodePostprocessor):
    """What the re-rankers share: they cut the list, and keep the retriever's score.

    A subclass says how its scores come about, in `raw_scores`.
    """

    top_n: int | None = Field(default=None, description="Nodes to return; all where None.")
    min_score: float | None = Field(default=None, description="Lowest probability to return.")
    keep_retrieval_score: bool = Field(default=True, description="Keep it in the metadata.")

    _calibration: LinearRanker = PrivateAttr()
    _index: Statistics | None = PrivateAttr(default=None)

    def __init__(
        self,
        calibration: LinearRanker,
        *,
        top_n: int | None,
        min_score: float | None,
        keep_retrieval_score: bool,
        callback_manager: CallbackManager | None,
        **fields: Any,
    ) -> None:
        if top_n is not None:
            top_n = whole_number("top_n", top_n, 1)
        of_type("calibration", calibration, LinearRanker)
        _check_min_score(min_score, bool(calibration.calibration.size))
        super().__init__(
            top_n=top_n,
            min_score=min_score,
            keep_retrieval_score=keep_retrieval_score,
            callback_manager=callback_manager or CallbackManager(),
            **fields,
        )
        self._calibration = calibration

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        yield from self._origin()
        for name in ("top_n", "min_score"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def _origin(self) -> Iterator[tuple[str, Any]]:
        """What a repr says first: where the scores come from."""
        yield from ()

    def min_score_for(self, precision: float, *, confidence: float = 0.8) -> float:
        """The `min_score` from which on that share of the returned nodes is relevant.

        Found on queries that the re-ranker did not learn from. The fewer they are, and the surer
        it should be, the higher it is.

        Args:
            precision: the share that is wanted.
            confidence: how sure the precision should be; 0.5 takes what was measured as it is.

        Raises:
            ValueError: that precision was not reached so surely.
        """
        return self._calibration.min_score_for(precision, confidence=confidence)

    @property
    @abstractmethod
    def analyzer(self) -> Analyzer | None:
        """What splits texts into words, if the scores look at words."""

    # Not abstract, as what follows: LlamaIndex would trace each override as a step of its own.
    def raw_scores(
        self, query: str, nodes: Sequence[NodeWithScore], *, statistics: Statistics | None = None
    ) -> Float64:
        """A score for each node, the larger the better, before calibration.

        Args:
            query: the question.
            nodes: candidates, in the order in which they were found, with the retriever's scores,
                of which the larger is the better.
            statistics: how common words are; what the re-ranker has by default.
        """
        raise NotImplementedError

    def rank(
        self, query: str, nodes: Sequence[NodeWithScore], *, statistics: Statistics | None = None
    ) -> list[NodeWithScore]:
        """The nodes in the new order, cut by `top_n` and `min_score`; see `raw_scores`."""
        nodes = each_once(nodes)
        if not nodes:
            return []
        return self._ranked(nodes, self.raw_scores(query, nodes, statistics=statistics))

    def with_index(self, index: Statistics) -> Self:
        """A copy for inside a retriever that fuses: its word counts, nodes not in order of scores.

        Nodes stay as they are indexed: with a score in its metadata, one would be another node to
        a retriever around this one, such as a `QueryFusionRetriever`.
        """
        other = self.model_copy(update={"keep_retrieval_score": False})
        other._index = index
        return other

    def save(self, path: PathLike) -> None:
        """Save a folder that `load` reads; nothing in it is pickled."""
        with artifacts.replacing_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write all that `load` reads to a folder that is empty."""
        raise NotImplementedError

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = query_text(query_bundle)
        nodes = each_once(nodes)
        if not nodes:
            return []
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            given = nodes if self._index is not None else similar_first(nodes)
            found = self._ranked(nodes, self.raw_scores(query, given, statistics=self._index))
            event.on_end(payload={EventPayload.NODES: found})
        return found

    def _ranked(self, nodes: Sequence[NodeWithScore], raw: Float64) -> list[NodeWithScore]:
        """The best nodes with their new scores; the given ones are left as they are."""
        calibrated = self._calibration.calibration.size
        final = self._calibration.probabilities(raw) if calibrated else raw
        order = np.argsort(-raw, kind="stable").tolist()
        if self.min_score is not None:
            order = [i for i in order if final[i] >= self.min_score]
        found = []
        for i in order[: self.top_n]:
            node = nodes[i].node
            if self.keep_retrieval_score and nodes[i].score is not None:
                node = _with_retrieval_score(node, nodes[i].score)
            found.append(NodeWithScore(node=node, score=float(final[i])))
        return found


def check_words(reranker: BaseNodePostprocessor | None, analyzer: Analyzer) -> None:
    """A re-ranker inside a retriever that fuses splits words as its index does."""
    if not isinstance(reranker, CalibratedReranker) or reranker.analyzer is None:
        return
    ours, theirs = analyzer.to_dict(), reranker.analyzer.to_dict()
    if ours != theirs:
        raise ValueError(
            f"the re-ranker splits words by {theirs}, the BM25 index by {ours}; build the "
            "retriever with this re-ranker, or tune one with the retriever"
        )


def query_text(query_bundle: QueryBundle | None) -> str:
    """The query's text; a re-ranker cannot do without."""
    if query_bundle is None:
        raise ValueError(
            "a re-ranker needs the query: pass query_bundle= or query_str= to postprocess_nodes()"
        )
    return of_type("query_str", query_bundle.query_str, str, "a text")


def node_text(item: NodeWithScore) -> str:
    """The text that an index embeds; empty for a node without text."""
    return item.node.get_content(MetadataMode.EMBED)


def each_once(nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    """Each node where it stands first: two retrievers may have found it."""
    first: dict[str, NodeWithScore] = {}
    for item in items_of("nodes", nodes, "nodes with scores"):
        of_type("each of nodes", item, NodeWithScore)
        first.setdefault(item.node.node_id, item)
    return list(first.values())


def metadata_text(value: Any) -> str:
    """A metadata value as text; empty if there is none."""
    return "" if value is None else str(value)


def similar_first(nodes: Sequence[NodeWithScore]) -> Sequence[NodeWithScore]:
    """What a retriever found, in its order; scores that are distances with their sign turned."""
    given = np.array(node_scores(nodes), dtype=np.float64)
    if similarities(given) is given:
        return nodes
    return [
        NodeWithScore(node=item.node, score=None if item.score is None else -item.score)
        for item in nodes
    ]


def node_scores(nodes: Sequence[NodeWithScore]) -> list[float]:
    """The retriever's scores, NaN if it gave none."""
    return [np.nan if item.score is None else float(item.score) for item in nodes]


def _with_retrieval_score(node: BaseNode, score: float | None) -> BaseNode:
    if RETRIEVAL_SCORE in node.metadata:  # of the retriever, before an earlier re-ranker
        return node
    # A copy, since the node is the docstore's; out of what models read, since it is no content.
    return node.model_copy(
        update={
            "metadata": {**node.metadata, RETRIEVAL_SCORE: score},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, RETRIEVAL_SCORE],
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, RETRIEVAL_SCORE],
        }
    )


def _check_min_score(min_score: float | None, calibrated: bool) -> None:
    if min_score is None:
        return
    given: object = min_score
    number = isinstance(given, Real) and not isinstance(given, bool)
    if not number or not 0 <= min_score <= 1:
        raise ValueError(f"min_score is a probability from 0 to 1, got {min_score!r}")
    if not calibrated:
        raise ValueError("min_score needs a calibrated re-ranker, that of an engine")


logger = logging.getLogger(__name__)

TURNED = (
    "the retriever's scores rise from its first node to its last, as distances do; they are "
    "taken with their sign turned, so that the larger is the better"
)
_LEAST = 3  # fewer may rise by chance


def rises(scores: ArrayLike) -> bool:
    """Whether one list's scores, in the order in which its nodes were found, are distances."""
    known = _known(scores)
    return bool(len(known) >= _LEAST and (np.diff(known) >= 0).all() and known[0] < known[-1])


def most_rise(lists: Sequence[ArrayLike]) -> bool:
    """Whether the scores of most lists that are long enough to tell are distances."""
    telling = [scores for scores in lists if len(_known(scores)) >= _LEAST]
    return 2 * sum(map(rises, telling)) > len(telling)


def similarities(scores: ArrayLike) -> Float64:
    """One list's scores, the larger the better: as given, or distances with their sign turned."""
    given = np.asarray(scores, dtype=np.float64)
    if not rises(given):
        return given
    _tell()
    return -given


def _known(scores: ArrayLike) -> Float64:
    given = np.asarray(scores, dtype=np.float64)
    return given[np.isfinite(given)]


@cache
def _tell() -> None:
    logger.warning(TURNED)


def embedding_model(retriever: Any) -> BaseEmbedding | None:
    """A vector retriever's embedding model; `None` if it has none."""
    model = getattr(retriever, "_embed_model", None)
    return model if isinstance(model, BaseEmbedding) else None


def embedding_name(retriever: Any) -> str | None:
    """The name of a vector retriever's embedding model; `None` if it has none."""
    model = embedding_model(retriever)
    return None if model is None else base_name(model)


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]], *, k: int = RRF_K) -> list[str]:
    """Ids by the sum of 1 / (k + rank) over the rankings (Cormack et al. 2009).

    Args:
        rankings: each best first.
        k: the larger, the less the first places count.

    Example:
        >>> reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
        ['b', 'a', 'c']
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id_ in enumerate(dict.fromkeys(ranking), start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda id_: -scores[id_])
