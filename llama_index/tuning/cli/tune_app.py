"""`app tune`, `app ask`, `app check`, `app report`: a whole app by one command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_index.tuning.cli import models
from llama_index.tuning.cli.common import (
    API_BASE,
    JSON,
    LLM_HELP,
    MODEL,
    SEED,
    WORKERS,
    console,
    keep,
    print_json,
    print_scores,
)
from llama_index.tuning.cli.models import embedding_model

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex

    from llama_index.tuning.app.model import TunedApp

app = typer.Typer(
    help="Tune a whole app: retriever, BM25, re-ranker and adapter, whatever is shown to gain.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
STORAGE = "storage"
TUNED = typer.Argument(help="Folder that `app tune` wrote.", exists=True, file_okay=False)


@app.command("tune")
def tune(
    documents: Path = typer.Argument(
        help="A folder of documents, or a persisted storage folder of LlamaIndex.",
        exists=True,
        file_okay=False,
    ),
    out: Path = typer.Option(Path("tuned"), help="Folder for the tuned app and its report."),
    questions: Path | None = typer.Option(
        None, help="Questions with their answers: JSON, CSV or JSON Lines.", exists=True
    ),
    traffic: Path | None = typer.Option(None, help="Log of the recorder.", exists=True),
    llm: str | None = typer.Option(
        None, help=f"{LLM_HELP} It writes and checks questions if none are given."
    ),
    api_base: str | None = API_BASE,
    max_calls: int | None = typer.Option(None, help="Requests to the LLM; 400 by default."),
    judgments: Path | None = typer.Option(
        None, help="Verdicts on answers, which a judge learns from.", exists=True
    ),
    also: list[str] = typer.Option(
        [],
        help="Tried last: corpus_side, query_encoder, embedding_model, cross_encoder or "
        "cross_encoder=MODEL.",
    ),
    keep_index: bool = typer.Option(
        False, "--keep-index", help="Leave out what gives the documents other vectors."
    ),
    max_latency_ms: float | None = typer.Option(None, help="What a query may cost more."),
    max_seconds: float | None = typer.Option(None, help="After which nothing more is learnt."),
    model: str = MODEL,
    num_workers: int = WORKERS,
    seed: int = SEED,
    json: bool = JSON,
) -> None:
    """Tune the app over DOCUMENTS; OUT loads with load_app(OUT, index)."""
    from llama_index.tuning.app.questions import check_readable
    from llama_index.tuning.app.run import run_of
    from llama_index.tuning.app.tune import tune_app
    from llama_index.tuning.artifacts import check_writable

    check_writable(out)
    keep(f"what was finished is kept in {out}.run: the same command goes on from there")
    if llm is not None and questions is not None:
        raise ValueError("--llm writes questions: leave out --questions, or --llm")
    run = out.with_name(f"{out.name}.run")
    settings: dict[str, Any] = {
        "also": also,
        "keep_index": keep_index,
        "max_latency_ms": max_latency_ms,
        "max_seconds": max_seconds,
        "run_folder": run,
        "num_workers": num_workers,
        "seed": seed,
        "show_progress": not json,
    }
    run_of(**settings)  # what is wrong with these is said before the documents are embedded
    if questions is not None:
        check_readable(questions)
    index = _index(documents, model, cache=run / "vectors.sqlite")
    tuned = tune_app(
        index,
        questions if llm is None else "generate",
        traffic=traffic,
        llm=None if llm is None else models.language_model(llm, api_base),
        max_calls=max_calls,
        judgments=judgments,
        **settings,
    )
    tuned.save(out)
    index.storage_context.persist(str(out / STORAGE))
    if json:
        print_json(tuned.report.to_dict())
        return
    console.print(str(tuned.report), markup=False, soft_wrap=True)
    console.print(f"\nsaved to {out} (report.html beside it)", markup=False, soft_wrap=True)


@app.command("ask")
def ask(
    tuned: Path = TUNED,
    question: str = typer.Argument(help="What to look for."),
    model: str = MODEL,
    json: bool = JSON,
) -> None:
    """What the app finds for a question, before and after."""
    if not question.strip():
        raise ValueError("question is empty")
    app = _loaded(tuned, model)
    ways = {"before": app.seen.retriever, "after": app.retriever}
    found = {
        name: [
            {"id": item.node.node_id, "text": " ".join(item.node.get_content().split())[:300]}
            for item in way.retrieve(question)
        ]
        for name, way in ways.items()
    }
    if json:
        print_json(found)
        return
    for name, nodes in found.items():
        console.print(f"{name}:")
        for place, node in enumerate(nodes, start=1):
            console.print(f"  {place}. {node['text'][:160]}", markup=False, soft_wrap=True)


@app.command("check")
def check(
    tuned: Path = TUNED,
    questions: Path = typer.Option(..., help="New questions with their answers."),
    max_loss: float = typer.Option(0.01, help="Loss of nDCG@10 that is no regression yet."),
    model: str = MODEL,
    json: bool = JSON,
) -> int:
    """Compare the served app with the app before on new questions.

    Exit status 1 if it is shown to be worse, 0 if not, 2 for wrong input.
    """
    result = _loaded(tuned, model).check(questions, max_loss=max_loss)
    if json:
        print_json(result.to_dict())
    else:
        console.print(str(result), markup=False, soft_wrap=True)
    return int(result.regressed)


@app.command("report")
def report(tuned: Path = TUNED, json: bool = JSON) -> None:
    """Show the report of a tuned app."""
    from llama_index.tuning.app.report import AppReport
    from llama_index.tuning.artifacts import REPORT

    found = AppReport.from_json(tuned / REPORT)
    if json:
        print_json(found.to_dict())
    else:
        console.print(str(found), markup=False, soft_wrap=True)


def compare_on(one: Path, other: Path, questions: Path, model: str, *, json: bool) -> None:
    """Two tuned apps on the same questions: OTHER against ONE."""
    from llama_index.tuning.app.check import compare

    apps = [_loaded(folder, model) for folder in (one, other)]
    gains = compare(*(app.scores(questions) for app in apps))
    if json:
        print_json({name: asdict(gain) for name, gain in gains.items()})
        return
    for folder, app in zip((one, other), apps, strict=True):
        console.print(f"{folder}: {app.report.served}", markup=False, soft_wrap=True)
    print_scores({}, gains)


def _loaded(tuned: Path, model: str) -> TunedApp:
    from llama_index.tuning.app.load import load_app
    from llama_index.tuning.app.saved import KIND
    from llama_index.tuning.artifacts import read_config
    from llama_index.tuning.errors import ArtifactError

    if not (tuned / STORAGE / "index_store.json").exists():
        read_config(tuned, KIND)
        raise ArtifactError(
            f"{tuned} was saved without its index: `app tune` writes it too; in Python, "
            f"index.storage_context.persist({str(tuned / STORAGE)!r})"
        )
    return load_app(tuned, _index(tuned / STORAGE, model))


def _index(folder: Path, model: str, cache: Path | None = None) -> VectorStoreIndex:
    """A persisted index, or a new one over a folder of documents; `cache` keeps its vectors."""
    from llama_index.core import (
        Settings,
        SimpleDirectoryReader,
        StorageContext,
        VectorStoreIndex,
        load_index_from_storage,
    )
    from llama_index.core.ingestion import run_transformations
    from llama_index.core.schema import MetadataMode

    from llama_index.tuning.vectors.embedder import Embedder

    embed_model = embedding_model(model)
    if (folder / "index_store.json").exists():
        context = StorageContext.from_defaults(persist_dir=str(folder))
        loaded = load_index_from_storage(context, embed_model=embed_model)
        if not isinstance(loaded, VectorStoreIndex):
            raise TypeError(f"{folder} holds a {type(loaded).__name__}, not a vector index")
        return loaded
    documents = SimpleDirectoryReader(str(folder), recursive=True).load_data()
    nodes = list(run_transformations(documents, Settings.transformations))
    texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
    if nodes:
        vectors = Embedder(embed_model, cache=cache).documents(texts)
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector.tolist()
    return VectorStoreIndex(nodes, embed_model=embed_model)


RUN = typer.Argument(help="A report.json, or the folder of a component or an app.", exists=True)
QUESTIONS = typer.Option(None, help="Of two apps: measure both on these questions.", exists=True)


def compare(
    one: Path = RUN,
    other: Path = RUN,
    questions: Path | None = QUESTIONS,
    model: str = MODEL,
    json: bool = JSON,
) -> None:
    """Two saved runs side by side; with --questions, two tuned apps on the same questions."""
    if questions is not None:
        compare_on(one, other, questions, model, json=json)
        return
    if json:
        raise typer.BadParameter("--json needs --questions; the reports themselves are JSON")
    from llama_index.tuning.pages.compare import compare_reports

    print(compare_reports(one, other))
