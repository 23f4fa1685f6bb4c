"""The gate without any signal: how often each engine's tuned component is accepted.

Labels are permuted (each question gets another one's) or drawn at random, so that there is nothing
to learn; whatever is accepted is accepted by chance. At most 5 % should be. The engines run as they
are, with their defaults, on the vectors of MiniLM; the judge looks at words alone.

    python benchmarks/gate_null.py --engines router judge --n 20 50 --runs 100
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _data import arguments, lyft_and_uber, model
from _retrievers import retriever_for
from judge_quality import judgments

from llama_index.tuning import (
    EmbeddingAdapterFinetuneEngine,
    JudgeFinetuneEngine,
    JudgmentDataset,
    LightRerankerFinetuneEngine,
    RetrievalDataset,
    RouterFinetuneEngine,
    RoutingDataset,
    TunedRetriever,
)
from llama_index.tuning.datasets.records import RelevanceList, RoutingExample
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.rerankers import LightRerankerOptions
from llama_index.tuning.routers import RouterOptions

LABELS = ("permuted", "random")


@dataclass
class Material:
    """What the engines learn from, and the vectors they look at."""

    data: Path
    embed_model: Any
    cache: Path

    def lists(self) -> tuple[RelevanceDataset, TunedRetriever]:
        """What the untuned `TunedRetriever` finds for Lyft's questions, found once."""
        return _lists(self.data, self.cache)


@cache
def _lists(data: Path, file: Path) -> tuple[RelevanceDataset, TunedRetriever]:
    train, _ = lyft_and_uber(data)
    base = retriever_for(train, model(), file, 100)
    fused = TunedRetriever(base, base.nodes)
    return RelevanceDataset.from_retriever(train, fused), fused


def router(given: Material, rng: np.random.Generator, n: int, labels: str) -> Any:
    """Questions over five sources; of choices drawn at random, each is as likely."""
    folder = given.data / ("datasource_routing" if n <= 250 else "banking77")
    data = RoutingDataset.from_jsonl(folder / "train.jsonl")
    rows = rng.permutation(len(data))[:n]
    names = list(data.choices)
    dealt = [data.examples[row].choices for row in rng.permutation(rows)]
    if labels == "random":
        dealt = [(names[k],) for k in rng.integers(0, len(names), len(rows))]
    examples = [RoutingExample(data.examples[r].query, c) for r, c in zip(rows, dealt, strict=True)]
    seed = int(rng.integers(2**31))
    return RouterFinetuneEngine(
        RoutingDataset(data.choices, examples),
        given.embed_model,
        options=RouterOptions(seed=seed),
        vector_cache=given.cache,
    ).finetune()


def judge(given: Material, rng: np.random.Generator, n: int, labels: str) -> Any:
    """Answers with contexts, by words alone; a third pass, or half."""
    data = judgments(given.data, "halueval_qa", "train")
    items = [data.judgments[row] for row in rng.permutation(len(data))[:n]]
    dealt = rng.permutation([item.passing for item in items])
    if labels == "random":
        dealt = rng.integers(0, 2, len(items)).astype(bool)
    rows = [
        {
            "query": item.query,
            "contexts": list(item.contexts or ()),
            "response": item.response,
            "passing": bool(passing),
            "source": "label",
        }
        for item, passing in zip(items, dealt, strict=True)
    ]
    return JudgeFinetuneEngine(JudgmentDataset.from_records(rows)).finetune()


def shuffled(given: Material, rng: np.random.Generator, n: int, labels: str) -> RetrievalDataset:
    """Lyft's questions, each with another one's passage, or with any passage."""
    train, _ = lyft_and_uber(given.data)
    ids = [list(train.queries)[row] for row in rng.permutation(len(train.queries))[:n]]
    passages = list(train.corpus)
    wanted = [train.relevant_docs[id_] for id_ in rng.permutation(ids)]
    if labels == "random":
        wanted = [[passages[k]] for k in rng.integers(0, len(passages), len(ids))]
    queries = {id_: train.queries[id_] for id_ in ids}
    return RetrievalDataset(queries, train.corpus, dict(zip(ids, wanted, strict=True)))


def adapter(given: Material, rng: np.random.Generator, n: int, labels: str) -> Any:
    return EmbeddingAdapterFinetuneEngine(
        shuffled(given, rng, n, labels), given.embed_model, vector_cache=given.cache
    ).finetune()


def reranker(given: Material, rng: np.random.Generator, n: int, labels: str) -> Any:
    """Lyft's questions with the fused first thirty, one of which is relevant at random, or
    another question's passage."""
    found, retriever = given.lists()
    items = [found.lists[row] for row in rng.permutation(len(found.lists))[:n]]
    dealt = [item.relevant[0] for item in items]
    dealt = [dealt[row] for row in rng.permutation(len(items))]
    if labels == "random":
        dealt = [item.candidates[rng.integers(len(item.candidates))].node_id for item in items]
    lists = [
        RelevanceList(
            item.query_id,
            item.query,
            [replace(c, score=float(c.node_id == wanted)) for c in item.candidates],
            () if any(c.node_id == wanted for c in item.candidates) else (wanted,),
        )
        for item, wanted in zip(items, dealt, strict=True)
    ]
    seed = int(rng.integers(2**31))
    return LightRerankerFinetuneEngine(
        RelevanceDataset(lists), retriever, options=LightRerankerOptions(seed=seed)
    ).finetune()


ENGINES: dict[str, Callable[..., Any]] = {
    "router": router,
    "judge": judge,
    "reranker": reranker,
    "adapter": adapter,
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--n", nargs="+", type=int, default=[20, 50, 200, 1000])
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--runs", type=int, default=100)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    given = Material(args.data, model(), args.cache)
    print(f"{'engine':<10}{'questions':>10}  {'labels':<10}{'accepted':>12}{'gain':>9}{'CPU s':>8}")
    for name in args.engines:
        for n in args.n:
            for labels in args.labels:
                began, accepted, gains = time.process_time(), 0, []
                for run in range(args.runs):
                    rng = np.random.default_rng([run, n])
                    try:
                        report = ENGINES[name](given, rng, n, labels)
                    except DatasetError:  # so few questions can have nothing to learn from
                        continue
                    accepted += report.accepted
                    gains.append(report.gains[report.primary].mean)
                done = f"{accepted} of {args.runs}"
                spent = time.process_time() - began
                mean = math.fsum(gains) / max(1, len(gains))
                print(
                    f"{name:<10}{n:>10}  {labels:<10}{done:>12}{mean:>+9.3f}{spent:>8.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
