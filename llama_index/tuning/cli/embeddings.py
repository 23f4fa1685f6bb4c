"""`adapter tune` and `evaluate`, `embeddings tune` and `drift`."""

from __future__ import annotations

from pathlib import Path

import typer

from llama_index.tuning.cli import models, tune
from llama_index.tuning.cli.common import (
    CACHE,
    CORPUS,
    JSON,
    MODEL,
    RETRIEVAL_DATA,
    TEST_SPLIT,
    WORKERS,
    print_json,
    print_scores,
)
from llama_index.tuning.datasets import RetrievalDataset

adapter_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
tune.add(adapter_app, tune.ADAPTER)
tune.add(app, tune.FULL)
tune.add(app, tune.DRIFT)


@adapter_app.command("evaluate")
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
