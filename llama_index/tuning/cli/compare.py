"""`compare`."""

from __future__ import annotations

from pathlib import Path

import typer

from llama_index.tuning.cli.common import JSON, MODEL

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
        from llama_index.tuning.cli.tune_app import compare_on

        compare_on(one, other, questions, model, json=json)
        return
    if json:
        raise typer.BadParameter("--json needs --questions; the reports themselves are JSON")
    from llama_index.tuning.pages.compare import compare_reports

    print(compare_reports(one, other))
