"""Lists of candidates as numbers, ready to be learnt from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from llama_index.tuning.datasets.relevance import RelevanceDataset, RelevanceList
from llama_index.tuning.rerankers.bm25 import BM25Index
from llama_index.tuning.rerankers.codes import CodesMemory
from llama_index.tuning.rerankers.distances import most_rise
from llama_index.tuning.rerankers.features import FloatArray, candidate_features
from llama_index.tuning.rerankers.fitting import FeatureList
from llama_index.tuning.rerankers.serving import metadata_text
from llama_index.tuning.rerankers.statistics import Statistics, WordStatistics
from llama_index.tuning.rerankers.words import ENGLISH, Analyzer


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


def feature_list(item: RelevanceList, features: FloatArray | None = None) -> FeatureList:
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


def retrieval_scores(dataset: RelevanceDataset) -> list[FloatArray]:
    """Each list's scores by the retriever, the larger the better; NaN where it gave none."""
    sign = -1.0 if has_distances(dataset) else 1.0
    return [sign * _scores(item) for item in dataset.lists]


def _scores(item: RelevanceList) -> FloatArray:
    return np.array([c.retrieval_score for c in item.candidates], dtype=np.float64)
