"""Hard negatives: documents that a search ranks high for a query and that do not answer it.

A retrieval dataset with hard negatives.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import (
    callable_or_none,
    check_counts,
    items_of,
    number,
    of_type,
    path_or_none,
    plain_arguments,
)
from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning._running import own_work, progress
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.asking.run import default_llm, run_items, run_options
from llama_index.tuning.asking.verdicts import parse_yes_no
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.candidates import check_retriever
from llama_index.tuning.errors import DatasetError, VectorError
from llama_index.tuning.generate.questions import NEGATIVE_PROMPT
from llama_index.tuning.generate.reranker_labels import (
    Backend,
    Candidates,
    check_rank_range,
    retrieved,
    searched,
)
from llama_index.tuning.text.sentences import check_threshold, same_text
from llama_index.tuning.vectors.embedder import Embedder, document_vectors
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import NodeWithScore


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
        for name in ("negatives", "counts"):
            of_type(name, getattr(self, name), Mapping, "a dictionary")
        items_of("failures", self.failures, "failures")
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
    @plain_arguments
    def with_negatives(cls, dataset: RetrievalDataset, path: PathLike) -> MinedDataset:
        """A dataset together with the negatives that `save_negatives` wrote for it."""
        found: dict[str, list[str]] = {}
        for line, row in read_json_lines(path):
            if set(row) != {"query_id", "negatives"}:
                raise DatasetError(f"{path}, line {line} must have query_id and negatives")
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


Sampling = Literal["top", "random"]

_SAME_TEXT = 0.8
"""Share of three-word runs from which on two documents count as the same text."""


@own_work
@plain_arguments
def mine_hard_negatives(
    dataset: RetrievalDataset,
    retriever: BaseRetriever | None = None,
    *,
    embed_model: BaseEmbedding | None = None,
    vectors: Any = None,
    query_vectors: Float32 | None = None,
    num_negatives: int = 5,
    rank_range: Sequence[int] = (1, 100),
    relative_margin: float | None = 0.05,
    near_duplicate: float | None = 0.95,
    sampling: Sampling = "top",
    seed: int = 0,
    llm: LLM | None = None,
    output_path: PathLike | None = None,
    node_key: Callable[[NodeWithScore], str] | None = None,
    backend: Backend = "auto",
    run: RunOptions | None = None,
) -> MinedDataset:
    """Hard negatives for each query, from the app's own retriever or from vectors.

    Left out are relevant documents, copies of them, and documents that score nearly as high as
    the best relevant one, which are often relevant but not labelled (NV-Retriever, Moreira et
    al. 2024). If a retriever's answer lacks the relevant document, everything in it scores
    higher: with a margin, such a query has no negatives.

    Args:
        dataset: queries, corpus and relevant documents.
        retriever: what the app uses; its own top k is the depth. Without it, exact search over
            vectors.
        embed_model: for vectors that are not given.
        vectors: of documents, wherever they are: an index, a vector store, an array or a path
            of one (rows in the corpus' order), a dictionary. See `document_vectors`.
        query_vectors: shape `(queries, dim)`, in the dataset's order.
        num_negatives: the most for each query.
        rank_range: first and last rank, from 1, relevant documents counted.
        relative_margin: a negative scores at most `best - margin * |best|`, where `best` is the
            query's best relevant document; `None` for no such rule.
        near_duplicate: cosine to a relevant document from which on a document is left out, if
            there are vectors; documents in the same words are in any case.
        sampling: `"top"` takes the hardest, `"random"` draws among all that qualify.
        seed: of the draw.
        llm: asked whether each negative answers the query after all; then the next one is taken.
        output_path: where the negatives are written (`save_negatives`); the checks are kept in
            a run file beside it, and none is repeated when started again.
        node_key: the corpus id of a retrieved node, if that is not its node id.
        backend: of the search over vectors: see `nearest`.
        run: see `RunOptions`; queries beyond `max_calls` get no negatives.

    Example:
        >>> import numpy as np
        >>> dataset = RetrievalDataset({"q": "Fee?"}, {"a": "5 euros", "b": "Free"}, {"q": ["a"]})
        >>> documents, query = np.eye(2, dtype=np.float32), np.array([[0.9, 0.3]], np.float32)
        >>> mine_hard_negatives(dataset, vectors=documents, query_vectors=query).negatives
        {'q': ['b']}
    """
    dataset = RetrievalDataset.coerce(dataset)
    check_counts(num_negatives=num_negatives)
    run = run_options(run)
    path_or_none("output_path", output_path)
    if llm is not None:
        default_llm(llm)
    if retriever is not None:
        check_retriever(retriever)
    if sampling not in ("top", "random"):
        raise ValueError(f"unknown sampling {sampling!r}; choose one of: top, random")
    if backend not in get_args(Backend):
        raise ValueError(
            f"unknown backend {backend!r}; choose one of: {', '.join(get_args(Backend))}"
        )
    callable_or_none("node_key", node_key)
    rules = _Rules(dataset, check_rank_range(rank_range), relative_margin, near_duplicate)
    space = _Space(dataset, embed_model, vectors, query_vectors, run.show_progress)
    if retriever is not None:
        found = retrieved(dataset, retriever, node_key, run.show_progress)
        rules.documents = space.documents() if vectors is not None else None
    else:
        rules.documents = space.documents()
        found = searched(dataset, space.queries(), rules.documents, rules.ranks[1], backend)
    pools = rules.pools(found, seed if sampling == "random" else None)
    mined = MinedDataset(dataset.queries, dataset.corpus, dataset.relevant_docs)
    if llm is None:
        for id_, pool in progress(pools.items(), run.show_progress, "Choosing", len(pools)):
            mined.negatives[id_] = list(islice(rules.distinct(id_, pool), num_negatives))
    else:
        _Checker(mined, pools, rules, num_negatives).check(llm, output_path, run)
    mined.counts = {**mined.totals(), **rules.counts}
    if output_path is not None:
        mined.save_negatives(output_path)
    return mined


class _Space:
    """Where vectors come from, computed on use."""

    def __init__(
        self,
        dataset: RetrievalDataset,
        embed_model: BaseEmbedding | None,
        vectors: Any,
        query_vectors: Float32 | None,
        show_progress: bool,
    ) -> None:
        self.dataset = dataset
        self.embed_model = embed_model
        self.vectors = vectors
        self.query_vectors = None if query_vectors is None else self._checked(query_vectors)
        self.embedder = Embedder(embed_model, show_progress=show_progress)

    def documents(self) -> Float32:
        if self.vectors is None and self.embed_model is None:
            raise ValueError("pass a retriever, or vectors, or an embed_model to make them")
        return document_vectors(self.dataset.corpus, self.vectors, self.embedder)

    def queries(self) -> Float32:
        if self.query_vectors is None:
            return self.embedder.queries(list(self.dataset.queries.values()))
        return self.query_vectors

    def _checked(self, given: Any) -> Float32:
        try:
            array = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError):
            raise VectorError(f"query_vectors must hold numbers, got {given!r:.100}") from None
        if array.ndim != 2 or len(array) != len(self.dataset):
            raise VectorError(
                f"query_vectors must have shape (queries, dim) with one row for each of the "
                f"{len(self.dataset)} queries, got {array.shape}"
            )
        return array


@dataclass
class _Rules:
    """Which candidates may be negatives, with counts of why the others may not."""

    dataset: RetrievalDataset
    ranks: tuple[int, int]
    margin: float | None
    near_duplicate: float | None
    documents: Float32 | None = None

    def __post_init__(self) -> None:
        check_threshold("near_duplicate", self.near_duplicate)
        if self.margin is not None and not number("relative_margin", self.margin, 0, 1) < 1:
            raise ValueError(f"relative_margin must be from 0 to below 1, got {self.margin}")
        names = ("within_margin", "near_duplicates", "positive_not_retrieved")
        self.counts = Counter(dict.fromkeys(names, 0))
        self._rows: Mapping[str, int] = {}

    def pools(self, found: Iterable[Candidates], seed: int | None) -> dict[str, list[str]]:
        """Query id → candidates, the best-ranked first, or shuffled if there is a seed."""
        pools = {one.query_id: list(self.pool(one)) for one in found}
        if seed is not None:
            draw = random.Random(int(seed))
            for pool in pools.values():
                draw.shuffle(pool)
        return pools

    def pool(self, found: Candidates) -> Iterator[str]:
        """Candidates by rank and margin, without the relevant ones."""
        relevant = set(self.dataset.relevant_docs[found.query_id])
        highest = self._highest(found)
        for rank, (doc, score) in enumerate(found.ranked, start=1):
            if doc in relevant or not self.ranks[0] <= rank <= self.ranks[1]:
                continue
            if highest is not None and (score is None or score > highest):
                self.counts["within_margin"] += 1
                continue
            yield doc

    def distinct(self, query_id: str, pool: Sequence[str]) -> Iterator[str]:
        """Those that are not copies of a relevant document, examined one by one on demand."""
        relevant = self.dataset.relevant_docs[query_id]
        texts = [self.dataset.corpus[doc] for doc in relevant]
        for doc in pool:
            if self._close(doc, relevant) or same_text(self.dataset.corpus[doc], texts, _SAME_TEXT):
                self.counts["near_duplicates"] += 1
            else:
                yield doc

    def _highest(self, found: Candidates) -> float | None:
        if self.margin is not None and found.positive is None:
            self.counts["positive_not_retrieved"] += 1
            return -np.inf
        return highest_score(found.positive, self.margin)

    def _close(self, doc: str, relevant: Sequence[str]) -> bool:
        if self.documents is None:
            return False
        if not self._rows:
            self._rows = {id_: row for row, id_ in enumerate(self.dataset.corpus)}
        right = self.documents[[self._rows[id_] for id_ in relevant]]
        return close_to(self.documents[self._rows[doc]], right, self.near_duplicate)


def highest_score(positive: float | None, margin: float | None) -> float | None:
    """What a negative may score beside its query's best relevant document; `None` for anything."""
    return None if margin is None or positive is None else positive - margin * abs(positive)


def close_to(vector: Float32, relevant: Float32, near_duplicate: float | None) -> bool:
    """Whether a vector's cosine to one of `relevant`, shape `(n, dim)`, reaches the threshold."""
    if near_duplicate is None:
        return False
    unit = unit_rows(np.vstack([vector[None], relevant]))
    return float((unit[1:] @ unit[0]).max()) >= near_duplicate


@dataclass(frozen=True)
class _Checker:
    """Asks an LLM about candidates, one after the other, until there are enough."""

    mined: MinedDataset
    pools: Mapping[str, list[str]]
    rules: _Rules
    enough: int

    def check(self, llm: LLM, output_path: PathLike | None, run: RunOptions) -> None:
        """Fill the negatives in, with what failed and what was asked."""
        outcomes = run_items(
            llm,
            list(self.pools),
            self._choose,
            id_of=str,
            header={"task": "negatives", "prompt": NEGATIVE_PROMPT},
            output_path=output_path,
            description="Checking negatives",
            run=run,
        )
        self.mined.negatives = {id_: outcomes.results.get(id_, []) for id_ in self.pools}
        self.mined.failures = outcomes.failures
        self.rules.counts.update(not_asked=len(outcomes.not_asked), requests=outcomes.requests)

    async def _choose(self, calls: Calls, query_id: str) -> list[str]:
        kept: list[str] = []
        for doc in self.rules.distinct(query_id, self.pools[query_id]):
            prompt = NEGATIVE_PROMPT.format(
                query=self.mined.queries[query_id], context=self.mined.corpus[doc]
            )
            if await calls.ask(Question("negative", f"{query_id}/{doc}", prompt, parse_yes_no)):
                self.rules.counts["false_negatives"] += 1
                continue
            kept.append(doc)
            if len(kept) == self.enough:
                break
        return kept
