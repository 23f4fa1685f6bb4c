"""`llm`: tune LLMs.

`llm tune`: tune an LLM on this machine.

LLMs by name, for the command line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_index.tuning.cli import llm_jobs
from llama_index.tuning.cli.common import console, print_json, show_report
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import MissingExtraError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from llama_index.tuning.llms.local.preflight import PreflightReport


_DATA = typer.Argument(
    help="Conversations, JSON Lines: OpenAI's, TRL's or ShareGPT's format.",
    exists=True,
    dir_okay=False,
)


def tune(
    data: Path = _DATA,
    model: str = typer.Option(..., help="Chat model: a folder, or a name of the hub."),
    out: Path = typer.Option(..., help="Folder for the tuned LLM."),
    validation: Path | None = typer.Option(
        None,
        help="Conversations to measure on; a share of DATA without.",
        exists=True,
        dir_okay=False,
    ),
    method: str = typer.Option("sft", help="sft, or dpo for preferences."),
    weights: str = typer.Option("lora", help="lora, or full."),
    lora_rank: int = typer.Option(16, help="Rank of the updates."),
    learning_rate: float | None = typer.Option(None, help="Peak; a usual one by default."),
    epochs: float = typer.Option(3.0, help="Passes over the conversations."),
    max_steps: int = typer.Option(-1, help="Stop after so many steps; -1: no limit."),
    batch_size: int = typer.Option(8, help="Conversations a step and device."),
    gradient_accumulation: int = typer.Option(1, help="Batches that a step adds up."),
    max_length: int | None = typer.Option(None, help="Tokens; the model's limit by default."),
    too_long: str = typer.Option("error", help="error, or drop: longer ones are left out."),
    quantize: str | None = typer.Option(None, help="4bit: load frozen weights in NF4."),
    merge: bool = typer.Option(False, help="Save merged weights beside the adapter."),
    device: str | None = typer.Option(None, help="cpu; a GPU where there is one by default."),
    resume: bool = typer.Option(True, help="Go on where this very run was stopped."),
    accept: str = typer.Option("gain", help="gain, or always: skip the gate."),
    seed: int = typer.Option(0, help="Seed of the run."),
    preflight: bool = typer.Option(False, "--preflight", help="Only say what would be done."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Tune a chat model; the folder OUT loads with TunedHuggingFaceLLM.load(OUT)."""
    from llama_index.tuning.llms.local.engine import HuggingFaceFinetuneEngine
    from llama_index.tuning.llms.local.options import HuggingFaceOptions

    options: dict[str, Any] = {
        "method": method,
        "weights": weights,
        "lora_rank": lora_rank,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "gradient_accumulation": gradient_accumulation,
        "max_length": max_length,
        "too_long": too_long,
        "quantize": quantize,
        "merge": merge,
        "device": device,
        "resume": resume,
        "seed": seed,
    }
    engine = HuggingFaceFinetuneEngine(
        ChatDataset.from_jsonl(data),
        model,
        model_output_path=out,
        val_dataset=ChatDataset.from_jsonl(validation) if validation else None,
        options=HuggingFaceOptions(**options),
        accept=accept,  # type: ignore[arg-type]
        show_progress=not json and not preflight,
    )
    if preflight:
        _print_preflight(engine.preflight(), json)
        return
    report = engine.finetune()
    report.save_html(out / "report.html")
    show_report(report, json, [f"saved to {out} (report.json and report.html beside it)"])


def _print_preflight(ready: PreflightReport, json: bool) -> None:
    print_json(ready.to_dict()) if json else console.print(str(ready), markup=False, soft_wrap=True)


app = typer.Typer(help="Tune LLMs.", no_args_is_help=True, rich_markup_mode=None)
app.command("tune")(tune)
app.add_typer(llm_jobs.app, name="jobs")


HELP = "Model name at OpenAI, or at the server of --api-base; the key is read from OPENAI_API_KEY."


def language_model(name: str, api_base: str | None, *, temperature: float = 0.7) -> LLM:
    """The LLM that `--llm` and `--api-base` name; retries are left to the caller."""
    try:
        from llama_index.llms.openai_like import OpenAILike
    except ImportError as exc:
        raise MissingExtraError("--llm", "llama-index-llms-openai-like", "openai") from exc
    key = os.environ.get("OPENAI_API_KEY")
    if api_base is None and not key:
        raise ValueError("--llm needs OPENAI_API_KEY in the environment, or --api-base")
    return OpenAILike(
        model=name,
        api_base=api_base or "https://api.openai.com/v1",
        api_key=key or "none",
        is_chat_model=True,
        max_retries=0,
        timeout=120.0,
        temperature=temperature,
    )
