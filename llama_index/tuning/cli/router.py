"""`router tune`, `router evaluate` and `router route`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal, cast

import typer

from llama_index.tuning.cli.common import (
    ACCEPT,
    CACHE,
    JSON,
    SEED,
    console,
    print_json,
    show_report,
)
from llama_index.tuning.cli.models import HELP, embedding_model
from llama_index.tuning.datasets.routing import RoutingDataset

app = typer.Typer(
    help="Tune, measure and ask routers.", no_args_is_help=True, rich_markup_mode=None
)

_DATA = typer.Argument(help="Dataset: JSON Lines of query and label, or a JSON file.", exists=True)
_LABELS = typer.Option(None, help="Descriptions, {name: text}; labels.json beside the data.")
_ROUTER = typer.Option(..., help="Folder of a tuned router.", exists=True)


@app.command("tune")
def tune(
    data: Path = _DATA,
    out: Path = typer.Option(..., help="Folder for the tuned router and its report."),
    model: str = typer.Option("minilm", help=HELP),
    labels: Path | None = _LABELS,
    validation: Path | None = typer.Option(
        None, help="Dataset to measure on; cross-fitting without.", exists=True
    ),
    balanced: bool = typer.Option(False, help="Weigh the choices equally."),
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Tune a router; the folder OUT loads with TunedSelector.load(OUT, embed_model)."""
    from llama_index.tuning.routers.engine import RouterFinetuneEngine
    from llama_index.tuning.routers.options import RouterOptions

    dataset = RoutingDataset.load(data, labels=labels)
    report = RouterFinetuneEngine(
        dataset,
        embedding_model(model),
        options=RouterOptions(balanced=balanced, seed=seed),
        val_dataset=RoutingDataset.load(validation, labels=_same(validation, dataset))
        if validation
        else None,
        accept=cast(Literal["gain"], accept),
        model_output_path=out,
        vector_cache=vector_cache,
        show_progress=not json,
    ).finetune()
    report.save_html(out / "report.html")
    what = (
        "saved to"
        if report.accepted
        else "the base selector is kept; the refused router lies in candidate/ of"
    )
    figures = [f"{name:<22}{value:.4f}" for name, value in report.summary.items()]
    show_report(report, json, [*figures, f"{what} {out} (report.json and report.html in it)"])


@app.command("evaluate")
def evaluate(
    data: Path = _DATA,
    router: Path = _ROUTER,
    model: str = typer.Option("minilm", help=HELP),
    labels: Path | None = _LABELS,
    json: bool = JSON,
) -> None:
    """Measure a tuned router on a dataset: exact match, recall, the most frequent wrong turns."""
    from llama_index.tuning.evaluate.routing import confusions, evaluate_selector
    from llama_index.tuning.routers.serving.selector import TunedSelector

    dataset = RoutingDataset.load(data, labels=labels)
    selector = TunedSelector.load(router, embedding_model(model))
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
    model: str = typer.Option("minilm", help=HELP),
    top: int = typer.Option(3, help="How many choices to show.", min=1),
    json: bool = JSON,
) -> None:
    """Say where a question belongs."""
    from llama_index.tuning.routers.serving.selector import TunedSelector

    found = TunedSelector.load(router, embedding_model(model)).predict(question)
    if json:
        print_json(asdict(found))
        return
    if found.out_of_scope:
        console.print("out of scope; the nearest choices:")
    for name, chance in list(zip(found.names, found.probabilities, strict=True))[:top]:
        console.print(f"{chance:6.2f}  {name}", markup=False)
    if found.nearest:
        console.print(f"nearest training query: {found.nearest}", markup=False, soft_wrap=True)


def _same(path: Path, dataset: RoutingDataset) -> dict[str, str] | None:
    # A validation file of JSON Lines has the choices of the training data.
    return dataset.choices if path.suffix == ".jsonl" else None
