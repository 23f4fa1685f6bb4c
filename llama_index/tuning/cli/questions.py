"""`questions template` and `questions convert`: tables of questions that people write."""

from __future__ import annotations

from pathlib import Path

import typer

from llama_index.tuning.cli.common import console

app = typer.Typer(
    help="Files of questions that people write.", no_args_is_help=True, rich_markup_mode=None
)

_KINDS = "retrieval, routing or judgments"


@app.command("template")
def template(
    out: Path = typer.Option(Path("questions.csv"), help="File to write; it must not exist."),
    kind: str = typer.Option("retrieval", help=f"What it is for: {_KINDS}."),
) -> None:
    """Write a table to fill in, with example rows."""
    from llama_index.tuning._files import write_text_atomic
    from llama_index.tuning.datasets.formats.shapes import TEMPLATES

    if kind not in TEMPLATES:
        raise ValueError(f"unknown kind {kind!r}; choose one of: {', '.join(TEMPLATES)}")
    if out.exists():
        raise ValueError(f"{out} exists; it is not written over")
    write_text_atomic(out, TEMPLATES[kind])
    console.print(f"a table for {kind} written to {out}", markup=False, soft_wrap=True)


@app.command("convert")
def convert(
    table: Path = typer.Argument(help="A .csv, .tsv, .jsonl, .json, .xlsx or .parquet file."),
    out: Path = typer.Option(..., help="File for the dataset."),
    kind: str = typer.Option("retrieval", help=f"What it is for: {_KINDS}."),
) -> None:
    """Make a dataset of a table; rows that cannot be used are left out and counted."""
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.routing import RoutingDataset

    if kind == "retrieval":
        retrieval = RetrievalDataset.from_table(table)
        retrieval.save_json(out)
        count = len(retrieval)
    elif kind == "routing":
        routing = RoutingDataset.from_table(table)
        routing.save_json(out)
        count = len(routing)
    elif kind == "judgments":
        judgments = JudgmentDataset.from_table(table)
        judgments.save_jsonl(out)
        count = len(judgments)
    else:
        raise ValueError(f"unknown kind {kind!r}; choose one of: {_KINDS}")
    console.print(f"{count} rows written to {out}", markup=False, soft_wrap=True)
