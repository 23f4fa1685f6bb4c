"""Metrics of vectors, and of any LlamaIndex retriever, on a retrieval dataset.

Ranking metrics, one value for each query.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning._checks import callable_or_none, items_of, plain_arguments, whole_number
from llama_index.tuning._running import own_work, progress
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.candidates import check_retriever
from llama_index.tuning.datasets.checks import check_node_ids
from llama_index.tuning.datasets.moved import moved_note, retrieved_places
from llama_index.tuning.datasets.tuned_parts import warn_of_learnt
from llama_index.tuning.report import QueryGain, most_changed
from llama_index.tuning.text.passages import copies_in, copies_notes, credited, first_copies
from llama_index.tuning.vectors.search import top_k

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore

logger = logging.getLogger(__name__)

DEFAULT_KS = (1, 5, 10)
METRICS = ("ndcg", "mrr", "hit_rate", "recall", "precision", "map")


@dataclass(frozen=True)
class RetrievalScores:
    """Metrics of one retriever on one dataset.

    Attributes:
        query_ids: the queries, in the order of the values.
        values: metric name, such as `"ndcg@10"`, → one value for each query, from 0 to 1.
    """

    query_ids: list[str]
    values: dict[str, NDArray[np.float64]]

    def mean(self) -> dict[str, float]:
        """Each metric's mean over the queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> RetrievalScores:
        """The scores of some of the queries, by position."""
        ids = [self.query_ids[row] for row in rows]
        return RetrievalScores(ids, {name: v[np.asarray(rows)] for name, v in self.values.items()})

    @plain_arguments
    def only(self, metrics: Sequence[str]) -> RetrievalScores:
        """Some of the metrics, in this order."""
        return RetrievalScores(self.query_ids, {name: self.values[name] for name in metrics})

    def changed(
        self, tuned: RetrievalScores, metric: str, dataset: RetrievalDataset
    ) -> list[QueryGain]:
        """The queries that changed most from these scores to the tuned ones, for a report."""

        def described(row: int) -> tuple[str, str, list[str]]:
            id_ = self.query_ids[row]
            documents = [dataset.corpus[doc] for doc in dataset.relevant_docs[id_][:2]]
            return id_, dataset.queries[id_], documents

        return most_changed(self.values[metric], tuned.values[metric], described)

    def __str__(self) -> str:
        means = "  ".join(f"{name} {value:.4f}" for name, value in self.mean().items())
        return f"{means}  (n={len(self.query_ids)})"


@plain_arguments
def score_rankings(
    query_ids: Sequence[str],
    rankings: Iterable[Sequence[object]],
    relevant: Iterable[Iterable[object]],
    ks: Sequence[int] = DEFAULT_KS,
) -> RetrievalScores:
    """nDCG, MRR, hit rate, recall, precision and MAP at each cut-off.

    Binary relevance, as trec_eval has it: the ideal ranking of nDCG holds all relevant
    documents of the query, and average precision is divided by their number.

    Args:
        query_ids: names of the queries.
        rankings: for each query the retrieved documents, best first, without repeats.
        relevant: for each query its relevant documents, at least one.
        ks: cut-offs, each at least 1.

    Example:
        >>> scores = score_rankings(["q1"], [["b", "a"]], [{"a"}], ks=[2])
        >>> scores.mean()["mrr@2"]
        0.5
    """
    check_ks(ks)
    depth = max(ks)
    both = _by_query(query_ids, rankings=rankings, relevant=relevant)
    hits = np.zeros((len(query_ids), depth), dtype=bool)
    counts = np.zeros(len(query_ids), dtype=np.int64)
    for row, (ranking, answers) in enumerate(both):
        wanted = set(answers)
        if not wanted:
            raise ValueError(f"relevant[{row}] must hold at least one document, got none")
        counts[row] = len(wanted)
        found = [document in wanted for document in ranking[:depth]]
        hits[row, : len(found)] = found
    return RetrievalScores(list(query_ids), score_hits(hits, counts, ks))


def score_hits(
    hits: NDArray[np.bool_], counts: NDArray[np.int64], ks: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """The metrics from `hits`, shape `(n, depth)`, and the number of relevant documents `(n,)`."""
    values: dict[str, NDArray[np.float64]] = {}
    positions = np.arange(1, hits.shape[1] + 1)
    discounts = 1.0 / np.log2(positions + 1)
    precisions = np.cumsum(hits, axis=1) / positions
    for k in ks:
        top = hits[:, :k]
        ideal = np.concatenate([[0.0], np.cumsum(discounts[:k])])[np.minimum(counts, k)]
        first = np.where(top.any(axis=1), top.argmax(axis=1) + 1, np.inf)
        values[f"ndcg@{k}"] = np.asarray(top @ discounts[:k] / ideal)
        values[f"mrr@{k}"] = np.asarray(1.0 / first)
        values[f"hit_rate@{k}"] = np.asarray(top.any(axis=1), dtype=np.float64)
        values[f"recall@{k}"] = np.asarray(top.sum(axis=1) / counts)
        values[f"precision@{k}"] = np.asarray(top.sum(axis=1) / k)
        values[f"map@{k}"] = np.asarray((precisions[:, :k] * top).sum(axis=1) / counts)
    return values


@plain_arguments
def score_grades(
    query_ids: Sequence[str],
    found: Iterable[NDArray[np.float64]],
    missed: Iterable[NDArray[np.float64]],
    ks: Sequence[int] = DEFAULT_KS,
) -> RetrievalScores:
    """The same metrics where documents are relevant to a degree: nDCG sees it.

    A document's gain is its grade, as trec_eval has it (Järvelin and Kekäläinen 2002), so only the
    grades' proportions count. To the other metrics every grade above 0 is the same. Grades of 0
    and 1 give what `score_rankings` gives.

    Args:
        query_ids: names of the queries.
        found: for each query the grades of the ranked documents, best rank first, each from 0.
        missed: for each query the grades of its documents that are not in the ranking. A query
            needs a grade above 0 in one of the two.
        ks: cut-offs, each at least 1.

    Example:
        >>> scores = score_grades(["q1"], [np.array([1.0, 3.0])], [np.array([])], ks=[2])
        >>> round(scores.mean()["ndcg@2"], 3)
        0.797
    """
    check_ks(ks)
    depth = max(ks)
    both = _by_query(query_ids, found=found, missed=missed)
    gains, ideal = np.zeros((len(query_ids), depth)), np.zeros((len(query_ids), depth))
    counts = np.zeros(len(query_ids), dtype=np.int64)
    for row, (given, elsewhere) in enumerate(both):
        here = _grades(f"found[{row}]", given)
        every = np.concatenate([here, _grades(f"missed[{row}]", elsewhere)])
        if not np.any(every > 0):
            raise ValueError(f"found and missed of query {row} hold no grade above 0")
        best = np.sort(every)[::-1][:depth]
        gains[row, : len(here)] = here[:depth]
        ideal[row, : len(best)] = best
        counts[row] = np.count_nonzero(every > 0)
    values = score_hits(gains > 0, counts, ks)
    discounts = 1.0 / np.log2(np.arange(2, depth + 2))
    most = np.cumsum(ideal * discounts, axis=1)
    for k in ks:
        values[f"ndcg@{k}"] = np.asarray(gains[:, :k] @ discounts[:k] / most[:, k - 1])
    return RetrievalScores(list(query_ids), values)


def _by_query(query_ids: Sequence[str], **given: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    """What belongs to each query, in their order: as much of each as there are queries."""
    listed = {name: list(values) for name, values in given.items()}
    for name, values in listed.items():
        if len(values) != len(query_ids):
            raise ValueError(
                f"{name} must have one entry for each of {len(query_ids)} queries, "
                f"got {len(values)}"
            )
        for row, value in enumerate(values):
            items_of(f"{name}[{row}]", value, "items")
    return zip(*listed.values(), strict=True)


def _grades(name: str, given: Any) -> NDArray[np.float64]:
    try:
        grades = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold numbers, got {given!r:.100}") from None
    if grades.ndim != 1 or not np.all(grades >= 0):
        raise ValueError(f"{name} must be a list of numbers >= 0, got {given!r:.100}")
    return grades


def check_ks(ks: Sequence[int]) -> None:
    """Cut-offs must be whole numbers from 1 on."""
    if isinstance(ks, (str, bytes)) or not isinstance(ks, Sequence):
        raise TypeError(f"ks must be a list of cut-offs, such as [1, 5], got {ks!r:.100}")
    if not ks or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in ks):
        raise ValueError(f"ks must be whole numbers >= 1, got {list(ks)!r}")


Positives = Sequence[Ints]


@plain_arguments
def evaluate_vectors(
    queries: Float32,
    documents: Float32,
    positives: Sequence[Ints],
    *,
    query_ids: Sequence[str] | None = None,
    ks: Sequence[int] = DEFAULT_KS,
    map_documents: Callable[[Float32], Float32] | None = None,
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
    positives = list(items_of("positives", positives, "row numbers"))
    if not len(queries) == len(positives):
        raise ValueError(f"positives must have one entry per query: {len(positives)}")
    ranked, _ = top_k(queries, documents, max(ks), map_documents=map_documents, on_block=on_block)
    ids = list(query_ids) if query_ids is not None else [str(i) for i in range(len(queries))]
    return RetrievalScores(ids, score_hits(*hits_of(ranked, positives, max(ks)), ks))


def hits_of(
    ranked: Ints, positives: Positives, depth: int
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.bool_]], Ints]:
    """Which ranked documents are relevant, padded to `(n, depth)`, and how many there are."""
    hits = np.zeros((len(ranked), depth), dtype=bool)
    width = min(depth, ranked.shape[1])
    for row, relevant in enumerate(positives):
        hits[row, :width] = np.isin(ranked[row, :width], relevant)
    return hits, np.array([len(np.unique(relevant)) for relevant in positives], dtype=np.int64)


@own_work
@plain_arguments
def evaluate_retriever(
    retriever: BaseRetriever,
    dataset: RetrievalDataset,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    node_key: Callable[[NodeWithScore], str] | None = None,
    show_progress: bool = False,
) -> RetrievalScores:
    """Metrics of any LlamaIndex retriever: each query is retrieved once.

    Of documents with the same text whichever comes first counts as the relevant one. A warning
    says if something inside it has learnt some of the queries.

    Args:
        retriever: what the app uses; let its top k be at least the largest of `ks`.
        dataset: its corpus ids are compared with the retrieved nodes' ids; labelled passages that
            come under other ids, as after another ingestion, are known by their texts.
        ks: cut-offs.
        node_key: the corpus id of a retrieved node, where that is not its node id.
        show_progress: show a bar.

    Raises:
        DatasetError: not one of the retrieved ids is in the corpus, and none of the retrieved
            texts holds a labelled passage.
    """
    check_ks(ks)
    check_retriever(retriever)
    dataset = RetrievalDataset.coerce(dataset)
    callable_or_none("node_key", node_key)
    warn_of_learnt(retriever, dataset.queries.values())
    found = [
        retriever.retrieve(text)
        for text in progress(dataset.queries.values(), show_progress, "Retrieving")
    ]
    return _score(dataset, _rankings(dataset, found, node_key), ks)


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
    num_workers = whole_number("num_workers", num_workers, 1)
    dataset = RetrievalDataset.coerce(dataset)
    callable_or_none("node_key", node_key)
    warn_of_learnt(retriever, dataset.queries.values())
    slots = asyncio.Semaphore(num_workers)

    async def retrieve(text: str) -> list[NodeWithScore]:
        async with slots:
            return await retriever.aretrieve(text)

    found = await asyncio.gather(*map(retrieve, dataset.queries.values()))
    return _score(dataset, _rankings(dataset, found, node_key), ks)


def _rankings(
    dataset: RetrievalDataset,
    found: Sequence[Sequence[NodeWithScore]],
    node_key: Callable[[NodeWithScore], str] | None,
) -> list[list[str]]:
    """The ranked ids of each query; a repeated node counts once."""
    key = node_key or (lambda item: item.node.node_id)
    rankings = [list(dict.fromkeys(map(key, nodes))) for nodes in found]
    return _by_text(dataset, found, rankings) if node_key is None else rankings


def _by_text(
    dataset: RetrievalDataset,
    found: Sequence[Sequence[NodeWithScore]],
    rankings: list[list[str]],
) -> list[list[str]]:
    """Nodes with new ids, as after another ingestion, go by the labelled passages they hold."""
    holds, places = retrieved_places(dataset, (item.node for nodes in found for item in nodes))
    if not places:
        return rankings
    labelled = {id_ for ids in dataset.relevant_docs.values() for id_ in ids}
    logger.warning(
        "%s; dataset.remap(nodes) ties the labels to the nodes of today",
        moved_note("dataset", places, len(labelled)),
    )
    named = []
    for query, ranking in zip(dataset.queries, rankings, strict=True):
        relevant, ids = set(dataset.relevant_docs[query]), dict[str, None]()
        for id_ in ranking:
            labels = [old for old in holds.get(id_, ()) if old in relevant and old not in ids]
            ids.update(dict.fromkeys(labels or [id_]))
        named.append(list(ids))
    return named


def _score(
    dataset: RetrievalDataset, rankings: Sequence[Sequence[str]], ks: Sequence[int]
) -> RetrievalScores:
    check_node_ids(rankings, dataset.corpus, "; node_key= says which other id counts")
    copies = copies_in(dataset.corpus)
    for note in copies_notes(copies):
        logger.warning("%s", note)
    longest = max(map(len, rankings), default=0)
    if 0 < longest < min(max(ks), len(dataset.corpus)):
        beyond = ", ".join(f"@{k}" for k in sorted(ks) if k > longest)
        logger.warning(
            "the retriever found at most %d nodes for a question: the figures %s are those of "
            "%d nodes; as_retriever(similarity_top_k=%d) would find more",
            longest,
            beyond,
            longest,
            max(ks),
        )
    relevant = [first_copies(dataset.relevant_docs[id_], copies) for id_ in dataset.queries]
    found = [credited(ranking, copies) for ranking in rankings]
    return score_rankings(list(dataset.queries), found, relevant, ks)
