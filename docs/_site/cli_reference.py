"""The command line's page, from the commands themselves: it cannot say what they do not do."""

from __future__ import annotations

from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from llama_index.tuning.cli.app import EPILOG, GROUPS, NAME, commands

PAGE = "reference/cli.md"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the page to the site."""
    files.append(File.generated(config, PAGE, content=page()))


def page() -> str:
    """Markdown of all commands: what each does, its usage, arguments and options."""
    parts = [
        "---\ndescription: Every command with its arguments and options.\n---\n# Command line",
        f"```console\npip install 'llama-index-tuning[cli]'\n{NAME} --help\n```",
        EPILOG,
        f"`{NAME} --install-completion` sets up your shell's completion.",
    ]
    top = _command(None)
    for name in sorted(top.commands):
        if name in GROUPS:
            group = _command(name).commands[name]
            parts.append(f"## {name}\n\n{group.help}")
            parts += [
                _described(f"{name} {sub}", command, "###")
                for sub, command in sorted(group.commands.items())
                if not hasattr(command, "commands")
            ]
            for sub, inner in sorted(group.commands.items()):
                for last, command in sorted(getattr(inner, "commands", {}).items()):
                    parts.append(_described(f"{name} {sub} {last}", command, "###"))
        else:
            parts.append(_described(name, top.commands[name], "##"))
    return "\n\n".join(parts) + "\n"


def _command(group: str | None) -> Any:
    return typer.main.get_command(commands(group))


def _described(words: str, command: Any, heading: str) -> str:
    context = command.make_context(f"{NAME} {words}", [], resilient_parsing=True)
    usage = command.get_usage(context).removeprefix("Usage: ")
    records = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [
        f"| `{_cell(left)}` | {_cell(_escaped(' '.join(right.split())))} |"
        for left, right in filter(None, records)
        if left != "--help"
    ]
    text = "\n\n".join(_escaped(part) for part in (command.help or "").strip().split("\n\n"))
    table = "\n".join(["| | |", "| --- | --- |", *rows]) if rows else ""
    return "\n\n".join(filter(None, [f"{heading} {words}", text, f"```text\n{usage}\n```", table]))


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _escaped(text: str) -> str:
    """Brackets of defaults are no links, and angle brackets no HTML."""
    return text.replace("[", r"\[").replace("<", "&lt;").replace("*", r"\*")
