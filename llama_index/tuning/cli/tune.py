"""A command that tunes, from one row of the table in `engines.py`.

Options of an engine are read from its options class: name, default, and the sentence under the
field as the help.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from llama_index.tuning.cli import common

if TYPE_CHECKING:
    from llama_index.tuning.report import FinetuneReport

Given = Mapping[str, Any]
"""The command's arguments by name."""


@dataclass(frozen=True)
class Tune:
    """One command.

    Attributes:
        command: its name.
        help: what it does, and how OUT loads.
        engine: `module:class` of this package.
        options: `module:class` of this package.
        fields: of the options class, each an option of the command.
        parameters: the command's other arguments: name → (type, typer's description).
        load: the arguments → what the engine is called with.
        what: the name of what is tuned, for the last line.
        kept: what an interrupted run leaves, and how to go on; `{out}` is the folder.
        flags: field → flag, if they differ.
    """

    command: str
    help: str
    engine: str
    options: str
    fields: tuple[str, ...]
    parameters: Mapping[str, tuple[Any, Any]]
    load: Callable[[Given], dict[str, Any]]
    what: str
    kept: str = "nothing was written to {out}; vectors are kept if --vector-cache names a file"
    flags: Mapping[str, str] | None = None


def add(app: typer.Typer, row: Tune) -> None:
    """Make the command of a row."""
    kind = _named(row.options)
    flags = {name: (row.flags or {}).get(name, name) for name in row.fields}
    described = {flags[name]: option for name, option in _options(kind, row.fields).items()}
    parameters = {**row.parameters, **described, **row.parameters, "accept": (str, common.ACCEPT)}
    parameters["json"] = (bool, common.JSON)

    def command(**given: Any) -> None:
        _run(row, kind, flags, given)

    command.__doc__ = row.help
    command.__annotations__ = {name: kind for name, (kind, _) in parameters.items()}
    signature = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in parameters.items()
    ]
    command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    app.command(row.command)(command)


def _run(row: Tune, kind: type[Any], flags: Mapping[str, str], given: dict[str, Any]) -> None:
    from llama_index.tuning.artifacts import check_writable
    from llama_index.tuning.gate import check_accept

    out, json = given["out"], given["json"]
    options = kind(**{name: _plain(kind, name, given[flag]) for name, flag in flags.items()})
    check_accept(given["accept"])
    check_writable(out)
    common.keep(row.kept.format(out=out))
    engine = _named(row.engine)(
        **row.load(given),
        options=options,
        model_output_path=out,
        accept=given["accept"],
        show_progress=not json,
    )
    if given.get("preflight"):
        ready = engine.preflight()
        common.show(str(ready), ready.to_dict(), json)
        return
    report: FinetuneReport = engine.finetune()
    report.save_html(out / "report.html")
    common.show_report(report, json, [*_figures(report), _where(row.what, out, report)])


def _where(what: str, out: Path, report: FinetuneReport) -> str:
    """What the run left in which folder."""
    inside = "report.json and report.html in it"
    if report.accepted:
        return f"saved to {out} ({inside})"
    return f"{out} holds the base or a note of it; the refused {what} lies in candidate/ ({inside})"


def _figures(report: Any) -> list[str]:
    """The figures that only some reports have, a line each."""
    lines = getattr(report, "summary_lines", None)
    if lines is not None:
        return list(lines())
    return [f"{name:<22}{value:.4f}" for name, value in getattr(report, "summary", {}).items()]


def _named(name: str) -> Any:
    module, attribute = name.split(":")
    return getattr(import_module(f"llama_index.tuning.{module}"), attribute)


def _options(kind: type[Any], names: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Name → (type, typer's description) of fields of an options class."""
    hints, docs = get_type_hints(kind), field_docs(kind)
    defaults = {field.name: field.default for field in fields(kind)}
    found = {}
    for name in names:
        default = defaults[name]
        assert default is not MISSING, f"{kind.__name__}.{name} needs a default"
        annotation = _annotation(hints[name])
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        text = docs[name]
        if get_origin(hints[name]) is tuple:  # written with commas alone
            text = re.sub(r"\(([\d., ]+)\)", lambda m: m[1].replace(" ", ""), text)
        found[name] = (annotation, typer.Option(default, help=text))
    return found


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Field → the text under it in the class, as plain words."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, doc in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            constant = doc.value if isinstance(doc, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                text = " ".join(constant.value.split())
                spans = re.compile("`([^`]*)`")
                found[field.target.id] = spans.sub(lambda m: m[1].replace('"', ""), text)
    return found


def _annotation(hint: Any) -> Any:
    """The type of the command's option: choices and lists are text, which the library checks."""
    if get_origin(hint) is Literal:
        return str
    if get_origin(hint) is tuple:
        return str
    if get_origin(hint) in (Union, UnionType):
        kinds = [_annotation(part) for part in get_args(hint) if part is not type(None)]
        return kinds[0] | None if len(kinds) < len(get_args(hint)) else str
    return hint


def _plain(kind: type[Any], name: str, value: Any) -> Any:
    """The value of a field; of a list of numbers, from its commas."""
    hint = get_type_hints(kind)[name]
    if get_origin(hint) is not tuple or not isinstance(value, str):
        return value
    part = get_args(hint)[0]
    try:
        return tuple(part(text) for text in value.split(",") if text.strip())
    except ValueError:
        wanted = "numbers" if part in (int, float) else "words"
        raise ValueError(f"{name} must be {wanted} with commas between, got {value!r}") from None
