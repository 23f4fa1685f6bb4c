"""All commands, and how their errors are shown."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import typer

from llama_index.tuning import __version__
from llama_index.tuning.cli import demo, tune_app
from llama_index.tuning.cli.common import JSON, console, kept, print_json
from llama_index.tuning.errors import TuningError
from llama_index.tuning.registry import list_engines

NAME = "llama-index-tuning"
GROUPS = {
    "adapter": ("components:adapter_app", "Tune and measure embedding adapters."),
    "app": (
        "tune_app:app",
        "Tune a whole app: retriever, BM25, re-ranker and adapter, whatever is shown to gain.",
    ),
    "collect": ("data:collect_app", "Look at recorded traffic, and export it."),
    "embeddings": (
        "components:embeddings_app",
        "Tune an embedding model's own weights; serve a new model on an old one's vectors.",
    ),
    "generate": ("data:generate_app", "Generate training data from documents."),
    "judge": ("judge:app", "Label answers by a large LLM, tune and measure judges."),
    "llm": ("llms:app", "Tune LLMs, on this machine or by hosted jobs."),
    "questions": ("data:questions_app", "Files of questions that people write."),
    "reranker": (
        "components:reranker_app",
        "Tune and measure re-rankers: light ones, and cross-encoders.",
    ),
    "router": ("components:router_app", "Tune, measure and ask routers."),
    "scale": ("scale.commands:app", "Work through folders of millions of rows, here or on Ray."),
}
"""Group of commands → where it is, and its help. Only the group that is asked for is imported."""
EPILOG = (
    "Exit status: 0 if the command did its work (also if the gate kept the base: the last line "
    "names the folders), 1 for an error (2 of `app check`), 130 if interrupted."
)
WRONG_INPUT = 2
"""Exit status of `app check` where it could not check."""
INTERRUPTED = 130
"""Exit status after Ctrl-C; newer versions of typer return it too."""


def commands(group: str | None) -> typer.Typer:
    """All groups by name and help, and the commands of one."""
    app = typer.Typer(
        name=NAME,
        help="Tune the parts of a LlamaIndex app on your own data.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_main)
    app.command("demo")(demo.demo)
    app.command("compare")(tune_app.compare)
    app.command("engines")(engines)
    for name, (place, text) in GROUPS.items():
        found = typer.Typer()
        if name == group:
            module, attribute = place.split(":")
            found = getattr(import_module(f"llama_index.tuning.cli.{module}"), attribute)
        app.add_typer(found, name=name, help=text, no_args_is_help=True)
    return app


def engines(json: bool = JSON) -> None:
    """List the engines that are installed."""
    names = list_engines()
    if json:
        print_json(names)
    else:
        console.print("\n".join(names))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    warnings.showwarning = _show_warning
    typed = list(arguments) or os.environ.get("COMP_WORDS", "").split()[1:]  # shell completion
    app = commands(next((word for word in typed if not word.startswith("-")), None))
    # Of a check in CI 1 says that something was lost: that must not be a path with a typo.
    wrong = WRONG_INPUT if typed[:2] == ["app", "check"] else 1
    try:
        code = app(args=list(arguments), prog_name=NAME, standalone_mode=False)
    except (TuningError, ValueError, TypeError, OSError, ImportError) as exc:
        return _fail(exc, wrong)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as exc:
        message = getattr(exc, "format_message", None)  # click's own: unknown option, …
        if message is None:
            raise
        if type(exc).__name__ != "NoArgsIsHelpError":
            return _fail(message(), wrong)
        print(message())  # the help, asked for by a command without arguments
        return 0
    return _interrupted() if code == INTERRUPTED else int(code or 0)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"{NAME} {__version__}")
        raise typer.Exit


def _main(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", is_eager=True, callback=_version
    ),
) -> None: ...


def _interrupted() -> int:
    left = f"; {kept()}" if kept() else ""
    print(f"error: interrupted{left}", file=sys.stderr)
    return INTERRUPTED


def _fail(error: object, status: int = 1) -> int:
    if os.environ.get("LLAMA_INDEX_TUNING_DEBUG") and isinstance(error, BaseException):
        raise error
    lines = (line.strip().removeprefix("- ") for line in str(error).splitlines())
    text = "; ".join(filter(None, lines)).replace(":; ", ": ")
    print(f"error: {text or type(error).__name__}", file=sys.stderr)
    return status


def _show_warning(message: object, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
