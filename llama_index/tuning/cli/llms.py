"""`llm tune`; `llm jobs`: hosted jobs at OpenAI, Azure or any server with their protocol."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_index.tuning.cli import engines, tune
from llama_index.tuning.cli.common import JSON, console, keep, print_json, print_report

if TYPE_CHECKING:
    from llama_index.tuning.llms.hosted.engine import OpenAIFinetuneEngine

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
jobs_app = typer.Typer(
    help="Tune LLMs by hosted jobs: OpenAI, Azure, Nebius, any compatible server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
tune.add(app, engines.LLM)
app.add_typer(jobs_app, name="jobs")

_DATA = typer.Argument(
    help="Training file in OpenAI's format, JSON Lines.", exists=True, dir_okay=False
)
_JOB = typer.Argument(help="Id of the job.")
_URL = typer.Option(None, "--base-url", help="Server's address; OpenAI's by default.")
_KEY = typer.Option(None, help="Environment variable that holds the key; needed with --base-url.")
_AZURE = typer.Option(False, "--azure", help="Azure's client; reads AZURE_OPENAI_ENDPOINT.")

_SHOWN = (
    "id", "status", "model", "fine_tuned_model", "training_file", "validation_file",
    "trained_tokens", "created_at", "estimated_finish", "finished_at",
)  # fmt: skip


@app.command("export")
def export(
    tuned: Path = typer.Argument(help="Folder of a tuned LLM.", exists=True, file_okay=False),
    out: Path = typer.Option(..., help="Folder, or file for gguf, to write."),
    format: str = typer.Option("merged", help="merged, gguf, or ollama."),
    base_model: str | None = typer.Option(None, help="Where the model below the adapter is now."),
    converter: Path | None = typer.Option(None, help="llama.cpp's convert_hf_to_gguf.py."),
    weights: str = typer.Option("f16", help="gguf only: f32, f16, bf16 or q8_0."),
) -> None:
    """Write a tuned LLM as other servers load it: vLLM, TGI, llama.cpp, Ollama."""
    from llama_index.tuning.llms.serving.export import export_llm

    export_llm(
        tuned,
        out,
        format,  # type: ignore[arg-type]
        base_model=base_model,
        converter=converter,
        weights=weights,
    )
    console.print(f"{out} holds the tuned LLM ({format})", markup=False, soft_wrap=True)


@jobs_app.command("create")
def create(
    data: Path = _DATA,
    model: str = typer.Option(..., help="Base model's name at the server."),
    validation: Path | None = typer.Option(
        None, help="Validation file.", exists=True, dir_okay=False
    ),
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    method: str = typer.Option("supervised", help="supervised, or dpo."),
    hyperparameter: list[str] | None = typer.Option(
        None, help="NAME=VALUE, such as n_epochs=3; may be repeated."
    ),
    suffix: str | None = typer.Option(None, help="Part of the tuned model's name."),
    seed: int | None = typer.Option(None, help="The server's seed."),
    extra_body: list[str] | None = typer.Option(
        None, help="NAME=VALUE, a field of this server only; may be repeated."
    ),
    min_examples: int = typer.Option(10, help="Fewest examples."),
    price: float | None = typer.Option(None, help="Price of a million trained tokens."),
    estimate: bool = typer.Option(False, "--estimate", help="Only check and count; send nothing."),
    json: bool = JSON,
) -> None:
    """Upload a file and make a job; the same command again finds the job that it made."""
    engine = _engine(
        azure, base_url, api_key_env, model, data, method=method, suffix=suffix, seed=seed,
        hyperparameters=_pairs("--hyperparameter", hyperparameter),
        extra_body=_pairs("--extra-body", extra_body),
        validation_data=validation, min_examples=min_examples,
    )  # fmt: skip
    tokens = engine.estimate(price=price)
    if json and estimate:
        print_json(tokens.to_dict())
    if not json:
        console.print(str(tokens), markup=False)
    if not estimate:
        _show(engine.submit(), json)


@jobs_app.command("follow")
def follow(
    job: str = _JOB,
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    timeout: float = typer.Option(86_400.0, help="Seconds to wait for the end."),
    json: bool = JSON,
) -> None:
    """Wait for the end of a job and show its report; a failed one is an error."""
    keep(f"the job {job} goes on at the server: the same command follows it again")
    base = _engine(azure, base_url, api_key_env, "any", start_job_id=job).get_current_job().model
    report = _engine(
        azure, base_url, api_key_env, base, start_job_id=job, timeout=timeout,
        show_progress=not json,
    ).finetune()  # fmt: skip
    if json:
        print_json(report.to_dict())
        return
    print_report(report)
    console.print(f"tuned model: {report.data.get('tuned_model')}", markup=False, soft_wrap=True)


@jobs_app.command("status")
def status(
    job: str = _JOB,
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    json: bool = JSON,
) -> None:
    """Show a job as it is now."""
    _show(_engine(azure, base_url, api_key_env, "any", start_job_id=job).get_current_job(), json)


@jobs_app.command("cancel")
def cancel(
    job: str = _JOB,
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    json: bool = JSON,
) -> None:
    """End a job."""
    _show(_engine(azure, base_url, api_key_env, "any", start_job_id=job).cancel(), json)


def _engine(
    azure: bool, base_url: str | None, variable: str | None, model: str,
    data: Path | None = None, **options: Any,
) -> OpenAIFinetuneEngine:  # fmt: skip
    """An engine whose key comes from the environment: command lines are seen, and kept."""
    from llama_index.tuning.llms.hosted.azure import AzureOpenAIFinetuneEngine
    from llama_index.tuning.llms.hosted.engine import OpenAIFinetuneEngine

    key = os.environ.get(variable) if variable else None
    if variable and not key:
        raise ValueError(f"--api-key-env names {variable}, which is not set")
    kind = AzureOpenAIFinetuneEngine if azure else OpenAIFinetuneEngine
    return kind(model, data, base_url=base_url, api_key=key, **options)


def _show(job: Any, as_json: bool) -> None:
    shown = {name: value for name in _SHOWN if (value := getattr(job, name, None)) is not None}
    if message := getattr(getattr(job, "error", None), "message", None):
        shown["error"] = message
    if as_json:
        print_json(shown)
    for name, value in {} if as_json else shown.items():
        console.print(f"{name}: {value}", markup=False, soft_wrap=True)


def _pairs(option: str, given: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE`, the value as JSON if it is any."""
    found: dict[str, Any] = {}
    for pair in given or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"each {option} must be NAME=VALUE, got {pair!r}")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
