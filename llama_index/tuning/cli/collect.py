"""`collect stats` and `collect export`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import typer

from llama_index.tuning.cli.output import console, print_json

app = typer.Typer(
    help="Look at recorded traffic, and export it.", no_args_is_help=True, rich_markup_mode=None
)

_FILE = typer.Argument(help="A recorder's log, such as traffic.jsonl.")
_CHAT = "openai, openai-preference, trl, trl-prompt-completion, sharegpt"
_HELP = f"{_CHAT}; or retrieval, routing, relevance, users-relevance, judgments."


@app.command("stats")
def stats(
    file: Path = _FILE, json: bool = typer.Option(False, "--json", help="Print JSON.")
) -> None:
    """Count what was recorded: requests, records, models, feedback."""
    from llama_index.tuning.collect.traffic import Traffic

    found = Traffic.load(file).stats()
    if json:
        print_json(found)
        return
    for name, value in found.items():
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        console.print(f"{name:<10}{shown}", markup=False, soft_wrap=True)


@app.command("export")
def export(
    file: Path = _FILE,
    out: Path = typer.Option(..., help="File to write."),
    format: str = typer.Option("openai", help=_HELP),
    teacher: str | None = typer.Option(None, help="Only outputs of this LLM or component class."),
    model: str | None = typer.Option(None, help="Only records of this LLM."),
    min_feedback: float | None = typer.Option(None, help="Least feedback score of the request."),
    min_score: float | None = typer.Option(None, help="Least judge's score of the request."),
    since: datetime | None = typer.Option(None, help="Not earlier."),
    until: datetime | None = typer.Option(None, help="Earlier than this."),
    min_examples: int = typer.Option(10, help="Fewer are an error, for chat formats."),
    without_thinking: bool = typer.Option(
        False, "--without-thinking", help="Leave a model's thoughts out; else they are refused."
    ),
) -> None:
    """Write recorded traffic as a dataset or a training file."""
    from llama_index.tuning.collect.traffic import Only, RelevanceSource, Traffic
    from llama_index.tuning.datasets.chat import FORMATS

    traffic = Traffic.load(file)
    where = Only(
        min_feedback=min_feedback, min_score=min_score, since=since, until=until, model=model
    )
    if format in FORMATS:
        view = traffic.chat_dataset
        if format == "openai-preference":
            view = traffic.preference_dataset
        chats = view(where=where, teacher=teacher)
        chats = chats.without_thinking() if without_thinking else chats
        chats.save_jsonl(out, format=format, min_examples=min_examples)
        count = len(chats)
    elif format == "retrieval":
        retrieval = traffic.retrieval_dataset(where=where, teacher=teacher)
        retrieval.save_json(out)
        count = len(retrieval)
    elif format == "routing":
        routing = traffic.routing_dataset(where=where, teacher=teacher)
        routing.save_json(out)
        count = len(routing)
    elif format in ("relevance", "users-relevance"):
        source: RelevanceSource = "users" if format == "users-relevance" else "rerankers"
        relevance = traffic.relevance_dataset(where=where, teacher=teacher, source=source)
        relevance.save_jsonl(out)
        count = len(relevance)
    elif format == "judgments":
        judgments = traffic.judgment_dataset(where=where, teacher=teacher)
        judgments.save_jsonl(out)
        count = len(judgments)
    else:
        raise ValueError(f"unknown format {format!r}; choose one of: {_HELP[:-1]}")
    console.print(f"{count} examples written to {out}", markup=False, soft_wrap=True)
