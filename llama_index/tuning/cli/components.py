"""`adapter`, `embeddings`, `reranker` and `router`: tune by the table, measure, and ask."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from llama_index.tuning.cli import engines, models, tune
from llama_index.tuning.cli.common import (
    CACHE,
    CORPUS,
    DEPTH,
    JSON,
    LABELS,
    MODEL,
    RETRIEVAL_DATA,
    ROUTING_DATA,
    TEST_SPLIT,
    WORKERS,
    console,
    print_json,
    print_scores,
)
from llama_index.tuning.cli.models import exact_retriever
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.routing import RoutingDataset

adapter_app, embeddings_app, reranker_app, router_app = (
    typer.Typer(no_args_is_help=True, rich_markup_mode=None) for _ in range(4)
)
for group, row in (
    (adapter_app, engines.ADAPTER),
    (embeddings_app, engines.FULL),
    (embeddings_app, engines.QUERY_ENCODER),
    (embeddings_app, engines.DRIFT),
    (reranker_app, engines.RERANKER),
    (reranker_app, engines.CROSS_ENCODER),
    (router_app, engines.ROUTER),
):
    tune.add(group, row)

_ROUTER = typer.Option(..., help="Folder of a tuned router.", exists=True)


@adapter_app.command("evaluate")
def evaluate_adapter(
    data: Path = RETRIEVAL_DATA,
    adapter: Path | None = typer.Option(None, help="Folder of a tuned adapter.", exists=True),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TEST_SPLIT,
    vector_cache: Path | None = CACHE,
    num_workers: int = WORKERS,
    json: bool = JSON,
) -> None:
    """Measure an embedding model on a dataset; with --adapter, base against tuned."""
    from llama_index.tuning.embeddings import Adapter
    from llama_index.tuning.embeddings.adapter.measure import measure_adapter

    dataset = RetrievalDataset.load(data, corpus=corpus, split=split)
    tuned = Adapter.load(adapter) if adapter else None
    base_model = models.embedding_model(model)
    columns, gains = measure_adapter(
        dataset,
        base_model,
        tuned,
        vector_cache=vector_cache,
        num_workers=num_workers,
        show_progress=not json,
    )
    if json:
        means = {name: scores.mean() for name, scores in columns.items()}
        intervals = {name: [gain.low, gain.high] for name, gain in gains.items()}
        print_json({"queries": len(dataset), **means, "gain_interval": intervals})
    else:
        print_scores(columns, gains)


@reranker_app.command("evaluate")
def evaluate_reranker(
    data: Path = RETRIEVAL_DATA,
    reranker: Path | None = typer.Option(None, help=models.RERANKER_HELP, exists=True),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TEST_SPLIT,
    depth: int = DEPTH,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Measure retriever, fusion with BM25, and the re-ranker over it, on a dataset."""
    from llama_index.tuning.evaluate import evaluate_retriever, paired_gain
    from llama_index.tuning.rerankers.measure import SHOWN
    from llama_index.tuning.text.words import Analyzer

    dataset = RetrievalDataset.load(data, corpus=corpus, split=split)
    tuned = models.reranker(reranker)
    fused = exact_retriever(dataset, model, depth, vector_cache, tuned.analyzer or Analyzer())
    ways = {
        "retriever": fused.retriever,
        "fusion": fused,
        "re-ranked": fused.with_reranker(tuned),
    }
    columns = {
        name: evaluate_retriever(way, dataset, show_progress=not json) for name, way in ways.items()
    }
    before, after = columns["retriever"], columns["re-ranked"]
    gains = {name: paired_gain(before.values[name], after.values[name]) for name in SHOWN}
    if json:
        means = {name: scores.mean() for name, scores in columns.items()}
        intervals = {name: [gain.low, gain.high] for name, gain in gains.items()}
        print_json({"queries": len(dataset), **means, "gain_interval": intervals})
    else:
        print_scores(columns, {})
        console.print("re-ranked against the retriever:")
        print_scores(columns, gains)


@router_app.command("evaluate")
def evaluate_router(
    data: Path = ROUTING_DATA,
    router: Path = _ROUTER,
    model: str = MODEL,
    labels: Path | None = LABELS,
    json: bool = JSON,
) -> None:
    """Measure a tuned router on a dataset: exact match, recall, the most frequent wrong turns."""
    from llama_index.tuning.evaluate.routing import confusions, evaluate_selector
    from llama_index.tuning.routers.serving.selector import TunedSelector

    dataset = RoutingDataset.load(data, labels=labels)
    selector = TunedSelector.load(router, models.embedding_model(model))
    scores = evaluate_selector(selector, dataset, show_progress=not json)
    single = [
        (example.choices[0], found[0], example.query)
        for example, found in zip(dataset.examples, scores.selected, strict=True)
        if len(example.choices) == 1 and found
    ]
    turns = confusions(*zip(*single, strict=True)) if single else []
    if json:
        wrong = [asdict(turn) for turn in turns]
        print_json({"queries": len(dataset), **scores.mean(), "confusions": wrong})
        return
    console.print(f"n={len(dataset)}")
    for name, value in scores.mean().items():
        console.print(f"{name:<10}{value:.4f}")
    for turn in turns:
        text = f"{turn.count:>5}  {turn.true} → {turn.predicted}: {turn.queries[0][:60]}"
        console.print(text, markup=False, soft_wrap=True)


@router_app.command("route")
def route(
    question: str = typer.Argument(help="The query to route."),
    router: Path = _ROUTER,
    model: str = MODEL,
    top: int = typer.Option(3, help="How many choices to show.", min=1),
    json: bool = JSON,
) -> None:
    """Say where a question belongs."""
    from llama_index.tuning.routers.serving.selector import TunedSelector

    found = TunedSelector.load(router, models.embedding_model(model)).predict(question)
    if json:
        print_json(asdict(found))
        return
    if found.out_of_scope:
        console.print("out of scope; the nearest choices:")
    for name, chance in list(zip(found.names, found.probabilities, strict=True))[:top]:
        console.print(f"{chance:6.2f}  {name}", markup=False)
    if found.nearest:
        console.print(f"nearest training query: {found.nearest}", markup=False, soft_wrap=True)
