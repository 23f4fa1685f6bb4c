"""What an engine learns from: checked before any work, then as lists of candidates, then split.

Lists of candidates as numbers, ready to be learnt from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.datasets.checks import check_held_out
from llama_index.tuning.datasets.moved import over_nodes
from llama_index.tuning.datasets.records import RelevanceList
from llama_index.tuning.datasets.relevance import RelevanceDataset, found_lists
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.datasets.tuned_parts import base_notes, finder_notes, walk
from llama_index.tuning.errors import DatasetError, StoreError
from llama_index.tuning.rerankers.light.features import candidate_features
from llama_index.tuning.rerankers.light.fit import FeatureList
from llama_index.tuning.rerankers.scope import Scope
from llama_index.tuning.rerankers.serving import metadata_text, most_rise
from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.text.passages import copies_in, copies_notes
from llama_index.tuning.text.statistics import CodesMemory, Statistics, WordStatistics
from llama_index.tuning.text.words import ENGLISH, Analyzer, normalise
from llama_index.tuning.vectors.indexed import index_node_ids, own_nodes
from llama_index.tuning.vectors.learned import Learned, question_codes

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import BaseNode


Given = RelevanceDataset | RetrievalDataset


def checked_data(
    dataset: Any, val_dataset: Any, retriever: BaseRetriever | None
) -> tuple[tuple[Given, Given | None], list[str]]:
    """Both datasets in a class of this package, before the retriever is asked anything.

    Labels with ids that the retriever's indices do not have are found there by their texts; the
    notes say how many.

    Raises:
        TypeError: one is none of the kinds that engines take.
        ValueError: one needs a retriever, and there is none.
        DatasetError: one is faulty, they share queries, or labels are neither there by id nor by
            text.
    """
    train = _checked("dataset", dataset, retriever)
    if val_dataset is None:
        train, notes = _of_today(train, retriever, "dataset")
        return (train, None), notes
    val = _checked("val_dataset", val_dataset, retriever)
    check_held_out(_query_texts(train), _query_texts(val))
    train, notes = _of_today(train, retriever, "dataset")
    val, more = _of_today(val, retriever, "val_dataset")
    return (train, val), notes + more


def _of_today(data: Given, retriever: Any, name: str) -> tuple[Given, list[str]]:
    if isinstance(data, RelevanceDataset) or (holders := _holders(retriever)) is None:
        return data, []
    return over_nodes(data, holders, lambda ids: _fetched(holders, ids), name)


Fetch = Callable[[Sequence[str]], Sequence["BaseNode"]]


def _holders(retriever: Any) -> Mapping[str, Fetch] | None:
    """Node id → what gives the node, of all that may be found; `None` if that is not told."""
    found: dict[str, Fetch] = {}
    try:
        allowed = set(Scope(retriever).node_ids())
        for part in walk(retriever):
            words, index = word_index(part), getattr(part, "_index", None)
            if words is not None:  # a fusion finds nodes that its retriever's index may lack
                fetch: Fetch = getattr(part, "docstore").get_nodes  # noqa: B009
                found |= dict.fromkeys(words.ids, fetch)
            elif index is not None:
                own = allowed.intersection(index_node_ids(index))
                found |= dict.fromkeys(own, partial(own_nodes, index))
    except (StoreError, ValueError):  # retrieved nodes alone are looked at then
        return None
    return found or None


def _fetched(holders: Mapping[str, Fetch], ids: Sequence[str]) -> list[BaseNode]:
    of: dict[int, tuple[Fetch, list[str]]] = {}
    for id_ in ids:
        of.setdefault(id(holders[id_]), (holders[id_], []))[1].append(id_)
    return [node for fetch, own in of.values() for node in fetch(own)]


def candidate_lists(
    data: Given,
    retriever: BaseRetriever | None,
    *,
    num_workers: int = 1,
    show_progress: bool = False,
) -> tuple[RelevanceDataset, list[str]]:
    """The lists as they are, or what the retriever finds for the queries; and notes on these.

    Within a list candidates with the same text and metadata are as relevant as the most relevant
    of them.
    """
    if isinstance(data, RelevanceDataset):
        return _copies_alike(data), []
    assert retriever is not None  # by checked_data
    return found_lists(data, retriever, num_workers, show_progress)


def _copies_alike(data: RelevanceDataset) -> RelevanceDataset:
    lists = []
    for item in data.lists:
        texts = [
            (" ".join(c.text.split()), repr(sorted(c.metadata.items()))) for c in item.candidates
        ]
        highest: dict[tuple[str, str], float] = {}
        for text, candidate in zip(texts, item.candidates, strict=True):
            highest[text] = max(candidate.score, highest.get(text, 0.0))
        raised = [
            replace(candidate, score=highest[text])
            for text, candidate in zip(texts, item.candidates, strict=True)
        ]
        lists.append(replace(item, candidates=raised) if len(highest) < len(texts) else item)
    same = all(new is old for new, old in zip(lists, data.lists, strict=True))
    return data if same else RelevanceDataset(lists)


def split_lists(
    dataset: RelevanceDataset, share: float, seed: int
) -> tuple[RelevanceDataset, RelevanceDataset]:
    """Two parts without a shared query text or relevant node; `share` goes to the second."""
    groups = separable_groups(dataset)
    np.random.default_rng(seed).shuffle(groups)
    held: set[int] = set()
    for group in groups[:-1]:
        if len(held) >= share * len(dataset):
            break
        held |= set(group)
    ids = [item.query_id for item in dataset.lists]
    rest = [id_ for row, id_ in enumerate(ids) if row not in held]
    return dataset.subset(rest), dataset.subset([ids[row] for row in sorted(held)])


def separable_groups(dataset: RelevanceDataset) -> list[list[int]]:
    """The dataset's groups; of queries that all share nodes, those of equal texts.

    Raises:
        DatasetError: nothing is left to measure on.
    """
    groups = dataset.groups()
    if len(groups) < 2:
        same: dict[str, list[int]] = {}
        for row, item in enumerate(dataset.lists):
            same.setdefault(normalise(item.query), []).append(row)
        groups = list(same.values())
    if len(groups) < 2:
        raise DatasetError(
            f"all {len(dataset)} queries hang together through shared texts; add other queries, so "
            "that some can be held out"
        )
    return groups


def tied_notes(dataset: RelevanceDataset) -> list[str]:
    """What a report says where queries could be kept apart by their texts alone."""
    if len(dataset.groups()) > 1:
        return []
    return [
        "all queries hang together through shared relevant nodes: folds are by query, so a "
        "held-out query's nodes may have been learnt from"
    ]


def learned_lists(dataset: RelevanceDataset) -> str:
    """The questions of lists that were learnt from, as a component keeps them."""
    return Learned("", question_codes(item.query for item in dataset.lists)).to_hex()


def data_notes(retriever: Any, given: Given, dataset: RelevanceDataset, base: Any) -> list[str]:
    """What a report says of its data: copies, and parts of the app that have learnt its questions.

    Args:
        retriever: that found the candidates.
        given: the data that was handed in.
        dataset: what was measured on.
        base: the line that the tuned re-ranker is compared with.
    """
    texts = [item.query for item in dataset.lists]
    notes = finder_notes(retriever, texts)
    if isinstance(given, RetrievalDataset):
        notes += copies_notes(copies_in(given.corpus))
    return [*notes, *base_notes(getattr(base, "reranker", None), texts)]


def _checked(name: str, data: Any, retriever: BaseRetriever | None) -> Given:
    if isinstance(data, (RelevanceDataset, list, tuple)):
        return RelevanceDataset.coerce(data)
    if not all(hasattr(data, part) for part in ("queries", "corpus", "relevant_docs")):
        raise TypeError(
            f"{name} must be a RelevanceDataset, a RetrievalDataset (with a retriever) or "
            f"a list of samples with query, context and score; got {type(data).__name__}"
        )
    if retriever is None:
        raise ValueError(
            f"{name} is a RetrievalDataset: pass retriever=, whose candidates are re-ranked"
        )
    return RetrievalDataset.coerce(data)


def _query_texts(data: Given) -> dict[str, str]:
    if isinstance(data, RetrievalDataset):
        return data.queries
    return {item.query_id: item.query for item in data.lists}


class FeatureMaker:
    """Turns a dataset's lists into features; each text is split into words once.

    Args:
        analyzer: splits texts into words.
        statistics: how common words are.
        metadata_keys: metadata to look at.
    """

    def __init__(
        self, analyzer: Analyzer, statistics: Statistics, metadata_keys: Sequence[str] = ()
    ) -> None:
        self.analyzer = analyzer
        self.statistics = statistics
        self.metadata_keys = list(metadata_keys)
        self._codes = CodesMemory(analyzer.codes, sys.maxsize)

    def lists(self, dataset: RelevanceDataset, depth: int | None = None) -> list[FeatureList]:
        """One for each query, of its first `depth` candidates."""
        cut = dataset if depth is None else dataset.top(depth)
        return [
            feature_list(
                item,
                candidate_features(
                    self.analyzer.query(item.query),
                    self._codes([c.text for c in item.candidates]),
                    scores[: len(item.candidates)],
                    self.statistics,
                    [
                        self._codes([metadata_text(c.metadata.get(key)) for c in item.candidates])
                        for key in self.metadata_keys
                    ],
                ),
            )
            for item, scores in zip(cut.lists, retrieval_scores(dataset), strict=True)
        ]


def feature_list(item: RelevanceList, features: Float64 | None = None) -> FeatureList:
    """A query's candidates as numbers; without features to measure the order of other scores."""
    return FeatureList(
        np.zeros((len(item.candidates), 0)) if features is None else features,
        np.array([c.score for c in item.candidates], dtype=np.float64),
        np.array([*item.missed.values()], dtype=np.float64),
    )


def word_index(retriever: Any) -> BM25Index | None:
    """The retriever's own index of words, where it fuses."""
    index = getattr(retriever, "index", None)
    return index if isinstance(index, BM25Index) else None


def analyzer_for(
    retriever: Any, language: str, stop_words: Sequence[str] | None = None
) -> Analyzer:
    """What splits words: the retriever's own, where it has an index of words, else that asked for.

    Raises:
        ValueError: the retriever's differs from another language than the default.
    """
    wanted = Analyzer(language, stop_words=stop_words)
    index = word_index(retriever)
    if index is None:
        return wanted
    theirs = index.analyzer
    if (language, stop_words) != (ENGLISH, None) and wanted.to_dict() != theirs.to_dict():
        raise ValueError(
            f"options ask for words as {wanted.to_dict()}, the retriever has an index with "
            f"{theirs.to_dict()}; leave language and stop_words out to use the retriever's"
        )
    return theirs


def counted_words(dataset: Any, candidates: RelevanceDataset, analyzer: Analyzer) -> WordStatistics:
    """How common words are in a dataset's corpus, or else in the texts that were found."""
    corpus = getattr(dataset, "corpus", None)
    texts = corpus.values() if corpus else {pair.text for pair in candidates.pairs()}
    return WordStatistics.of(analyzer.codes(list(texts)))


def deployed_statistics(retriever: Any, counted: WordStatistics) -> Statistics:
    """What candidates are served with: the retriever's own index, or else what was counted."""
    index = word_index(retriever)
    return counted if index is None else index


def has_distances(dataset: RelevanceDataset) -> bool:
    """Whether the retriever's scores are distances: most lists rise, from the best on."""
    return most_rise([_scores(item) for item in dataset.lists])


def retrieval_scores(dataset: RelevanceDataset) -> list[Float64]:
    """Each list's scores by the retriever, the larger the better; NaN where it gave none."""
    sign = -1.0 if has_distances(dataset) else 1.0
    return [sign * _scores(item) for item in dataset.lists]


def _scores(item: RelevanceList) -> Float64:
    return np.array([c.retrieval_score for c in item.candidates], dtype=np.float64)
