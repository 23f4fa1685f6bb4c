"""What each way to order costs a query."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import QueryBundle

from llama_index.tuning._arrays import Float32
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.questions import Questions
from llama_index.tuning.rerankers.light.model import LightReranker

SLOW = 0.2
"""Seconds from which on a retriever may ask an LLM."""


def milliseconds(
    search: Search,
    asked: Questions,
    vectors: Float32 | None,
    also: Mapping[str, BaseNodePostprocessor],
    questions: int = 10,
    tries: int = 3,
) -> dict[str, float]:
    """What each way to order costs a query more than the app as it is, in milliseconds.

    Its embedding is not counted. The ways take turns, and of several tries the fastest counts: what
    else runs on the machine is no part of the app. A retriever that takes long may ask an LLM: it
    is timed on two questions alone, of which noise is a small part.
    """
    bundles = [
        QueryBundle(text, embedding=None if vectors is None else vectors[row].tolist())
        for row, text in enumerate(asked.texts[:questions])
    ]
    reranker = LightReranker(analyzer=search.analyzer)
    own = {
        "retriever": search.seen.retriever,
        "fusion": search.served,
        "untuned": search.served.with_reranker(reranker),
    }
    given = {name: search.served.with_reranker(each) for name, each in also.items()}
    if min(_seconds(search.seen.retriever, bundles[0]) for _ in range(2)) > SLOW:
        questions, tries = 2, 1
    found = {**_taken(own, bundles[:questions], tries), **_taken(given, bundles[:2], 1)}
    more = {name: round(max(0.0, ms - found["retriever"]), 2) for name, ms in found.items()}
    return {**more, "tuned": more["untuned"]}


def _taken(
    ways: Mapping[str, BaseRetriever], bundles: Sequence[QueryBundle], tries: int
) -> dict[str, float]:
    """What each way takes for a question, in milliseconds: they take turns, the fastest counts."""
    fastest = [
        np.min([[_seconds(way, bundle) for way in ways.values()] for _ in range(tries)], axis=0)
        for bundle in bundles
    ]
    return dict(zip(ways, (1000 * np.median(fastest, axis=0)).tolist(), strict=True))


def _seconds(retriever: BaseRetriever, question: QueryBundle) -> float:
    started = time.perf_counter()
    retriever.retrieve(question)
    return time.perf_counter() - started
