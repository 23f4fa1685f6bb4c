"""`reranker tune`, `tune-cross-encoder` and `evaluate`, and the retriever that they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llama_index.tuning.cli import models, tune
from llama_index.tuning.cli.common import (
    CACHE,
    CORPUS,
    DEPTH,
    JSON,
    MODEL,
    RETRIEVAL_DATA,
    TEST_SPLIT,
    console,
    print_json,
    print_scores,
)
from llama_index.tuning.datasets import RetrievalDataset

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever
    from llama_index.tuning.text.words import Analyzer


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
tune.add(app, tune.RERANKER)
tune.add(app, tune.CROSS_ENCODER)


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
    index = vector_index(corpus, models.embedding_model(model), cache)
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
