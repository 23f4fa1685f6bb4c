"""`demo`: the main job, from documents to a tuned retriever, on text that is on every machine."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llama_index.tuning.cli.common import console, print_json, print_report, print_scores
from llama_index.tuning.cli.rerankers import vector_index
from llama_index.tuning.demo import minilm, questions_about, reference_nodes
from llama_index.tuning.embeddings.adapter.measure import measure_adapter

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index.tuning.datasets import RetrievalDataset
    from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
    from llama_index.tuning.evaluate import RetrievalScores

SHOWN = ("ndcg@10", "mrr@10", "hit_rate@10")


def demo(
    out: Path = typer.Option(Path("demo_output"), help="Folder for the adapter and the report."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Tune MiniLM on questions about Python's language reference and show what was gained."""
    from llama_index.tuning.embeddings.adapter.engine import EmbeddingAdapterFinetuneEngine
    from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel

    started = time.perf_counter()
    nodes = reference_nodes()
    train, held_out = questions_about(nodes, "train"), questions_about(nodes, "held_out")
    if not json:
        console.print(
            f"Python's language reference: {len(nodes)} chunks, {len(train)} questions to learn "
            f"from, {len(held_out)} held out; all-MiniLM-L6-v2 on this machine's CPU.\n",
            soft_wrap=True,
        )
    engine = EmbeddingAdapterFinetuneEngine(
        train,
        minilm(),
        model_output_path=str(out / "adapter"),
        val_dataset=held_out,
        vector_cache=out / "vectors.sqlite",
        show_progress=not json,
    )
    report = engine.finetune()
    report.save_html(out / "report.html")
    if json:
        print_json(report.to_dict())
        return
    print_report(report)
    tuned = engine.get_finetuned_model()
    index = vector_index(held_out.corpus, engine.embed_model, out / "vectors.sqlite")
    _through_retrievers(index, tuned, held_out)
    if isinstance(tuned, AdapterEmbeddingModel):
        _ask(index, engine.embed_model, tuned, held_out, out / "vectors.sqlite")
    console.print(
        f"\nreport with plot: {out / 'report.html'}   adapter: {out / 'adapter'}   "
        f"({time.perf_counter() - started:.0f} s)",
        soft_wrap=True,
    )


def _through_retrievers(
    index: VectorStoreIndex, tuned: BaseEmbedding, held_out: RetrievalDataset
) -> None:
    """The adapter, and BM25 with the re-ranker that comes with the package, alone and together."""
    from llama_index.tuning.evaluate import evaluate_retriever, paired_gain
    from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever

    base, adapted = (
        index.as_retriever(similarity_top_k=100, embed_model=model) for model in (None, tuned)
    )
    widened = TunedRetriever(base, docstore=index.docstore)
    both = TunedRetriever(adapted, docstore=index.docstore, index=widened.index)
    ways = {"retriever": base, "adapter": adapted, "TunedRetriever": widened, "both": both}
    console.print(
        "\nThe held-out questions through the app's retriever, the adapter, and TunedRetriever "
        "(BM25 and the re-ranker that comes with the package, untuned):",
        soft_wrap=True,
    )
    measured = {name: evaluate_retriever(way, held_out, ks=[10]) for name, way in ways.items()}
    print_scores({name: _shown(scores) for name, scores in measured.items()}, {})
    gain = paired_gain(measured["retriever"].values["ndcg@10"], measured["both"].values["ndcg@10"])
    console.print(
        f"both: nDCG@10 {gain.mean:+.3f} ({gain.confidence:.0%} interval {gain.low:+.3f} to "
        f"{gain.high:+.3f})"
    )


def _shown(scores: RetrievalScores) -> RetrievalScores:
    return replace(scores, values={name: scores.values[name] for name in SHOWN})


def _ask(
    index: VectorStoreIndex,
    base: BaseEmbedding,
    tuned: AdapterEmbeddingModel,
    held_out: RetrievalDataset,
    cache: Path,
) -> None:
    """The held-out question that gained most, through a `VectorStoreIndex`, before and after."""
    scores, _ = measure_adapter(held_out, base, tuned.adapter, vector_cache=cache)
    gained = scores["tuned"].values["mrr@10"] - scores["base"].values["mrr@10"]
    best = scores["base"].query_ids[int(gained.argmax())]
    question, relevant = held_out.queries[best], held_out.relevant_docs[best]
    console.print(f"\nThe held-out question that gained most: “{question}”", markup=False)
    for name, model in (("base", base), ("tuned", tuned)):
        retriever = index.as_retriever(similarity_top_k=10, embed_model=model)
        ids = [found.node.node_id for found in retriever.retrieve(question)]
        places = [place for place, id_ in enumerate(ids, 1) if id_ in relevant]
        place = f"at rank {places[0]}" if places else "not among the first 10"
        console.print(f"  {name:<6} the passage that answers it is {place}")
    passage = " ".join(held_out.corpus[relevant[0]].split())
    console.print(f"  {passage[:160]} …", markup=False, style="dim", soft_wrap=True)
