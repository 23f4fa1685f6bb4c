"""What a re-ranker says of the passages that a retriever finds: a teacher of re-rankers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.tuning._async import own_work
from llama_index.tuning.datasets._candidates import as_found, find_nodes
from llama_index.tuning.datasets._files import PathLike
from llama_index.tuning.datasets._ranked_scores import ranked_scores
from llama_index.tuning.datasets.relevance import Candidate, RelevanceDataset, RelevanceList
from llama_index.tuning.errors import DatasetError, ReplyError
from llama_index.tuning.generate.calls import CallOptions, Calls, OnFailure
from llama_index.tuning.generate.failures import Failure
from llama_index.tuning.generate.relevance import queries_by_id
from llama_index.tuning.generate.runs import check_run, run_items, settings_hash

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
def label_by_reranker(
    queries: Sequence[str] | Mapping[str, str],
    retriever: BaseRetriever,
    teacher: BaseNodePostprocessor,
    *,
    depth: int | None = None,
    output_path: PathLike | None = None,
    num_workers: int | None = None,
    retry_limit: int = 3,
    on_failure: OnFailure = "continue",
    options: CallOptions | None = None,
    show_progress: bool = False,
) -> LabelledRelevance:
    """Let a strong re-ranker score what the app retrieves, for a fast one to learn from.

    Each query is kept as soon as the teacher answered: started again after an error or a kill, it
    asks only for those that are missing. A candidate's score is the teacher's; 0 where it left
    the candidate out; the reciprocal of the rank where it hands out no scores; and where some are
    below 0, all of the query's are raised so that none is.

    Args:
        queries: texts, or query id → text.
        retriever: what the app uses, as deployed. A `TunedRetriever` gives its candidates before
            re-ranking.
        teacher: any re-ranker of LlamaIndex, such as `LLMRerank` or `SentenceTransformerRerank`.
            Let its `top_n` be as many as there are candidates: it scores the others 0.
        depth: candidates of each query that it gets; all by default.
        output_path: where the lists are written (`save_jsonl`), with the run file beside it.
        num_workers: queries under way at once. By default 8 with a teacher that has an async
            method of its own, as those by an LLM have, else 1: a local model gains nothing from
            threads, and need not be safe in them.
        retry_limit: how often a query may fail. An LLM that returns no passage at all counts as
            failed: LlamaIndex's re-rankers take an unreadable reply for one.
        on_failure: `"continue"` keeps a failed query in `failures`; `"fail"` raises.
        options: see `CallOptions`.
        show_progress: show bars.

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
    workers = _workers(teacher) if num_workers is None else num_workers
    counts = {"num_workers": workers, "retry_limit": retry_limit}
    check_run(output_path, on_failure, **counts, depth=1 if depth is None else depth)
    items = _items(queries_by_id(queries), retriever, depth, num_workers or 1, show_progress)
    _warn_of_cut(teacher, max(len(item.nodes) for item in items))
    llm = _llm_of(teacher)

    async def ask(calls: Calls, item: _Item) -> Answer:
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

    outcomes = run_items(
        llm,
        [item for item in items if item.nodes],
        ask,
        id_of=lambda item: item.id,
        header={"task": "rerank", **_identity(teacher)},
        output_path=output_path,
        description="Asking the teacher",
        num_workers=workers,
        retry_limit=retry_limit,
        on_failure=on_failure,
        options=options,
        show_progress=show_progress,
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


@dataclass(frozen=True)
class _Item:
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
) -> list[_Item]:
    if not queries:
        raise DatasetError("there are no queries to label")
    found = find_nodes(list(queries.values()), retriever, num_workers, show_progress)
    return [
        _Item(id_, text, nodes[:depth])
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


def _identity(teacher: BaseNodePostprocessor) -> dict[str, str]:
    """What decides its scores beside its LLM: class, prompts, plain settings, how it was tuned."""
    settings = {name: value for name, value in vars(teacher).items() if name not in _NO_MATTER}
    settings["details"] = json.dumps(getattr(teacher, "details", None), default=str)
    return {"teacher": type(teacher).__name__, "settings": settings_hash(settings)}
