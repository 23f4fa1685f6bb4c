"""`llm jobs`: hosted tuning jobs at OpenAI, Azure or any server with their protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from llama_index.tuning.cli.output import console, print_json, print_report

if TYPE_CHECKING:
    from llama_index.tuning.llms.hosted_engine import OpenAIFinetuneEngine

app = typer.Typer(
    help="Tune LLMs by hosted jobs: OpenAI, Azure, Nebius, any compatible server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DATA = typer.Argument(
    help="Training file in OpenAI's format, JSON Lines.", exists=True, dir_okay=False
)
_JOB = typer.Argument(help="Id of the job.")
_URL = typer.Option(None, "--base-url", help="Server's address; OpenAI's by default.")
_KEY = typer.Option(
    None, help="Environment variable that holds the key; needed with --base-url."
)  # fmt: skip
_AZURE = typer.Option(False, "--azure", help="Azure's client; reads AZURE_OPENAI_ENDPOINT.")
_METHOD = typer.Option("supervised", help="supervised, or dpo.")
_SETTINGS = typer.Option(
    None, "--hyperparameter", help="NAME=VALUE, such as n_epochs=3; may be repeated."
)
_PRICE = typer.Option(None, help="Price of a million trained tokens.")
_LEAST = typer.Option(10, help="Fewest examples.")
_DAY = 86_400.0
_TIMEOUT = typer.Option(_DAY, help="Seconds to wait for the end.")
_LIMIT = typer.Option(20, help="How many, the newest.")
_JSON = typer.Option(False, "--json", help="Print JSON.")

_SHOWN = (
    "id", "status", "model", "fine_tuned_model", "training_file", "validation_file",
    "trained_tokens", "created_at", "finished_at",
)  # fmt: skip


@app.command("estimate")
def estimate(
    data: Path = _DATA,
    method: str = _METHOD,
    hyperparameter: list[str] | None = _SETTINGS,
    price: float | None = _PRICE,
    min_examples: int = _LEAST,
    json: bool = _JSON,
) -> None:
    """Check a file and count its tokens; nothing is sent."""
    from llama_index.tuning.llms.hosted_engine import OpenAIFinetuneEngine

    found = OpenAIFinetuneEngine(
        "any", data, method=cast(Literal["supervised"], method), price=price,
        hyperparameters=_pairs(hyperparameter, "--hyperparameter"), min_examples=min_examples,
    ).estimate()  # fmt: skip
    print_json(found.to_dict()) if json else console.print(str(found), markup=False)


@app.command("create")
def create(
    data: Path = _DATA,
    model: str = typer.Option(..., help="Base model's name at the server."),
    validation: Path | None = typer.Option(
        None, help="Validation file.", exists=True, dir_okay=False
    ),
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    method: str = _METHOD,
    hyperparameter: list[str] | None = _SETTINGS,
    suffix: str | None = typer.Option(None, help="Part of the tuned model's name."),
    seed: int | None = typer.Option(None, help="The server's seed."),
    metadata: list[str] | None = typer.Option(None, help="NAME=TEXT; may be repeated."),
    extra_body: str | None = typer.Option(None, help="JSON object of the server's own fields."),
    price: float | None = _PRICE,
    max_cost: float | None = typer.Option(None, help="A dearer estimate sends nothing."),
    min_examples: int = _LEAST,
    state: Path | None = typer.Option(None, help="State file; DATA.job.json by default."),
    wait: bool = typer.Option(False, "--wait", help="Wait for the end."),
    timeout: float | None = typer.Option(None, help="With --wait: seconds, a day by default."),
    json: bool = _JSON,
) -> None:
    """Upload a file and make a job; the same command again finds the job that it made."""
    if timeout is not None and not wait:
        raise ValueError("without --wait nothing is waited for: --timeout needs it")
    engine = _engine(
        azure, model, data, base_url=base_url, api_key=_key(api_key_env), method=method,
        hyperparameters=_pairs(hyperparameter, "--hyperparameter"), suffix=suffix, seed=seed,
        metadata={name: str(text) for name, text in _texts(metadata, "--metadata").items()},
        extra_body=_object(extra_body), validation_data=validation, price=price,
        max_cost=max_cost, min_examples=min_examples, state_path=state,
        timeout=_DAY if timeout is None else timeout, show_progress=wait and not json,
    )  # fmt: skip
    if not json:
        console.print(str(engine.estimate()), markup=False)
    _finish(engine, json) if wait else _show(engine.submit(), json)


@app.command("wait")
def wait(
    job: str = _JOB,
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    timeout: float = _TIMEOUT,
    json: bool = _JSON,
) -> None:
    """Wait for the end of a job; a failed one is an error."""
    base = _following(job, base_url, api_key_env, azure).get_current_job().model
    engine = _engine(
        azure, base, start_job_id=job, base_url=base_url, api_key=_key(api_key_env),
        timeout=timeout, show_progress=not json,
    )  # fmt: skip
    _finish(engine, json)


@app.command("events")
def events(
    job: str = _JOB,
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    limit: int = _LIMIT,
    json: bool = _JSON,
) -> None:
    """List a job's events, the newest last."""
    found = _following(job, base_url, api_key_env, azure).events(limit)
    if json:
        print_json([event.model_dump(mode="json") for event in found])
    for event in [] if json else found:
        console.print(f"{event.level}: {event.message}", markup=False, soft_wrap=True)


@app.command("checkpoints")
def checkpoints(
    job: str = _JOB,
    base_url: str | None = _URL,
    api_key_env: str | None = _KEY,
    azure: bool = _AZURE,
    json: bool = _JSON,
) -> None:
    """List the models that a job saved on its way."""
    found = _following(job, base_url, api_key_env, azure).checkpoints()
    if json:
        print_json([checkpoint.model_dump(mode="json") for checkpoint in found])
    for item in [] if json else found:
        line = f"step {item.step_number}: {item.fine_tuned_model_checkpoint}"
        console.print(line, markup=False, soft_wrap=True)


def _showing(method: str, help: str) -> Callable[..., None]:
    """A command that shows a job as one of the engine's methods gives it."""

    def command(
        job: str = _JOB,
        base_url: str | None = _URL,
        api_key_env: str | None = _KEY,
        azure: bool = _AZURE,
        json: bool = _JSON,
    ) -> None:
        _show(getattr(_following(job, base_url, api_key_env, azure), method)(), json)

    command.__doc__ = help
    return command


app.command("status")(_showing("get_current_job", "Show a job as it is now."))
app.command("cancel")(_showing("cancel", "End a job."))
app.command("pause")(_showing("pause", "Hold a job."))
app.command("resume")(_showing("resume", "Let a paused job go on."))


def _engine(azure: bool, model: str, data: Path | None = None, **options: Any) -> Any:
    from llama_index.tuning.llms.hosted_azure import AzureOpenAIFinetuneEngine
    from llama_index.tuning.llms.hosted_engine import OpenAIFinetuneEngine

    return (AzureOpenAIFinetuneEngine if azure else OpenAIFinetuneEngine)(model, data, **options)


def _following(
    job: str, base_url: str | None, api_key_env: str | None, azure: bool
) -> OpenAIFinetuneEngine:
    key = _key(api_key_env)
    engine: OpenAIFinetuneEngine = _engine(
        azure, "any", start_job_id=job, base_url=base_url, api_key=key
    )
    return engine


def _key(variable: str | None) -> str | None:
    """A key comes from the environment alone: command lines are seen by others, and kept."""
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ValueError(f"--api-key-env names {variable}, which is not set")
    return key


def _finish(engine: OpenAIFinetuneEngine, as_json: bool) -> None:
    report = engine.finetune()
    if as_json:
        print_json(report.to_dict())
        return
    print_report(report)
    console.print(f"tuned model: {report.data.get('tuned_model')}", markup=False, soft_wrap=True)


def _show(job: Any, as_json: bool) -> None:
    shown = {name: value for name in _SHOWN if (value := getattr(job, name, None)) is not None}
    error = getattr(job, "error", None)
    if error is not None and getattr(error, "message", None):
        shown["error"] = error.message
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        console.print(f"{name}: {value}", markup=False, soft_wrap=True)


def _pairs(given: list[str] | None, option: str) -> dict[str, Any]:
    """`NAME=VALUE`, the value as JSON where it is any."""
    found: dict[str, Any] = {}
    for name, text in _texts(given, option).items():
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _texts(given: list[str] | None, option: str) -> dict[str, str]:
    found = {}
    for pair in given or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"each {option} must be NAME=VALUE, got {pair!r}")
        found[name] = text
    return found


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as exc:
        raise ValueError(f"the value of --extra-body is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ValueError(
            f"the value of --extra-body must be a JSON object, got {type(value).__name__}"
        )
    return value
