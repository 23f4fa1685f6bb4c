"""Metrics of vectors, and of any LlamaIndex retriever, on a retrieval dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llama_index.tuning._async import own_work
from llama_index.tuning._progress import progress
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets._candidates import check_retriever
from llama_index.tuning.datasets._validation import check_node_ids
from llama_index.tuning.evaluate.metrics import (
    DEFAULT_KS,
    RetrievalScores,
    check_ks,
    score_hits,
    score_rankings,
)
from llama_index.tuning.evaluate.search import FloatArray, IntArray, top_k

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore

Positives = Sequence[IntArray]


def evaluate_vectors(
    queries: FloatArray,
    documents: FloatArray,
    positives: Positives,
    *,
    query_ids: Sequence[str] | None = None,
    ks: Sequence[int] = DEFAULT_KS,
    map_documents: Callable[[FloatArray], FloatArray] | None = None,
    on_block: Callable[[int], None] | None = None,
) -> RetrievalScores:
    """Metrics of exact cosine search.

    Args:
        queries: shape `(n, dim)`.
        documents: shape `(N, dim)`, in memory or memory-mapped.
        positives: for each query the row numbers of its relevant documents.
        query_ids: names for the queries; their numbers by default.
        ks: cut-offs.
        map_documents: applied to blocks of documents before the search.
        on_block: called with the number of documents done.
    """
    check_ks(ks)
    if not len(queries) == len(positives):
        raise ValueError(f"positives must have one entry per query: {len(positives)}")
    ranked, _ = top_k(queries, documents, max(ks), map_documents=map_documents, on_block=on_block)
    ids = list(query_ids) if query_ids is not None else [str(i) for i in range(len(queries))]
    return RetrievalScores(ids, score_hits(*hits_of(ranked, positives, max(ks)), ks))


def hits_of(
    ranked: IntArray, positives: Positives, depth: int
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.bool_]], IntArray]:
    """Which ranked documents are relevant, padded to `(n, depth)`, and how many there are."""
    hits = np.zeros((len(ranked), depth), dtype=bool)
    width = min(depth, ranked.shape[1])
    for row, relevant in enumerate(positives):
        hits[row, :width] = np.isin(ranked[row, :width], relevant)
    return hits, np.array([len(np.unique(relevant)) for relevant in positives], dtype=np.int64)


@own_work
def evaluate_retriever(
    retriever: BaseRetriever,
    dataset: RetrievalDataset,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    node_key: Callable[[NodeWithScore], str] | None = None,
    show_progress: bool = False,
) -> RetrievalScores:
    """Metrics of any LlamaIndex retriever: each query is retrieved once.

    Args:
        retriever: what the app uses; let its top k be at least the largest of `ks`.
        dataset: its corpus ids are compared with the retrieved nodes' ids.
        ks: cut-offs.
        node_key: the corpus id of a retrieved node, where that is not its node id.
        show_progress: show a bar.

    Raises:
        DatasetError: not one of the retrieved ids is in the corpus.
    """
    check_ks(ks)
    check_retriever(retriever)
    dataset = RetrievalDataset.coerce(dataset)
    key = node_key or _node_id
    rankings = [
        _ranking(retriever.retrieve(text), key)
        for text in progress(dataset.queries.values(), show_progress, "Retrieving")
    ]
    return _score(dataset, rankings, ks)


@own_work
async def aevaluate_retriever(
    retriever: BaseRetriever,
    dataset: RetrievalDataset,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    node_key: Callable[[NodeWithScore], str] | None = None,
    num_workers: int = 8,
) -> RetrievalScores:
    """`evaluate_retriever` with at most `num_workers` queries under way at once."""
    check_ks(ks)
    check_retriever(retriever)
    if num_workers < 1:
        raise ValueError(f"num_workers must be >= 1, got {num_workers}")
    dataset = RetrievalDataset.coerce(dataset)
    key = node_key or _node_id
    slots = asyncio.Semaphore(num_workers)

    async def retrieve(text: str) -> list[str]:
        async with slots:
            return _ranking(await retriever.aretrieve(text), key)

    rankings = await asyncio.gather(*map(retrieve, dataset.queries.values()))
    return _score(dataset, rankings, ks)


def _node_id(node: NodeWithScore) -> str:
    return node.node.node_id


def _ranking(nodes: Iterable[NodeWithScore], key: Callable[[NodeWithScore], str]) -> list[str]:
    return list(dict.fromkeys(map(key, nodes)))  # a repeated node counts once


def _score(
    dataset: RetrievalDataset, rankings: Sequence[Sequence[str]], ks: Sequence[int]
) -> RetrievalScores:
    check_node_ids(rankings, dataset.corpus, "; node_key= says which other id counts")
    relevant = [dataset.relevant_docs[id_] for id_ in dataset.queries]
    return score_rankings(list(dataset.queries), rankings, relevant, ks)
