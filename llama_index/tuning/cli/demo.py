"""`demo`: the main job, from documents to a tuned retriever, on text that is on every machine."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llama_index.tuning.cli._demo import questions_about, reference_nodes
from llama_index.tuning.cli.models import minilm
from llama_index.tuning.cli.output import console, print_json, print_report

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore

    from llama_index.tuning.datasets import RetrievalDataset


def demo(
    out: Path = typer.Option(Path("demo_output"), help="Folder for the adapter and the report."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Tune MiniLM on questions about Python's language reference and show what was gained."""
    from llama_index.tuning.embeddings.engine import EmbeddingAdapterFinetuneEngine

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
    shutil.copy(out / "adapter" / "report.html", out / "report.html")
    if json:
        print_json(report.to_dict())
        return
    print_report(report)
    _ask(engine.embed_model, engine.get_finetuned_model(), held_out, out / "vectors.sqlite")
    console.print(
        f"\nreport with plot: {out / 'report.html'}   adapter: {out / 'adapter'}   "
        f"({time.perf_counter() - started:.0f} s)",
        soft_wrap=True,
    )


def _ask(
    base: BaseEmbedding, tuned: BaseEmbedding, held_out: RetrievalDataset, vector_cache: Path
) -> None:
    """The held-out question that gained most, through a `VectorStoreIndex`, before and after."""
    index = _index(base, held_out, vector_cache)
    ranks = []
    for model in (base, tuned):
        retriever = index.as_retriever(similarity_top_k=10, embed_model=model)
        found = {id_: retriever.retrieve(text) for id_, text in held_out.queries.items()}
        ranks.append(
            {id_: _rank(nodes, held_out.relevant_docs[id_]) for id_, nodes in found.items()}
        )
    before, after = ranks
    best = max(held_out.queries, key=lambda id_: 1 / after[id_] - 1 / before[id_])
    console.print(f"\nThe held-out question that gained most: “{held_out.queries[best]}”")
    for name, rank in (("base", before[best]), ("tuned", after[best])):
        place = f"at rank {rank:.0f}" if rank <= 10 else "not among the first 10"
        console.print(f"  {name:<6} the right passage is {place}")
    answer = held_out.corpus[held_out.relevant_docs[best][0]]
    console.print(f"  {answer[:160]} …", markup=False, style="dim")


def _index(model: BaseEmbedding, dataset: RetrievalDataset, vector_cache: Path) -> VectorStoreIndex:
    from llama_index.core import VectorStoreIndex

    from llama_index.tuning.embeddings.vectors import Embedder, document_vectors

    nodes = dataset.to_nodes()
    vectors = document_vectors(dataset.corpus, None, Embedder(model, cache=vector_cache))
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    return VectorStoreIndex(nodes, embed_model=model)


def _rank(nodes: list[NodeWithScore], relevant: list[str]) -> float:
    places = [place for place, found in enumerate(nodes, 1) if found.node.node_id in relevant]
    return min(places, default=float("inf"))
