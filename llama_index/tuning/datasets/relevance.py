"""Queries with the texts that were found for them, and how relevant each one is.

A re-ranker's answer as relevance: what the recorder saw, and what a teacher is asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import items_of, plain_arguments
from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning.datasets.candidates import as_found, find_nodes
from llama_index.tuning.datasets.checks import check_node_ids, list_faults, listed_records
from llama_index.tuning.datasets.folds import tied_groups
from llama_index.tuning.datasets.formats.relevance import (
    from_feedback,
    from_labels,
    from_samples,
    list_of,
)
from llama_index.tuning.datasets.moved import moved_note, retrieved_places
from llama_index.tuning.datasets.records import Candidate, RelevanceList, RelevancePair
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.passages import copies_in, first_copies, with_copies
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever

logger = logging.getLogger(__name__)


@dataclass(repr=False)
class RelevanceDataset:
    """What a re-ranker learns from: for each query a list of candidates with their relevance.

    Lists come from the app's own retriever, from labels, from users' feedback or from the old
    package's samples.

    Args:
        lists: one list for each query.

    Raises:
        DatasetError: naming every fault with the ids concerned.

    Example:
        >>> dataset = RelevanceDataset.from_labels(
        ...     queries={"q1": "reset password"},
        ...     corpus={"d1": "Click 'Forgot password'.", "d2": "Fees."},
        ...     labels={"q1": {"d1": 1, "d2": 0}},
        ... )
        >>> dataset.pairs()[0].score
        1.0
    """

    lists: list[RelevanceList]

    def __post_init__(self) -> None:
        self.lists = listed_records("lists", self.lists, RelevanceList)
        faults = list_faults(self.lists)
        if faults:
            raise DatasetError("the relevance dataset has faults:", faults)

    def __repr__(self) -> str:
        candidates = sum(len(item.candidates) for item in self.lists)
        return f"{type(self).__name__}({len(self)} queries, {candidates} candidates)"

    def _repr_html_(self) -> str:
        from llama_index.tuning.pages.dataset import dataset_html

        def row(item: RelevanceList) -> tuple[object, ...]:
            best = max(item.candidates, key=lambda c: c.score, default=None)
            return item.query, best and best.text, len(item.candidates)

        rows = map(row, self.lists)
        return dataset_html(self, ("query", "best candidate", "candidates"), rows)

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.lists)

    @property
    def highest_grade(self) -> float:
        """The highest grade of any candidate or missed node."""
        return max((grade for item in self.lists for grade in item.grades.values()), default=0.0)

    def pairs(self) -> list[RelevancePair]:
        """Every candidate of every query, one by one."""
        return [
            RelevancePair(item.query, candidate.text, candidate.score, candidate.node_id)
            for item in self.lists
            for candidate in item.candidates
        ]

    def trainable(self) -> list[RelevanceList]:
        """The lists with something to learn: two candidates of different relevance."""
        return [item for item in self.lists if len({c.score for c in item.candidates}) > 1]

    def top(self, depth: int) -> RelevanceDataset:
        """Each list's first `depth` candidates."""
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth must be a whole number >= 1, got {depth!r}")
        return _unchecked([item.top(depth) for item in self.lists])

    def subset(self, query_ids: Iterable[str]) -> RelevanceDataset:
        """The lists of these queries."""
        by_id = {item.query_id: item for item in self.lists}
        ids = list(items_of("query_ids", query_ids, "ids"))
        unknown = [f"unknown query id {id_!r}" for id_ in ids if id_ not in by_id]
        if unknown:
            raise DatasetError("cannot take a subset:", unknown)
        return _unchecked([by_id[id_] for id_ in ids])

    def groups(self) -> list[list[int]]:
        """Positions of lists that must stay together: the same text or a shared relevant node.

        Where relevance is graded, that is a node of the highest grade in both lists: a teacher
        finds every passage somewhat relevant, and all lists would hang together. A node that is
        relevant to more than a tenth of the queries (at least ten) ties nothing together.
        """
        holders: dict[tuple[str, str], list[int]] = defaultdict(list)
        for i, item in enumerate(self.lists):
            holders["text", normalise(item.query)].append(i)
            grades = item.grades
            highest = max(grades.values(), default=0.0)
            for node_id, grade in grades.items():
                if grade == highest:
                    holders["node", node_id].append(i)
        common = max(10, len(self.lists) // 10)
        ties = [
            members
            for (kind, _), members in holders.items()
            if kind == "text" or len(members) <= common
        ]
        return tied_groups(range(len(self.lists)), ties)

    def fingerprint(self) -> str:
        """A short hash of the content, written into reports and artifacts."""
        digest = hashlib.sha256()
        for item in sorted(self.to_rows(), key=lambda row: str(row["query_id"])):
            digest.update(
                json.dumps(item, ensure_ascii=False, sort_keys=True).encode(errors="surrogatepass")
            )
        return digest.hexdigest()[:16]

    def to_rows(self) -> Iterator[dict[str, Any]]:
        """One plain object for each query."""
        for item in self.lists:
            candidates = [
                {
                    "node_id": c.node_id,
                    "text": c.text,
                    "score": c.score,
                    **({} if c.retrieval_score is None else {"retrieval_score": c.retrieval_score}),
                    **({"metadata": dict(c.metadata)} if c.metadata else {}),
                }
                for c in item.candidates
            ]
            row: dict[str, Any] = {
                "query_id": item.query_id,
                "query": item.query,
                "candidates": candidates,
            }
            if item.missed:
                graded = any(grade != 1 for grade in item.missed.values())
                row["missed"] = dict(item.missed) if graded else list(item.missed)
            yield row

    def save_jsonl(self, path: PathLike) -> None:
        """Write one line for each query, atomically."""
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in self.to_rows())
        write_text_atomic(path, "".join(f"{line}\n" for line in lines))

    @classmethod
    @plain_arguments
    def from_jsonl(cls, path: PathLike) -> RelevanceDataset:
        """Load what `save_jsonl` wrote."""
        return cls([list_of(row, f"{path}, line {n}") for n, row in read_json_lines(path)])

    @classmethod
    @plain_arguments
    def from_retriever(
        cls,
        dataset: RetrievalDataset,
        retriever: BaseRetriever,
        *,
        depth: int | None = None,
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> RelevanceDataset:
        """What the app's own retriever finds for a dataset's queries.

        Documents with the text of a relevant one are as relevant. Nodes that come under ids which
        the dataset does not know, as after another ingestion, are known by their texts, and the
        log says so.

        Args:
            dataset: queries and their relevant documents, by node id.
            retriever: what the app uses, at the depth at which it is deployed. A
                `TunedRetriever` gives its candidates before re-ranking.
            depth: keep so many of each list; all by default.
            num_workers: queries under way at once, through the retriever's async method.
            show_progress: show a bar.
        """
        whole, notes = found_lists(dataset, retriever, num_workers, show_progress)
        for note in notes:
            logger.warning("%s", note)
        return whole if depth is None else whole.top(depth)

    @classmethod
    @plain_arguments
    def from_labels(
        cls,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        labels: Mapping[str, Mapping[str, float]],
    ) -> RelevanceDataset:
        """From a person's or an LLM's labels.

        Args:
            queries: query id → text.
            corpus: node id → text.
            labels: query id → node id → how relevant, from 0. The order is kept as the
                candidates' order.
        """
        return cls([list_of(row, "labels") for row in from_labels(queries, corpus, labels)])

    @classmethod
    @plain_arguments
    def from_feedback(
        cls, records: Iterable[Mapping[str, Any]], *, corpus: Mapping[str, str] | None = None
    ) -> RelevanceDataset:
        """From what users of the app did, as plain records.

        Args:
            records: one for each answered query: `query`; `nodes`, a list of objects with
                `node_id`, `text` (unless in `corpus`) and, where known, `score` (the
                retriever's); and `relevant`, the ids that helped (clicked, cited, voted up).
                Optional `irrelevant`: ids that did not; then nodes in neither list are left
                out. Records without a `relevant` node are left out.
            corpus: node id → text, for records that hold ids only.
        """
        return cls([list_of(row, "records") for row in from_feedback(records, corpus or {})])

    @classmethod
    @plain_arguments
    def from_samples(cls, samples: Iterable[Any]) -> RelevanceDataset:
        """From the old package's `CrossEncoderFinetuningDatasetSample`s.

        Args:
            samples: objects or dictionaries with `query`, `context` and `score`. Contexts of
                one query make one list.
        """
        return cls([list_of(row, "samples") for row in from_samples(samples)])

    @classmethod
    def coerce(cls, data: Any) -> RelevanceDataset:
        """Take this class, or a list of the old package's samples."""
        if isinstance(data, cls):
            return data
        if isinstance(data, (list, tuple)):
            return cls.from_samples(data)
        raise TypeError(
            "dataset must be a RelevanceDataset, a RetrievalDataset (with a retriever) or a list "
            f"of samples with query, context and score; got {type(data).__name__}"
        )


def found_lists(
    dataset: RetrievalDataset, retriever: BaseRetriever, num_workers: int, show_progress: bool
) -> tuple[RelevanceDataset, list[str]]:
    """What `RelevanceDataset.from_retriever` gives, and what is to be said of moved labels."""
    dataset = RetrievalDataset.coerce(dataset)
    found = find_nodes(list(dataset.queries.values()), retriever, num_workers, show_progress)
    holds, places = retrieved_places(dataset, (item.node for nodes in found for item in nodes))
    if not any(found):
        raise DatasetError(f"the retriever found nothing for any of {len(found)} queries")
    if not places:
        check_node_ids([[item.node.node_id for item in nodes] for nodes in found], dataset.corpus)
    lists = []
    copies = copies_in(dataset.corpus)
    for (query_id, query), nodes in zip(dataset.queries.items(), found, strict=True):
        wanted = first_copies(dataset.relevant_docs[query_id], copies)
        relevant = set(with_copies(wanted, copies))
        candidates, shown = [], set()
        for id_, text, score, metadata in map(as_found, nodes):
            known = holds.get(id_, [id_])
            right = float(not relevant.isdisjoint(known))
            candidates.append(Candidate(id_, text, right, score, metadata))
            shown.update(known)
        missed = {id_: 1.0 for id_ in wanted if shown.isdisjoint(with_copies([id_], copies))}
        lists.append(RelevanceList(query_id, query, candidates, missed))
    labelled = {id_ for ids in dataset.relevant_docs.values() for id_ in ids}
    notes = [moved_note("dataset", places, len(labelled))] if places else []
    return RelevanceDataset(lists), notes


def _unchecked(lists: list[RelevanceList]) -> RelevanceDataset:
    # Parts of a dataset that was validated already.
    dataset = object.__new__(RelevanceDataset)
    dataset.lists = lists
    return dataset


def ranked_scores(
    ranked: Iterable[tuple[str, float | None]], given: Mapping[str, float | None]
) -> dict[str, float]:
    """How relevant a re-ranker finds each node that it returned; one that it left out is at 0.

    A re-ranker that hands out no scores gives the reciprocal of the rank; one with scores below
    0 has them all raised, so that none is.

    Args:
        ranked: ids with their scores, best first; where one comes twice the first counts.
        given: the scores that they came with. A re-ranker that leaves all of them as they were,
            such as `RankGPTRerank`, handed out none.
    """
    scores: dict[str, float | None] = {}
    for id_, score in ranked:
        scores.setdefault(id_, score)
    own = {id_: score for id_, score in scores.items() if score is not None}
    untouched = all(id_ in given and given[id_] == score for id_, score in own.items())
    if untouched or len(own) < len(scores):
        return {id_: 1 / rank for rank, id_ in enumerate(scores, start=1)}
    lowest = min([0.0, *own.values()])
    return {id_: score - lowest for id_, score in own.items()}
