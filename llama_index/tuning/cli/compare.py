"""`compare`."""

from __future__ import annotations

from pathlib import Path

import typer

RUN = typer.Argument(help="A report.json, or the folder of a component or an app.", exists=True)


def compare(one: Path = RUN, other: Path = RUN) -> None:
    """Two saved runs side by side: what they were, what they gained, on what."""
    from llama_index.tuning.pages.compare import compare_reports

    print(compare_reports(one, other))
