"""A retrieval dataset with hard negatives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.failures import Failure


@dataclass(repr=False)
class MinedDataset(RetrievalDataset):
    """A `RetrievalDataset` with, for each query, documents that look right and are not.

    Args:
        negatives: query id → document ids, the hardest first; a query may have none.
        failures: LLM checks that failed; the documents concerned were left out.
        counts: what was found, and why candidates were left out.

    Example:
        >>> mined = MinedDataset(
        ...     {"q": "Fee?"}, {"a": "5 euros.", "b": "Free."}, {"q": ["a"]}, negatives={"q": ["b"]}
        ... )
        >>> list(mined.triplets())
        [('Fee?', '5 euros.', 'Free.')]
    """

    negatives: dict[str, list[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        faults = [
            f"negatives of {id_!r}: {fault}"
            for id_, docs in self.negatives.items()
            for fault in self._faults(id_, docs)
        ]
        if faults:
            raise DatasetError("the negatives have faults:", faults)

    def triplets(self) -> Iterator[tuple[str, str, str]]:
        """(query, positive, negative) texts: each positive with each negative of its query."""
        for id_, docs in self.negatives.items():
            for positive in self.relevant_docs[id_]:
                for negative in docs:
                    yield self.queries[id_], self.corpus[positive], self.corpus[negative]

    def labelled_pairs(self) -> Iterator[tuple[str, str, int]]:
        """(query, text, 1 or 0): what a re-ranker learns from."""
        for id_, query in self.queries.items():
            for doc in self.relevant_docs[id_]:
                yield query, self.corpus[doc], 1
            for doc in self.negatives.get(id_, []):
                yield query, self.corpus[doc], 0

    def totals(self) -> dict[str, int]:
        """Queries, negatives, and queries that have none."""
        return {
            "queries": len(self),
            "negatives": sum(map(len, self.negatives.values())),
            "queries_without": sum(not self.negatives.get(id_) for id_ in self.queries),
        }

    def save_negatives(self, path: PathLike) -> None:
        """`{"query_id": …, "negatives": […]}` as JSON Lines; the rest is saved by `save_json`."""
        rows = (
            json.dumps({"query_id": id_, "negatives": docs}, ensure_ascii=False)
            for id_, docs in self.negatives.items()
        )
        write_text_atomic(path, "".join(f"{row}\n" for row in rows))

    @classmethod
    def with_negatives(cls, dataset: RetrievalDataset, path: PathLike) -> MinedDataset:
        """A dataset together with the negatives that `save_negatives` wrote for it."""
        found: dict[str, list[str]] = {}
        for number, row in read_json_lines(path):
            if set(row) != {"query_id", "negatives"}:
                raise DatasetError(f"{path}, line {number} must have query_id and negatives")
            found[row["query_id"]] = row["negatives"]
        return cls(dataset.queries, dataset.corpus, dataset.relevant_docs, negatives=found)

    def _faults(self, query_id: str, docs: list[str]) -> Iterator[str]:
        if query_id not in self.queries:
            yield "no such query"
            return
        for doc in docs:
            if doc not in self.corpus:
                yield f"document {doc!r} is not in the corpus"
            elif doc in self.relevant_docs[query_id]:
                yield f"document {doc!r} is relevant to it"
