"""`reranker tune` and `reranker evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from llama_index.tuning.cli.models import embedding_model
from llama_index.tuning.cli.options import (
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
)
from llama_index.tuning.cli.output import console, print_json, print_scores, show_report
from llama_index.tuning.datasets import RetrievalDataset

if TYPE_CHECKING:
    from llama_index.tuning.rerankers.retriever import TunedRetriever

app = typer.Typer(
    help="Tune and measure light re-rankers.", no_args_is_help=True, rich_markup_mode=None
)

_DEPTH = typer.Option(30, help="Candidates to re-rank for each query.")


@app.command("tune")
def tune(
    data: Path = RETRIEVAL_DATA,
    out: Path = typer.Option(..., help="Folder for the tuned re-ranker."),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TRAIN_SPLIT,
    validation: Path | None = VALIDATION,
    depth: int = _DEPTH,
    bm25: bool = typer.Option(True, help="Widen candidates by BM25, as TunedRetriever does."),
    language: str = typer.Option("english", help="Whose stemmer and stop words; or none."),
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Tune a light re-ranker; the folder OUT loads with LightReranker.load(OUT)."""
    from llama_index.tuning.artifacts import check_writable
    from llama_index.tuning.rerankers.light_engine import LightRerankerFinetuneEngine
    from llama_index.tuning.rerankers.options import LightRerankerOptions

    check_writable(out)
    train = RetrievalDataset.load(data, corpus=corpus, split=split)
    held_out = RetrievalDataset.load(validation, corpus=corpus) if validation else None
    retriever = _retriever(train, model, depth, vector_cache, language, held_out)
    engine = LightRerankerFinetuneEngine(
        train,
        retriever if bm25 else retriever.retriever,
        val_dataset=held_out,
        options=LightRerankerOptions(language=language, depth=depth, seed=seed),
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
        None, help="Folder of a tuned re-ranker; the package's default without.", exists=True
    ),
    model: str = MODEL,
    corpus: Path | None = CORPUS,
    split: str = TEST_SPLIT,
    depth: int = _DEPTH,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Measure retriever, fusion with BM25, and the re-ranker over it, on a dataset."""
    from llama_index.tuning.evaluate import evaluate_retriever, paired_gain
    from llama_index.tuning.rerankers.light import LightReranker
    from llama_index.tuning.rerankers.measuring import SHOWN

    dataset = RetrievalDataset.load(data, corpus=corpus, split=split)
    light = LightReranker.load(reranker) if reranker else LightReranker()
    fused = _retriever(dataset, model, depth, vector_cache, light.analyzer.language)
    ways = {
        "retriever": fused.retriever,
        "fusion": fused,
        "re-ranked": fused.with_reranker(light),
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


def _retriever(
    dataset: RetrievalDataset,
    model: str,
    depth: int,
    cache: Path | None,
    language: str,
    *others: RetrievalDataset | None,
) -> TunedRetriever:
    """An exact vector retriever over the corpus, fused with BM25, without a re-ranker."""
    from llama_index.core import VectorStoreIndex

    from llama_index.tuning.embeddings.vectors import Embedder, document_vectors
    from llama_index.tuning.rerankers.bm25 import BM25Index
    from llama_index.tuning.rerankers.retriever import TunedRetriever
    from llama_index.tuning.rerankers.words import Analyzer

    embed_model = embedding_model(model)
    corpus = dict(dataset.corpus)
    for other in others:
        corpus |= other.corpus if other else {}
    nodes = RetrievalDataset({}, corpus, {}).to_nodes()
    vectors = document_vectors(corpus, None, Embedder(embed_model, cache=cache))
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    index = VectorStoreIndex(nodes, embed_model=embed_model)
    words = BM25Index(Analyzer(language))
    words.add(corpus)
    return TunedRetriever(
        index.as_retriever(similarity_top_k=max(depth, 100)),
        nodes,
        reranker=None,
        depth=depth,
        top_k=depth,
        index=words,
    )
