"""`reranker tune-cross-encoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import typer

from llama_index.tuning.cli.models import hugging_face_id
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
    TRAIN_SPLIT,
    VALIDATION,
)
from llama_index.tuning.cli.output import show_report
from llama_index.tuning.cli.retrievers import exact_retriever
from llama_index.tuning.datasets import RetrievalDataset


def tune_cross_encoder(
    data: Path = RETRIEVAL_DATA,
    out: Path = typer.Option(..., help="Folder for the tuned cross-encoder and its report."),
    cross_encoder: str = typer.Option(
        "cross-encoder/ms-marco-MiniLM-L-12-v2",
        help="Cross-encoder or encoder to start from: a Hugging Face name or folder, or 'minilm'.",
    ),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TRAIN_SPLIT,
    validation: Path | None = VALIDATION,
    depth: int = DEPTH,
    bm25: bool = BM25,
    language: str = LANGUAGE,
    loss: str = typer.Option("bce", help="bce, lambda, listnet, ranknet, margin_mse or adr_mse."),
    partner: str = typer.Option("light", help="Whose score is mixed in: light, or retriever."),
    epochs: int = typer.Option(2, min=1, help="Passes over the training queries."),
    batch_size: int = typer.Option(16, min=1, help="Pairs in a step."),
    learning_rate: float = typer.Option(2e-5, help="Peak of the schedule."),
    lora_rank: int = typer.Option(0, help="Train low-rank updates of this rank instead."),
    max_length: int | None = typer.Option(None, help="Tokens of a pair; the model's own limit."),
    bf16: bool = typer.Option(False, help="Compute in bfloat16 while training."),
    device: str | None = typer.Option(None, help="Where to train; a GPU where there is one."),
    resume: bool = typer.Option(False, help="Go on from the last checkpoint of a killed run."),
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Tune a cross-encoder against a light re-ranker; OUT loads with TunedReranker.load(OUT)."""
    from llama_index.tuning.artifacts import check_writable
    from llama_index.tuning.gate import check_accept
    from llama_index.tuning.rerankers.cross_engine import CrossEncoderFinetuneEngine
    from llama_index.tuning.rerankers.cross_options import (
        CrossEncoderOptions,
        CrossLoss,
        Partner,
    )
    from llama_index.tuning.rerankers.words import Analyzer

    options = CrossEncoderOptions(
        loss=cast(CrossLoss, loss),
        partner=cast(Partner, partner),
        learning_rate=learning_rate,
        lora_rank=lora_rank,
        max_length=max_length,
        depth=depth,
        bf16=bf16,
        device=device,
        resume=resume,
        seed=seed,
    )
    check_accept(accept)
    check_writable(out)
    train = RetrievalDataset.load(data, corpus=corpus, split=split)
    held_out = RetrievalDataset.load(validation, corpus=corpus) if validation else None
    fused = exact_retriever(train, model, depth, vector_cache, Analyzer(language), held_out)
    engine = CrossEncoderFinetuneEngine(
        train,
        hugging_face_id(cross_encoder),
        str(out),
        batch_size,
        held_out,
        epochs=epochs,
        show_progress_bar=not json,
        retriever=fused if bm25 else fused.retriever,
        options=options,
        accept=cast(Literal["gain"], accept),
    )
    report = engine.finetune()
    report.save_html(out / "report.html")
    kept = [] if report.accepted else [f"{out} holds the cross-encoder; keep to the base instead"]
    show_report(report, json, [*kept, f"saved to {out} (report.json and report.html beside it)"])
