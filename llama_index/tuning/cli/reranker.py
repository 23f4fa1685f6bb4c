"""`reranker tune`, `reranker tune-cross-encoder` and `reranker evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import typer

from llama_index.tuning.cli import cross_encoder
from llama_index.tuning.cli.options import (
    ACCEPT,
    BM25,
    CACHE,
    CORPUS,
    DEPTH,
    JSON,
    LANGUAGE,
    MODEL,
    RETRIEVAL_DATA,
    SEED,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VALIDATION,
)
from llama_index.tuning.cli.output import console, print_json, print_scores, show_report
from llama_index.tuning.cli.retrievers import exact_retriever
from llama_index.tuning.datasets import RetrievalDataset

app = typer.Typer(
    help="Tune and measure re-rankers: light ones, and cross-encoders.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("tune-cross-encoder")(cross_encoder.tune_cross_encoder)


@app.command("tune")
def tune(
    data: Path = RETRIEVAL_DATA,
    out: Path = typer.Option(..., help="Folder for the tuned re-ranker."),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TRAIN_SPLIT,
    validation: Path | None = VALIDATION,
    depth: int = DEPTH,
    bm25: bool = BM25,
    language: str = LANGUAGE,
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Tune a light re-ranker; the folder OUT loads with LightReranker.load(OUT)."""
    from llama_index.tuning.artifacts import check_writable
    from llama_index.tuning.gate import check_accept
    from llama_index.tuning.rerankers.light_engine import LightRerankerFinetuneEngine
    from llama_index.tuning.rerankers.options import LightRerankerOptions
    from llama_index.tuning.rerankers.words import Analyzer

    check_writable(out)
    check_accept(accept)
    options = LightRerankerOptions(language=language, depth=depth, seed=seed)
    train = RetrievalDataset.load(data, corpus=corpus, split=split)
    held_out = RetrievalDataset.load(validation, corpus=corpus) if validation else None
    retriever = exact_retriever(train, model, depth, vector_cache, Analyzer(language), held_out)
    engine = LightRerankerFinetuneEngine(
        train,
        retriever if bm25 else retriever.retriever,
        val_dataset=held_out,
        options=options,
        accept=cast(Literal["gain"], accept),
        show_progress=not json,
    )
    report = engine.finetune()
    cast(Any, engine.get_finetuned_model()).save(out)
    report.save_json(out / "report.json")
    report.save_html(out / "report.html")
    show_report(report, json, [f"saved to {out} (report.json and report.html beside it)"])


@app.command("evaluate")
def evaluate(
    data: Path = RETRIEVAL_DATA,
    reranker: Path | None = typer.Option(
        None, help="Folder of a tuned re-ranker; the package's own light one without.", exists=True
    ),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TEST_SPLIT,
    depth: int = DEPTH,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Measure retriever, fusion with BM25, and the re-ranker over it, on a dataset."""
    from llama_index.tuning.evaluate import evaluate_retriever, paired_gain
    from llama_index.tuning.rerankers.light import LightReranker
    from llama_index.tuning.rerankers.loading import load_reranker
    from llama_index.tuning.rerankers.measuring import SHOWN
    from llama_index.tuning.rerankers.words import Analyzer

    dataset = RetrievalDataset.load(data, corpus=corpus, split=split)
    tuned = load_reranker(reranker) if reranker else LightReranker()
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
