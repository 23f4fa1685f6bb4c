"""Ranking metrics, one value for each query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    def only(self, metrics: Sequence[str]) -> RetrievalScores:
        """Some of the metrics, in this order."""
        return RetrievalScores(self.query_ids, {name: self.values[name] for name in metrics})

    def __str__(self) -> str:
        means = "  ".join(f"{name} {value:.4f}" for name, value in self.mean().items())
        return f"{means}  (n={len(self.query_ids)})"


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
    hits = np.zeros((len(query_ids), depth), dtype=bool)
    counts = np.zeros(len(query_ids), dtype=np.int64)
    for row, (ranking, answers) in enumerate(zip(rankings, relevant, strict=True)):
        wanted = set(answers)
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
    gains, ideal = np.zeros((len(query_ids), depth)), np.zeros((len(query_ids), depth))
    counts = np.zeros(len(query_ids), dtype=np.int64)
    for row, (here, elsewhere) in enumerate(zip(found, missed, strict=True)):
        every = np.concatenate([here, elsewhere])
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


def check_ks(ks: Sequence[int]) -> None:
    """Cut-offs must be whole numbers from 1 on."""
    if isinstance(ks, int):
        raise TypeError(f"ks must be a list of cut-offs, such as [{ks}], got {ks!r}")
    if not ks or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in ks):
        raise ValueError(f"ks must be whole numbers >= 1, got {list(ks)!r}")
