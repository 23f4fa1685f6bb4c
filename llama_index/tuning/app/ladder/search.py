"""What is found for each question: as the served retriever finds it, at the cost of a matrix.

Questions are embedded once, and searched for many times: by the app's own vectors and by those
of each adapter that had not seen them: what is stacked on it must not know them either.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import QueryBundle

from llama_index.tuning._arrays import Float32, Float64
from llama_index.tuning.app.see import WIDE, SeenApp
from llama_index.tuning.embeddings.adapter.data import SAME, likeness
from llama_index.tuning.errors import StoreError, VectorError
from llama_index.tuning.rerankers.light.features import LinearRanker, candidate_features
from llama_index.tuning.rerankers.light.fit import FeatureList
from llama_index.tuning.rerankers.scope import Scope
from llama_index.tuning.rerankers.serving import reciprocal_rank_fusion, similar_first
from llama_index.tuning.text.bm25 import search_within
from llama_index.tuning.text.statistics import CodesMemory
from llama_index.tuning.vectors.embedder import Embedder, document_vectors, known_vectors
from llama_index.tuning.vectors.identity import base_name
from llama_index.tuning.vectors.search import top_k, unit_rows

LOOKED_AT = 3
"""Nodes whose vectors are compared with those of the embedding model."""

Dense = tuple[list[str], list[float]]
"""Ids and scores, best first."""


@dataclass(frozen=True, eq=False)
class Found:
    """What one set of vectors finds for questions.

    Attributes:
        retrieved: for each question the retriever's nodes, best first.
        fused: those and BM25's, best first, as many as are re-ranked.
        lists: the fused ones as numbers.
    """

    retrieved: list[list[str]]
    fused: list[list[str]]
    lists: list[FeatureList]

    def reranked(self, row: int, scores: Float64) -> list[str]:
        """A question's nodes in the order of these scores."""
        return [self.fused[row][place] for place in np.argsort(-scores, kind="stable").tolist()]

    def ranked(self, row: int, ranker: LinearRanker) -> list[str]:
        """A question's nodes in a ranker's order."""
        return self.reranked(row, ranker.scores(self.lists[row].features))


class Search:
    """Finds nodes of an app.

    Args:
        seen: the app.
        embedder: of its embedding model; `None` if its retriever has none.
        language: whose stemmer and stop words BM25 uses.
    """

    def __init__(self, seen: SeenApp, embedder: Embedder | None, language: str) -> None:
        self.seen, self.embedder = seen, embedder
        self.served = seen.fused_retriever(language=language)
        self.index, self.analyzer = self.served.index, self.served.index.analyzer
        self._wide = seen.wide_retriever()
        self._passes = Scope(seen.retriever).passes()
        self._codes = CodesMemory(self.analyzer.codes, sys.maxsize)
        self._texts = seen.texts
        self._ids = list(seen.nodes)
        self._words: dict[str, list[str]] = {}
        self._given: dict[str, Dense] = {}
        self._documents: Float32 | None = None

    @property
    def documents(self) -> Float32:
        """The nodes' vectors, from where they are: unit rows, in the order of `seen.nodes`."""
        assert self.embedder is not None
        if self._documents is None:
            source = self.seen.index if hasattr(self.seen.index, "vector_store") else None
            stored = document_vectors(self._texts, source, self.embedder)
            self._documents = unit_rows(stored)
        return self._documents

    def told_of_vectors(self, asked: Float32) -> list[str]:
        """What to say of the index's vectors, which should be those of its embedding model.

        Args:
            asked: the questions' vectors.

        Raises:
            VectorError: they have another length.
        """
        assert self.embedder is not None
        try:
            found = known_vectors(self._ids[:LOOKED_AT], self.seen.index)
        except StoreError:  # a store that does not hand out vectors
            return []
        if not found:
            return []
        stored, name = np.stack(list(found.values())), base_name(self.embedder.model)
        if stored.shape[1] != asked.shape[1]:
            raise VectorError(
                f"app: the index has vectors of {stored.shape[1]} numbers, the embedding model "
                f"{name!r} gives {asked.shape[1]}; hand over the index with the model that it was "
                "built with"
            )
        texts = {id_: self._texts[id_] for id_ in found}
        if likeness(texts, stored, self.embedder).max() >= SAME:
            return []
        return [
            f"the index's vectors are not those that its embedding model {name!r} gives: was it "
            "built with another?"
        ]

    def find(
        self,
        texts: Sequence[str],
        vectors: Float32 | None,
        relevant: Sequence[Sequence[str]],
        documents: Float32 | None = None,
    ) -> Found:
        """What is found for questions, whose vectors may be another model's than the app's.

        Args:
            texts: the questions.
            vectors: theirs, shape `(n, dim)`; `None` if the app's retriever has none.
            relevant: ids of the nodes that answer each.
            documents: other vectors of the nodes than the index has, unit rows.
        """
        dense = self._dense(texts, vectors, documents)
        fused, lists = [], []
        for text, (ids, scores), wanted in zip(texts, dense, relevant, strict=True):
            order = reciprocal_rank_fusion([ids, self._by_words(text)], k=self.served.rrf_k)
            order = [id_ for id_ in order if id_ in self._texts][: self.served.depth]
            fused.append(order)
            known = dict(zip(ids, scores, strict=True))
            lists.append(self._numbers(text, order, known, set(wanted)))
        return Found([ids[:WIDE] for ids, _ in dense], fused, lists)

    def ordered(
        self,
        reranker: BaseNodePostprocessor,
        texts: Sequence[str],
        vectors: Float32 | None,
        most: int = 10,
    ) -> list[list[str]]:
        """What the app's retriever, BM25 and a given re-ranker find, asked as they are served."""
        way = self.served.with_reranker(reranker)
        way.top_k = most
        found = []
        for row, text in enumerate(texts):
            vector = None if vectors is None else vectors[row].tolist()
            nodes = way.retrieve(QueryBundle(text, embedding=vector))
            found.append([item.node.node_id for item in nodes])
        return found

    def _numbers(
        self, text: str, order: list[str], scores: dict[str, float], wanted: set[str]
    ) -> FeatureList:
        features = candidate_features(
            self.analyzer.query(text),
            self._codes([self._texts[id_] for id_ in order]),
            [scores.get(id_, np.nan) for id_ in order],
            self.index,
        )
        relevance = np.array([float(id_ in wanted) for id_ in order])
        return FeatureList(features, relevance, np.ones(len(wanted.difference(order))))

    def _by_words(self, text: str) -> list[str]:
        if text not in self._words:
            found = search_within(
                self.index, text, self.served.pool, self.served.docstore, self._passes
            )
            self._words[text] = [id_ for id_, _ in found]
        return self._words[text]

    def _dense(
        self, texts: Sequence[str], vectors: Float32 | None, documents: Float32 | None
    ) -> list[Dense]:
        if vectors is None:
            given = [self._as_given(text) for text in texts]
            self._check_found([id_ for ids, _ in given for id_ in ids])
            return given
        if documents is not None or self.seen.exact:
            among = self.documents if documents is None else documents
            rows, scores = top_k(vectors, among, WIDE)
            return [
                ([self._ids[row] for row in found], near)
                for found, near in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
        return [
            self._asked(QueryBundle(text, embedding=vector))
            for text, vector in zip(texts, vectors.tolist(), strict=True)
        ]

    def _check_found(self, ids: Sequence[str]) -> None:
        """Refuse a retriever that hands on other nodes than those it searches."""
        others = [id_ for id_ in ids if id_ not in self._texts]
        if 2 * len(others) > len(ids):
            raise TypeError(
                f"app: most nodes that its {type(self.seen.retriever).__name__} hands on are not "
                f"in its index, such as {others[0]!r}; hand over the index, or a retriever of it"
            )

    def _as_given(self, text: str) -> Dense:
        if text not in self._given:
            self._given[text] = self._asked(QueryBundle(text))
        return self._given[text]

    def _asked(self, query: QueryBundle) -> Dense:
        first: dict[str, float] = {}
        for item in similar_first(self._wide.retrieve(query)):
            score = np.nan if item.score is None else float(item.score)
            first.setdefault(item.node.node_id, score)
        return list(first), list(first.values())
