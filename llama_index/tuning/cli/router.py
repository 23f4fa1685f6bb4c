"""`router tune`, `router evaluate` and `router route`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from llama_index.tuning.cli import models, tune
from llama_index.tuning.cli.common import (
    JSON,
    LABELS,
    MODEL,
    ROUTING_DATA,
    console,
    print_json,
)
from llama_index.tuning.datasets.routing import RoutingDataset

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
tune.add(app, tune.ROUTER)

_ROUTER = typer.Option(..., help="Folder of a tuned router.", exists=True)


@app.command("evaluate")
def evaluate(
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


@app.command("route")
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
