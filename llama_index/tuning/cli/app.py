"""All commands, and how their errors are shown."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import typer

from llama_index.tuning.cli import (
    adapter,
    compare,
    demo,
    embeddings,
    judge,
    llms as llm,
    questions,
    rerankers as reranker,
    router,
    tune_app,
)
from llama_index.tuning.cli.common import console, print_json
from llama_index.tuning.cli.data import collect_app, generate_app
from llama_index.tuning.errors import TuningError
from llama_index.tuning.registry import list_engines

app = typer.Typer(
    name="llama-index-tuning",
    help="Tune the parts of a LlamaIndex app on your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("compare")(compare.compare)
app.add_typer(tune_app.app, name="app")
app.add_typer(adapter.app, name="adapter")
app.add_typer(embeddings.app, name="embeddings")
app.add_typer(generate_app, name="generate")
app.add_typer(collect_app, name="collect")
app.add_typer(judge.app, name="judge")
app.add_typer(llm.app, name="llm")
app.add_typer(questions.app, name="questions")
app.add_typer(reranker.app, name="reranker")
app.add_typer(router.app, name="router")


@app.command("engines")
def engines(json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """List the engines that are installed."""
    names = list_engines()
    if json:
        print_json(names)
    else:
        console.print("\n".join(names))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    warnings.showwarning = _show_warning
    try:
        code = app(args=list(arguments), standalone_mode=False)
    except (TuningError, ValueError, TypeError, OSError, ImportError) as exc:
        return _fail(exc)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except Exception as exc:
        message = getattr(exc, "format_message", None)  # click's own: unknown option, …
        if message is None:
            raise
        if type(exc).__name__ != "NoArgsIsHelpError":
            return _fail(message())
        print(message())  # the help, asked for by a command without arguments
        return 0
    return int(code or 0)


def _fail(error: object) -> int:
    if os.environ.get("LLAMA_INDEX_TUNING_DEBUG") and isinstance(error, BaseException):
        raise error
    lines = (line.strip().removeprefix("- ") for line in str(error).splitlines())
    text = "; ".join(filter(None, lines))
    print(f"error: {text or type(error).__name__}", file=sys.stderr)
    return 1


def _show_warning(message: object, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
