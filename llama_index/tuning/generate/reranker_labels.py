"""What a re-ranker says of the passages that a retriever finds: a teacher of re-rankers.

What a retriever, or a search over vectors, puts before a query: candidates for negatives.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning._checks import check_counts, items_of, plain_arguments, settings_hash
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work, progress
from llama_index.tuning.asking.calls import Calls
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Failure, Outcomes
from llama_index.tuning.asking.run import run_file_of, run_items, run_options
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.candidates import as_found, find_nodes
from llama_index.tuning.datasets.checks import is_number
from llama_index.tuning.datasets.records import Candidate, RelevanceList
from llama_index.tuning.datasets.relevance import RelevanceDataset, ranked_scores
from llama_index.tuning.errors import DatasetError, MissingExtraError, ReplyError
from llama_index.tuning.generate.relevance import queries_by_id
from llama_index.tuning.vectors.search import top_k, unit_rows

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore


logger = logging.getLogger(__name__)

_AT_ONCE = 8
_NO_MATTER = ("batch_size", "device", "api_key")  # settings that decide no score

Answer = list[tuple[int, float | None]]
"""Positions of candidates with the teacher's scores, its best first."""


@dataclass(repr=False)
class LabelledRelevance(RelevanceDataset):
    """A `RelevanceDataset` by a teacher; engines take it as it is.

    Args:
        failures: queries without an answer, with the reason.
        requests: how often the teacher was asked in this run, tries included.
    """

    failures: list[Failure] = field(default_factory=list)
    requests: int = 0


@own_work
@plain_arguments
def label_by_reranker(
    queries: Sequence[str] | Mapping[str, str],
    retriever: BaseRetriever,
    teacher: BaseNodePostprocessor,
    *,
    depth: int | None = None,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> LabelledRelevance:
    """Let a strong re-ranker score what the app retrieves, for a fast one to learn from.

    Each query is kept as soon as the teacher answered: started again after an error or a kill, it
    asks only for those that are missing. A candidate's score is the teacher's; 0 if it left
    the candidate out; the reciprocal of the rank if it hands out no scores; and if some are
    below 0, all of the query's are raised so that none is.

    Args:
        queries: texts, or query id → text.
        retriever: what the app uses, as deployed. A `TunedRetriever` gives its candidates before
            re-ranking.
        teacher: any re-ranker of LlamaIndex, such as `LLMRerank` or `SentenceTransformerRerank`.
            Let its `top_n` be as many as there are candidates: it scores the others 0.
        depth: candidates of each query that it gets; all by default.
        output_path: where the lists are written (`save_jsonl`), with the run file beside it.
        run: see `RunOptions`. By default 8 queries are under way at once with a teacher that has an
            async method of its own, as those by an LLM have, else 1: a local model gains nothing
            from threads, and need not be safe in them. An LLM that returns no passage at all
            counts as failed: LlamaIndex's re-rankers take an unreadable reply for one.

    Raises:
        DatasetError: no query got an answer, or no passage of any a score above 0.
        GenerationError: no call can succeed (a wrong key), or the first failure with `"fail"`.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.tuning import LightReranker
        >>> nodes = [TextNode(id_=t, text=t) for t in ("Fees are due.", "Refunds take a week.")]
        >>> index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
        >>> found = label_by_reranker(["When is a refund?"], index.as_retriever(), LightReranker())
        >>> max(found.pairs(), key=lambda pair: pair.score).text
        'Refunds take a week.'
    """
    _check(teacher)
    given = run_options(run)
    check_counts(depth=1 if depth is None else depth)
    run_file_of(output_path)
    at_once = given.num_workers or 1
    items = _items(queries_by_id(queries), retriever, depth, at_once, given.show_progress)
    _warn_of_cut(teacher, max(len(item.nodes) for item in items))
    outcomes = answers_of(
        teacher, [item for item in items if item.nodes], output_path=output_path, run=given
    )
    failed = [item.nothing() for item in items if not item.nodes] + outcomes.failures
    place = {item.id: number for number, item in enumerate(items)}
    failures = sorted(failed, key=lambda failure: place[failure.id])
    lists = [
        item.scored(outcomes.results[item.id]) for item in items if item.id in outcomes.results
    ]
    if not lists:
        reasons = [f"query {failure.id!r}: {failure.message}" for failure in failures]
        raise DatasetError("the teacher labelled no query:", reasons)
    labelled = LabelledRelevance(lists, failures, outcomes.requests)
    if output_path is not None:
        labelled.save_jsonl(output_path)
    return labelled


def answers_of(
    teacher: BaseNodePostprocessor,
    items: Sequence[ToRank],
    *,
    output_path: PathLike | None,
    run: RunOptions,
) -> Outcomes[Answer]:
    """What a re-ranker says of each list; see `label_by_reranker`.

    Args:
        teacher: the re-ranker.
        items: with distinct ids, each with a node at least.
        output_path: whose run file keeps the answers.
        run: how it is asked.
    """
    run = run if run.num_workers else replace(run, num_workers=_workers(teacher))
    llm = _llm_of(teacher)

    async def ask(calls: Calls, item: ToRank) -> Answer:
        async def once() -> Answer:
            calls.spend()
            try:
                nodes = await calls.in_time(
                    teacher.apostprocess_nodes(item.copies(), query_str=item.query)
                )
            except ValueError as exc:  # what LLM re-rankers raise on a reply that they can't read
                raise ReplyError(str(exc) or type(exc).__name__) from exc
            return item.read(nodes, may_be_none=llm is None)

        found: Answer = await calls.finish("rerank", item.id, item.content, once, any_id=True)
        return found

    return run_items(
        llm,
        items,
        ask,
        id_of=lambda item: item.id,
        header={"task": "rerank", **reranker_identity(teacher)},
        output_path=output_path,
        description="Asking the re-ranker",
        run=run,
    )


@dataclass(frozen=True)
class ToRank:
    """A query and its candidates."""

    id: str
    query: str
    nodes: Sequence[NodeWithScore]

    @property
    def content(self) -> str:
        """What the teacher's answer depends on.

        Without ids and the retriever's scores, which may differ from one process to the next.
        """
        return json.dumps([self.query, *(as_found(item).text for item in self.nodes)])

    def copies(self) -> list[NodeWithScore]:
        """For the teacher, since LlamaIndex's re-rankers write into what they are given."""
        from llama_index.core.schema import NodeWithScore

        return [
            NodeWithScore(node=item.node.model_copy(deep=True), score=as_found(item).score)
            for item in self.nodes
        ]

    def read(self, answer: Sequence[NodeWithScore], *, may_be_none: bool) -> Answer:
        """The answer as plain data; one that says nothing is asked for again."""
        places = {item.node.node_id: place for place, item in enumerate(self.nodes)}
        found = [
            (places[item.node.node_id], None if item.score is None else float(item.score))
            for item in answer
            if item.node.node_id in places
        ]
        if not found and (answer or not may_be_none):
            raise ReplyError(f"the teacher returned none of its {len(self.nodes)} passages")
        odd = [score for _, score in found if score is not None and not math.isfinite(score)]
        if odd:
            raise ReplyError(f"the teacher gave the score {odd[0]}")
        return found

    def scored(self, answer: Answer) -> RelevanceList:
        """The candidates, in the order in which they were found, with the teacher's scores."""
        found = [as_found(item) for item in self.nodes]
        given = {candidate.node_id: candidate.score for candidate in found}
        scores = ranked_scores([(found[place].node_id, score) for place, score in answer], given)
        candidates = [
            Candidate(id_, text, scores.get(id_, 0.0), score, metadata)
            for id_, text, score, metadata in found
        ]
        return RelevanceList(self.id, self.query, candidates)

    def nothing(self) -> Failure:
        """Why there is no list."""
        error = DatasetError("the retriever found no passage with text")
        return Failure.of(self.id, "retrieve", error, 1)


def _items(
    queries: Mapping[str, str],
    retriever: BaseRetriever,
    depth: int | None,
    num_workers: int,
    show_progress: bool,
) -> list[ToRank]:
    if not queries:
        raise DatasetError("there are no queries to label")
    found = find_nodes(list(queries.values()), retriever, num_workers, show_progress)
    return [
        ToRank(id_, text, nodes[:depth])
        for (id_, text), nodes in zip(queries.items(), found, strict=True)
    ]


def _check(teacher: Any) -> None:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    if not isinstance(teacher, BaseNodePostprocessor):
        raise TypeError(
            f"teacher must be a re-ranker (a BaseNodePostprocessor), got {type(teacher).__name__}"
        )


def _warn_of_cut(teacher: BaseNodePostprocessor, longest: int) -> None:
    top_n = getattr(teacher, "top_n", None)
    if isinstance(top_n, int) and top_n < longest:
        logger.warning(
            "the teacher returns %d (top_n) of up to %d candidates, and the others will score 0 "
            "whatever they say; give it top_n=%d",
            top_n,
            longest,
            longest,
        )


def _workers(teacher: BaseNodePostprocessor) -> int:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    names = ("apostprocess_nodes", "_apostprocess_nodes")
    own = any(getattr(type(teacher), n) is not getattr(BaseNodePostprocessor, n) for n in names)
    return _AT_ONCE if own else 1


def _llm_of(teacher: BaseNodePostprocessor) -> LLM | None:
    from llama_index.core.llms import LLM

    llm = getattr(teacher, "llm", None)
    return llm if isinstance(llm, LLM) else None


def reranker_identity(teacher: BaseNodePostprocessor) -> dict[str, str]:
    """What decides its scores beside its LLM: class, prompts, plain settings, how it was tuned."""
    settings = {name: value for name, value in vars(teacher).items() if name not in _NO_MATTER}
    settings["details"] = json.dumps(getattr(teacher, "details", None), default=str)
    return {"teacher": type(teacher).__name__, "settings": settings_hash(settings)}


Backend = Literal["auto", "faiss", "exact"]

_CHUNK = 65_536


@dataclass(frozen=True)
class Candidates:
    """One query's ranking.

    Args:
        query_id: of the query.
        ranked: (document id, score), best first, relevant ones among them.
        positive: the score of its best relevant document; `None` if that was not retrieved.
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
    queries: Float32,
    documents: Float32,
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
    queries: Float32, documents: Float32, k: int, *, backend: Backend = "auto"
) -> tuple[Ints, Float32]:
    """Exact nearest documents by cosine, in chunks: faiss if it is installed, else NumPy.

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


def _faiss_nearest(queries: Float32, documents: Float32, k: int) -> tuple[Ints, Float32]:
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
    ranks = list(items_of("rank_range", rank_range, "two ranks"))
    if len(ranks) != 2 or not all(map(is_number, ranks)) or not 1 <= ranks[0] <= ranks[1]:
        raise ValueError(
            f"rank_range must be (first, last) with 1 <= first <= last, got {rank_range}"
        )
    return int(ranks[0]), int(ranks[1])
