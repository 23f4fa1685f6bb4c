"""`demo`: `tune_app` on text that is on every machine, and what came of it on other questions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llama_index.tuning.cli.common import console, print_json
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

if TYPE_CHECKING:
    from llama_index.tuning.app.check import CheckResult


def demo(
    out: Path = typer.Option(Path("demo_output"), help="Folder for the tuned app and its report."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Tune an app over Python's language reference and show what was gained."""
    from llama_index.core import VectorStoreIndex

    from llama_index.tuning.app.tune import tune_app
    from llama_index.tuning.artifacts import check_writable

    check_writable(out)
    started = time.perf_counter()

    def say(text: str) -> None:
        if not json:
            console.print(text, markup=False, soft_wrap=True)

    nodes = reference_nodes()
    questions, held_out = questions_about(nodes, "train"), questions_about(nodes, "held_out")
    say(
        f"Python's language reference: {len(nodes)} chunks, {len(questions)} questions to tune "
        f"with, {len(held_out)} held out; all-MiniLM-L6-v2 on this machine's CPU.\n"
    )
    say(f"embedding {len(nodes)} chunks, as for any index: most of the time")
    index = VectorStoreIndex(nodes, embed_model=minilm())
    app = tune_app(
        index,
        questions,
        run_folder=out.with_name(f"{out.name}.run"),
        show_progress=not json,
    )
    app.save(out)
    result = app.check(held_out)
    if json:
        print_json({"report": app.report.to_dict(), "held_out": result.to_dict()})
        return
    say(f"\n{app.report}\n")
    say(f"The {len(held_out)} held-out questions, which tune_app never saw:\n{result}\n")
    _most_gained(result)
    say(
        f"\nreport with plots: {out / 'report.html'}; load_app({str(out)!r}, index) serves it "
        f"({time.perf_counter() - started:.0f} s)"
    )


def _most_gained(result: CheckResult) -> None:
    """The held-out question that gained most, before and after."""
    if not result.better:
        return
    best = result.better[0]
    console.print(f"The one that gained most: “{best.question}”", markup=False, soft_wrap=True)
    for name, place in (("before", best.before), ("now", best.now)):
        found = f"at rank {place}" if place else "not among the first 10"
        console.print(f"  {name:<7} the passage that answers it is {found}")
    console.print(f"  {best.document[:160]} …", markup=False, style="dim", soft_wrap=True)
