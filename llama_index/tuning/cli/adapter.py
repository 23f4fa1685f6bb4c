"""`adapter tune` and `adapter evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import typer

from llama_index.tuning.cli.models import HELP, embedding_model
from llama_index.tuning.cli.output import console, print_json, print_report, print_scores
from llama_index.tuning.datasets import RetrievalDataset

app = typer.Typer(
    help="Tune and measure embedding adapters.", no_args_is_help=True, rich_markup_mode=None
)

_DATA = typer.Argument(help="Dataset: a JSON file, or a BEIR folder.", exists=True)
_CORPUS = typer.Option(None, help="Corpus file, where the splits share one.", exists=True)
_SPLIT = typer.Option("test", help="Split of a BEIR folder.")
_CACHE = typer.Option(None, help="File that keeps vectors between runs.")
_JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command("tune")
def tune(
    data: Path = _DATA,
    out: Path = typer.Option(..., help="Folder for the tuned adapter and its report."),
    model: str = typer.Option("minilm", help=HELP),
    corpus: Path | None = _CORPUS,
    split: str = typer.Option("train", help="Split of a BEIR folder."),
    validation: Path | None = typer.Option(
        None, help="Dataset to measure on; cross-fitting without.", exists=True
    ),
    unlabelled: Path | None = typer.Option(
        None, help="Corpus file whose sentences teach too, without labels.", exists=True
    ),
    adapter: str = typer.Option("linear", help="linear, low_rank or two_layer."),
    side: str = typer.Option("query", help="query, or both: documents are mapped too."),
    accept: str = typer.Option("gain", help="gain, or always: skip the gate."),
    seed: int = typer.Option(0, help="Seed of the run."),
    vector_cache: Path | None = _CACHE,
    num_workers: int = typer.Option(1, help="Concurrent calls of an embedding API."),
    json: bool = _JSON,
) -> None:
    """Tune an adapter; the folder OUT loads with AdapterEmbeddingModel(base, OUT)."""
    from llama_index.tuning.datasets._files import read_json
    from llama_index.tuning.embeddings.engine import EmbeddingAdapterFinetuneEngine
    from llama_index.tuning.embeddings.options import AdapterOptions

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
    if json:
        print_json(report.to_dict())
    else:
        print_report(report)
        console.print(f"saved to {out} (report.json and report.html beside it)", soft_wrap=True)


@app.command("evaluate")
def evaluate(
    data: Path = _DATA,
    adapter: Path | None = typer.Option(None, help="Folder of a tuned adapter.", exists=True),
    model: str = typer.Option("minilm", help=HELP),
    corpus: Path | None = _CORPUS,
    split: str = _SPLIT,
    vector_cache: Path | None = _CACHE,
    num_workers: int = typer.Option(1, help="Concurrent calls of an embedding API."),
    json: bool = _JSON,
) -> None:
    """Measure an embedding model on a dataset; with --adapter, base against tuned."""
    from llama_index.tuning.embeddings.adapters import Adapter
    from llama_index.tuning.embeddings.measure import measure_adapter

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
