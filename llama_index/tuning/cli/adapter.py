"""`adapter tune` and `adapter evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import typer

from llama_index.tuning.cli.common import (
    ACCEPT,
    CACHE,
    CORPUS,
    JSON,
    MODEL,
    RETRIEVAL_DATA,
    SEED,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VALIDATION,
    WORKERS,
    print_json,
    print_scores,
    show_report,
)
from llama_index.tuning.cli.models import embedding_model
from llama_index.tuning.datasets import RetrievalDataset

app = typer.Typer(
    help="Tune and measure embedding adapters.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("tune")
def tune(
    data: Path = RETRIEVAL_DATA,
    out: Path = typer.Option(..., help="Folder for the tuned adapter and its report."),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TRAIN_SPLIT,
    validation: Path | None = VALIDATION,
    unlabelled: Path | None = typer.Option(
        None, help="Corpus file whose sentences teach too, without labels.", exists=True
    ),
    adapter: str = typer.Option("linear", help="linear, low_rank or two_layer."),
    side: str = typer.Option("query", help="query, or both: documents are mapped too."),
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    num_workers: int = WORKERS,
    json: bool = JSON,
) -> None:
    """Tune an adapter; the folder OUT loads with AdapterEmbeddingModel(base, OUT)."""
    from llama_index.tuning._files import read_json
    from llama_index.tuning.embeddings.adapter.engine import EmbeddingAdapterFinetuneEngine
    from llama_index.tuning.embeddings.adapter.options import AdapterOptions

    shared = read_json(corpus) if corpus else None
    engine = EmbeddingAdapterFinetuneEngine(
        RetrievalDataset.load(data, corpus=shared, split=split),
        embedding_model(model),
        model_output_path=str(out),
        options=AdapterOptions(
            adapter=cast(Literal["linear"], adapter), side=cast(Literal["query"], side), seed=seed
        ),
        val_dataset=RetrievalDataset.load(validation, corpus=shared) if validation else None,
        unlabelled=read_json(unlabelled) if unlabelled else None,
        vector_cache=vector_cache,
        accept=cast(Literal["gain"], accept),
        num_workers=num_workers,
        show_progress=not json,
    )
    report = engine.finetune()
    report.save_html(out / "report.html")
    show_report(report, json, [f"saved to {out} (with report.json and report.html)"])


@app.command("evaluate")
def evaluate(
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
    from llama_index.tuning.embeddings.adapter.measure import measure_adapter
    from llama_index.tuning.embeddings.adapter.saved import Adapter

    dataset = RetrievalDataset.load(data, corpus=corpus, split=split)
    tuned = Adapter.load(adapter) if adapter else None
    base_model = embedding_model(model)
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
