"""`reranker tune`, `tune-cross-encoder` and `evaluate`, and the retriever that they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import typer

from llama_index.tuning.cli.common import (
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
    console,
    print_json,
    print_scores,
    show_report,
)
from llama_index.tuning.cli.models import embedding_model, hugging_face_id
from llama_index.tuning.datasets import RetrievalDataset

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index.tuning.report import FinetuneReport
    from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever
    from llama_index.tuning.text.words import Analyzer


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
    device: str | None = typer.Option(None, help="What to train on; a GPU if there is one."),
    resume: bool = typer.Option(False, help="Go on from the last checkpoint of a killed run."),
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Tune a cross-encoder against a light re-ranker; OUT loads with load_reranker(OUT)."""
    from llama_index.tuning.artifacts import check_writable
    from llama_index.tuning.gate import check_accept
    from llama_index.tuning.rerankers.cross.engine import CrossEncoderFinetuneEngine
    from llama_index.tuning.rerankers.cross.options import CrossEncoderOptions, CrossLoss, Partner
    from llama_index.tuning.text.words import Analyzer

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
        out,
        batch_size,
        held_out,
        epochs=epochs,
        show_progress=not json,
        retriever=fused if bm25 else fused.retriever,
        options=options,
        accept=cast(Literal["gain"], accept),
    )
    report = engine.finetune()
    report.save_html(out / "report.html")
    show_report(report, json, [_where(out, report)])


app = typer.Typer(
    help="Tune and measure re-rankers: light ones, and cross-encoders.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("tune-cross-encoder")(tune_cross_encoder)


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
    from llama_index.tuning.rerankers.light.engine import LightRerankerFinetuneEngine
    from llama_index.tuning.rerankers.light.options import LightRerankerOptions
    from llama_index.tuning.text.words import Analyzer

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
        model_output_path=out,
        accept=cast(Literal["gain"], accept),
        show_progress=not json,
    )
    report = engine.finetune()
    report.save_html(out / "report.html")
    show_report(report, json, [_where(out, report)])


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
    from llama_index.tuning.rerankers.light.model import LightReranker
    from llama_index.tuning.rerankers.loading import load_reranker
    from llama_index.tuning.rerankers.measure import SHOWN
    from llama_index.tuning.text.words import Analyzer

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


def _where(out: Path, report: FinetuneReport) -> str:
    """Where what lies after a run."""
    inside = "report.json and report.html in it"
    if report.accepted:
        return f"saved to {out} ({inside})"
    return f"{out} holds the base, and the refused re-ranker in candidate/ ({inside})"


def vector_index(
    corpus: Mapping[str, str], embed_model: BaseEmbedding, cache: Path | None
) -> VectorStoreIndex:
    """An exact index over the texts, whose vectors are kept between runs."""
    from llama_index.core import VectorStoreIndex

    from llama_index.tuning.vectors.embedder import Embedder, document_vectors

    nodes = RetrievalDataset({}, dict(corpus), {}).to_nodes()
    vectors = document_vectors(corpus, None, Embedder(embed_model, cache=cache))
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    return VectorStoreIndex(nodes, embed_model=embed_model)


def exact_retriever(
    dataset: RetrievalDataset,
    model: str,
    depth: int,
    cache: Path | None,
    analyzer: Analyzer,
    *others: RetrievalDataset | None,
) -> TunedRetriever:
    """An exact vector retriever over the corpus, fused with BM25, without a re-ranker."""
    from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever
    from llama_index.tuning.text.bm25 import BM25Index

    corpus = dict(dataset.corpus)
    for other in others:
        corpus |= other.corpus if other else {}
    index = vector_index(corpus, embedding_model(model), cache)
    words = BM25Index(analyzer)
    words.add(corpus)
    return TunedRetriever(
        index.as_retriever(similarity_top_k=max(depth, 100)),
        docstore=index.docstore,
        reranker=None,
        depth=depth,
        top_k=depth,
        index=words,
    )
