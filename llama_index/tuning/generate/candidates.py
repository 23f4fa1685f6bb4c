"""What a retriever, or a search over vectors, puts before a query: candidates for negatives."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llama_index.tuning._progress import progress
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.errors import DatasetError, MissingExtraError
from llama_index.tuning.evaluate.search import FloatArray, IntArray, top_k, unit_rows

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore

Backend = Literal["auto", "faiss", "exact"]

_CHUNK = 65_536


@dataclass(frozen=True)
class Candidates:
    """One query's ranking.

    Args:
        query_id: of the query.
        ranked: (document id, score), best first, relevant ones among them.
        positive: the score of its best relevant document; `None` where that was not retrieved.
    """

    query_id: str
    ranked: list[tuple[str, float | None]]
    positive: float | None


def retrieved(
    dataset: RetrievalDataset,
    retriever: BaseRetriever,
    node_key: Callable[[NodeWithScore], str] | None,
    show_progress: bool,
) -> Iterator[Candidates]:
    """What the app's own retriever gives, at its own depth.

    Raises:
        DatasetError: none of its nodes is in the dataset's corpus.
    """
    known = seen = 0
    for id_, text in progress(
        dataset.queries.items(), show_progress, "Retrieving", len(dataset.queries)
    ):
        ranked: dict[str, float | None] = {}
        for node in retriever.retrieve(text):
            doc = node_key(node) if node_key is not None else node.node.node_id
            seen += 1
            if doc in dataset.corpus:
                known += 1
                ranked.setdefault(doc, node.score)
        found = [ranked[doc] for doc in dataset.relevant_docs[id_] if doc in ranked]
        scores = [score for score in found if score is not None]
        yield Candidates(id_, list(ranked.items()), max(scores, default=None))
    if seen and not known:
        raise DatasetError(
            "none of the retrieved nodes is in the dataset's corpus: its ids must be the nodes' "
            "ids, or node_key must say which corpus id a retrieved node has"
        )


def searched(
    dataset: RetrievalDataset,
    queries: FloatArray,
    documents: FloatArray,
    depth: int,
    backend: Backend = "auto",
) -> Iterator[Candidates]:
    """The nearest documents by cosine; rows are in the order of queries and of the corpus."""
    indices, scores = nearest(queries, documents, depth, backend=backend)
    ids = list(dataset.corpus)
    rows = {id_: row for row, id_ in enumerate(ids)}
    unit = unit_rows(queries)
    for number, id_ in enumerate(dataset.queries):
        relevant = [rows[doc] for doc in dataset.relevant_docs[id_]]
        positive = float((unit_rows(documents[relevant]) @ unit[number]).max())
        pairs = zip(indices[number].tolist(), scores[number].tolist(), strict=True)
        yield Candidates(id_, [(ids[row], score) for row, score in pairs], positive)


def nearest(
    queries: FloatArray, documents: FloatArray, k: int, *, backend: Backend = "auto"
) -> tuple[IntArray, FloatArray]:
    """Exact nearest documents by cosine, in chunks: faiss where it is installed, else NumPy.

    Args:
        queries: shape `(n, dim)`.
        documents: shape `(N, dim)`, in memory or memory-mapped; read once, chunk by chunk.
        k: how many; at most `N`.
        backend: `"faiss"` and `"exact"` (NumPy) find the same; `"auto"` takes faiss if it can.

    Returns:
        Row numbers of documents and their cosines, both of shape `(n, k)`, best first.
    """
    if backend not in ("auto", "faiss", "exact"):
        raise ValueError(f"unknown backend {backend!r}; choose one of: auto, faiss, exact")
    installed = importlib.util.find_spec("faiss") is not None
    if backend == "faiss" and not installed:
        raise MissingExtraError("backend='faiss'", "faiss", "generate")
    if backend == "exact" or not installed:
        return top_k(queries, documents, k)
    return _faiss_nearest(unit_rows(queries), documents, min(k, len(documents)))


def _faiss_nearest(
    queries: FloatArray, documents: FloatArray, k: int
) -> tuple[IntArray, FloatArray]:
    import faiss

    indices = np.empty((len(queries), 0), dtype=np.int64)
    scores = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(documents), _CHUNK):
        block = unit_rows(documents[start : start + _CHUNK])
        found, rows = faiss.knn(
            queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT
        )
        indices = np.hstack([indices, rows + start])
        scores = np.hstack([scores, found])
        order = np.lexsort((indices, -scores), axis=1)[:, :k]
        indices = np.take_along_axis(indices, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
    return indices, scores


def check_rank_range(rank_range: Sequence[int]) -> tuple[int, int]:
    """Two ranks, the first at least 1 and not behind the second."""
    if len(rank_range) != 2 or not 1 <= rank_range[0] <= rank_range[1]:
        raise ValueError(
            f"rank_range must be (first, last) with 1 <= first <= last, got {rank_range}"
        )
    return rank_range[0], rank_range[1]
