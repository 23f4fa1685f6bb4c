"""`llm`: tune LLMs."""

from __future__ import annotations

import typer

from llama_index.tuning.cli import llm_jobs, llm_tune

app = typer.Typer(help="Tune LLMs.", no_args_is_help=True, rich_markup_mode=None)
app.command("tune")(llm_tune.tune)
app.add_typer(llm_jobs.app, name="jobs")
