"""What is found for each question: as the served retriever finds it, at the cost of a matrix.

Questions are embedded once, and searched for many times: by the app's own vectors and by those
of each adapter that had not seen them: what is stacked on it must not know them either.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import QueryBundle

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.app.see import WIDE, SeenApp
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.maps import VectorMap
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.rerankers.light.features import LinearRanker, candidate_features
from llama_index.tuning.rerankers.light.fit import FeatureList
from llama_index.tuning.rerankers.retriever.retriever import reciprocal_rank_fusion
from llama_index.tuning.rerankers.scope import Scope
from llama_index.tuning.rerankers.serving import similar_first
from llama_index.tuning.text.bm25 import search_within
from llama_index.tuning.text.statistics import CodesMemory
from llama_index.tuning.vectors.embedder import Embedder, document_vectors
from llama_index.tuning.vectors.search import top_k, unit_rows

LEAST = 30
"""Questions from which on an adapter is tried."""


Dense = tuple[list[str], list[float]]
State = dict[str, Any]
"""Tensors of torch, by name."""


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

    def find(
        self,
        texts: Sequence[str],
        vectors: Float32 | None,
        relevant: Sequence[Sequence[str]],
    ) -> Found:
        """What is found for questions, whose vectors may be another model's than the app's.

        Args:
            texts: the questions.
            vectors: theirs, shape `(n, dim)`; `None` if the app's retriever has none.
            relevant: ids of the nodes that answer each.
        """
        dense = self._dense(texts, vectors)
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

    def _dense(self, texts: Sequence[str], vectors: Float32 | None) -> list[Dense]:
        if vectors is None:
            return [self._as_given(text) for text in texts]
        if self.seen.exact:
            rows, scores = top_k(vectors, self.documents, WIDE)
            return [
                ([self._ids[row] for row in found], near)
                for found, near in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
        return [
            self._asked(QueryBundle(text, embedding=vector))
            for text, vector in zip(texts, vectors.tolist(), strict=True)
        ]

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


@dataclass(frozen=True, eq=False)
class LearntAdapter:
    """An adapter, and its questions as adapters that had not seen them map them.

    Attributes:
        map: of questions.
        queries: unit vectors, in the order of the questions it was learnt from.
    """

    map: VectorMap
    queries: Float32


class OutOfTime(Exception):  # noqa: N818 - ends what is learnt, never seen by callers
    """There is no time to learn more."""


class Adapters:
    """Learns adapters from parts of the questions; each fold is kept in a folder, and learnt once.

    Args:
        queries: vectors of all questions, shape `(n, dim)`.
        positives: rows of the documents that answer each.
        documents: unit vectors, shape `(N, dim)`.
        sentences: pairs that teach beside the questions.
        folder: where finished ones are kept; `None` keeps nothing.
        seed: of the run.
    """

    def __init__(
        self,
        queries: Float32,
        positives: Sequence[Ints],
        documents: Float32,
        sentences: Pairs | None,
        folder: Path | None,
        seed: int,
    ) -> None:
        self.pairs = Pairs(unit_rows(queries), positives)
        self.documents, self.sentences, self.folder = documents, sentences, folder
        self.options = AdapterOptions(seed=seed)

    def learn(
        self, rows: Ints, fold: Ints, watch: Callable[[int, int], None] | None = None
    ) -> LearntAdapter:
        """The adapter of some of the questions, and those as the folds' adapters map them.

        Args:
            rows: of the questions.
            fold: of each of them.
            watch: called with the number of finished folds and of all, the first time with 0.
        """
        from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
        from llama_index.tuning.embeddings.adapter.fit import make_adapter
        from llama_index.tuning.embeddings.adapter.modules import map_of_module

        pairs, dim = self.pairs.take(rows), self.documents.shape[1]
        folds = len(np.unique(fold))
        options = replace(self.options, folds=folds)
        name = self._name(pairs, fold)
        finished = self._read(name, folds)
        done = len(finished)

        def keep(number: int, state: State, steps: int) -> None:
            nonlocal done
            done += 1
            self._write(f"{name}-{number}", state, steps)
            if watch is not None:
                watch(done, folds)

        if watch is not None:
            watch(done, folds)
        found = cross_fit(
            lambda: make_adapter(dim, options),
            pairs,
            self.documents,
            options,
            groups=fold.tolist(),
            unlabelled=self.sentences,
            finished=finished,
            on_fold=keep,
        )
        return LearntAdapter(map_of_module(found.adapter, dim=dim), unit_rows(found.queries))

    def _name(self, pairs: Pairs, fold: Ints) -> str:
        """A hash of all that decides the weights."""
        digest = hashlib.sha256(json.dumps(asdict(self.options), sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.documents).tobytes())
        digest.update(fold.tobytes())
        for part in (pairs, self.sentences):
            if part is not None:
                digest.update(np.ascontiguousarray(part.vectors).tobytes())
                digest.update(np.concatenate(list(part.positives)).tobytes())
                digest.update(str([len(rows) for rows in part.positives]).encode())
        return f"adapter-{digest.hexdigest()[:16]}"

    def _write(self, name: str, state: State, steps: int) -> None:
        from safetensors.torch import save_file

        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{name}.new"
        arrays = {key: value.contiguous() for key, value in state.items()}
        save_file(arrays, draft, {"steps": str(steps)})
        os.replace(draft, self.folder / f"{name}.safetensors")

    def _read(self, name: str, folds: int) -> dict[int, tuple[State, int]]:
        """Finished folds of an earlier run."""
        from safetensors import safe_open

        found: dict[int, tuple[State, int]] = {}
        for number in range(folds):
            file = None if self.folder is None else self.folder / f"{name}-{number}.safetensors"
            if file is None or not file.exists():
                continue
            with safe_open(file, framework="pt") as saved:
                state = {key: saved.get_tensor(key) for key in saved.keys()}  # noqa: SIM118
                found[number] = state, int(saved.metadata()["steps"])
        return found
