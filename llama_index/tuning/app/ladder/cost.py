"""What each way to order costs a query."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import QueryBundle

from llama_index.tuning._arrays import Float32
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.questions import Questions
from llama_index.tuning.rerankers.light.model import LightReranker


def milliseconds(
    search: Search,
    asked: Questions,
    vectors: Float32 | None,
    also: Mapping[str, BaseNodePostprocessor],
    questions: int = 10,
    tries: int = 3,
) -> dict[str, float]:
    """What each way to order costs a query beside the app's own search, in milliseconds.

    Of several tries the fastest counts: what else runs on the machine is no part of the app.
    """
    bundles = [
        QueryBundle(text, embedding=None if vectors is None else vectors[row].tolist())
        for row, text in enumerate(asked.texts[:questions])
    ]
    reranker = LightReranker(analyzer=search.analyzer)
    ways = {
        "retriever": search.served.retriever,
        "fusion": search.served,
        "untuned": search.served.with_reranker(reranker),
        **{name: search.served.with_reranker(each) for name, each in also.items()},
    }
    found = {}
    for name, way in ways.items():
        asks, often = (bundles, tries) if name not in also else (bundles[:2], 1)  # may cost much
        spent = [[_seconds(way, bundle) for _ in range(often)] for bundle in asks]
        found[name] = 1000 * float(np.median([min(times) for times in spent]))
    more = {name: round(max(0.0, ms - found["retriever"]), 2) for name, ms in found.items()}
    return {**more, "tuned": more["untuned"]}


def _seconds(retriever: BaseRetriever, question: QueryBundle) -> float:
    started = time.perf_counter()
    retriever.retrieve(question)
    return time.perf_counter() - started
