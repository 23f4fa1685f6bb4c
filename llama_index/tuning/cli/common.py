"""What several commands share: options in one wording, printing, what an interrupted run keeps."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from llama_index.tuning.cli.models import HELP
from llama_index.tuning.evaluate import RetrievalScores
from llama_index.tuning.report import FinetuneReport, Gain

RETRIEVAL_DATA = typer.Argument(help="Dataset: a JSON file, or a BEIR folder.", exists=True)
CORPUS = typer.Option(None, help="Corpus file, if the splits share one.", exists=True)
TRAIN_SPLIT = typer.Option("train", help="Split of a BEIR folder.")
TEST_SPLIT = typer.Option("test", help="Split of a BEIR folder.")
VALIDATION = typer.Option(None, help="Dataset to measure on; cross-fitting without.", exists=True)
MODEL = typer.Option("minilm", help=HELP)
DEPTH = typer.Option(30, min=2, help="Candidates to re-rank for each query.")
BM25 = typer.Option(True, help="Widen candidates by BM25, as TunedRetriever does.")
ACCEPT = typer.Option("gain", help="gain, or always: skip the gate.")
SEED = typer.Option(0, help="Seed of the run.")
CACHE = typer.Option(None, help="File that keeps vectors between runs.")
WORKERS = typer.Option(1, help="Concurrent calls of an embedding API.")
RESUME = typer.Option(False, help="Go on from the last checkpoint of a killed run.")
ROUTING_DATA = typer.Argument(
    help="Dataset: JSON Lines of query and label, or a JSON file.", exists=True
)
LABELS = typer.Option(None, help="Descriptions, {name: text}; labels.json beside the data.")
JUDGMENTS = typer.Argument(help="JSON Lines of judgments.", exists=True)
JUDGE_MODEL = typer.Option("minilm", help=f"{HELP} 'none' looks at words alone.")
LLM_HELP = (
    "Model name at OpenAI, or at the server of --api-base; the key is read from OPENAI_API_KEY."
)
API_BASE = typer.Option(None, help="URL of any OpenAI-compatible server.")
JSON = typer.Option(False, "--json", help="Print JSON.")


_kept: list[str] = []


def keep(text: str) -> None:
    """Say what is left if the command is interrupted from here on, and how to go on."""
    _kept[:] = [text]


def kept() -> str:
    """What was said last; empty for a command that leaves nothing."""
    return _kept[0] if _kept else ""


def keep_run(out: object) -> None:
    """`keep` for a run whose finished calls lie in a file beside its output."""
    keep(f"finished calls are kept in {out}.run.jsonl: the same command goes on from there")


console = Console(highlight=False)


def print_json(value: Any) -> None:
    """One JSON value on standard output, for machines."""
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(value, ensure_ascii=plain, indent=2))


def show(text: str, value: Any, as_json: bool) -> None:
    """The value as JSON, or the text for people."""
    if as_json:
        print_json(value)
    else:
        console.print(text, markup=False, soft_wrap=True)


def print_report(report: FinetuneReport) -> None:
    """The verdict and one table for each group of queries."""
    colour = "green" if report.accepted and report.gains else "yellow"
    state = f"[{colour}]{report.verdict}[/]"
    console.print(f"[bold]{report.title}[/]: {state}", soft_wrap=True)
    console.print(report.reason, markup=False, soft_wrap=True)
    for name, gains in report.groups().items():
        n = next(iter(gains.values())).n
        console.print(_gain_table(f"{name} (n={n}, {report.method})", gains))
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def show_report(report: FinetuneReport, as_json: bool, lines: Iterable[str] = ()) -> None:
    """The report as one JSON value; or, for people, as tables with `lines` below."""
    if as_json:
        print_json(report.to_dict())
        return
    print_report(report)
    for line in lines:
        console.print(line, soft_wrap=True)


def print_scores(columns: Mapping[str, RetrievalScores], gains: Mapping[str, Gain]) -> None:
    """Metrics side by side; with `gains`, the difference and its interval."""
    if gains:
        console.print(_gain_table(f"n={next(iter(gains.values())).n}", gains))
        return
    table = Table(title=f"n={len(next(iter(columns.values())).query_ids)}", title_justify="left")
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
    means = {name: scores.mean() for name, scores in columns.items()}
    for metric in next(iter(means.values())):
        table.add_row(metric, *(f"{mean[metric]:.4f}" for mean in means.values()))
    console.print(table)


def print_gains(title: str, gains: Mapping[str, Gain]) -> None:
    """Base, tuned, and the difference with its interval, by metric."""
    console.print(_gain_table(title, gains))


def _gain_table(title: str, gains: Mapping[str, Gain]) -> Table:
    level = next(iter(gains.values())).confidence
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for column in ("base", "tuned", "gain", f"{level:.0%} interval"):
        table.add_column(column, justify="right")
    for name, gain in gains.items():
        colour = "green" if gain.low >= 0 else "red" if gain.high < 0 else ""
        shown = f"{gain.mean:+.4f}"
        table.add_row(
            name,
            f"{gain.base:.4f}",
            f"{gain.tuned:.4f}",
            f"[{colour}]{shown}[/]" if colour else shown,
            f"{gain.low:+.4f} to {gain.high:+.4f}",
        )
    return table
