"""Pages of the API, one a room: what each room hands out, by the docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2] / "llama_index" / "tuning"
PACKAGE = "llama_index.tuning"
ROOMS = {
    "app": ["app"],
    "embeddings": ["embeddings"],
    "rerankers": ["rerankers"],
    "routers": ["routers"],
    "judges": ["judges"],
    "llms": ["llms"],
    "collect": ["collect"],
    "generate": ["generate"],
    "datasets": ["datasets"],
    "evaluate": ["evaluate"],
    "scale": ["scale"],
    "asking": ["asking"],
    "testing": ["testing"],
    "parts": ["text", "vectors", "demo"],
}
"""Page → the rooms on it."""
SPINE = ("errors", "report", "gate", "base", "registry")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add a page for each room, one for the spine, and the list of the package's names."""
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))


def pages() -> dict[str, str]:
    """Name of a page → its Markdown."""
    found = {page: _room_page(rooms) for page, rooms in ROOMS.items()}
    found["spine"] = _spine()
    found["index"] = _names()
    return found


def public(room: str) -> dict[str, str]:
    """Name that a room hands out → the module that holds it."""
    base = f"{PACKAGE}.{room}" if room else PACKAGE
    names = {}
    for node in ast.parse((ROOT / room / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{base}.{node.module}"
    return names


def _room_page(rooms: list[str]) -> str:
    title = ", ".join(rooms)
    parts = [f"---\ndescription: What {title} hands out.\n---\n# {title}"]
    for room in rooms:
        parts.append(_opening(room))
        for name, module in sorted(public(room).items()):
            parts.append(f"::: {module}.{name}")
    return "\n\n".join(parts) + "\n"


def _opening(room: str) -> str:
    module = ast.parse((ROOT / room / "__init__.py").read_text())
    said = (ast.get_docstring(module) or "").split("\n\n")[0].replace("\n", " ")
    return f"{said}\n\n```python\nfrom {PACKAGE}.{room} import …\n```"


def _spine() -> str:
    parts = [
        "---\ndescription: What every engine shares - errors, report, gate, base classes.\n---",
        "# Errors, reports, the engines' spine",
    ]
    for module in SPINE:
        parts.append(
            f"::: {PACKAGE}.{module}\n    options:\n      show_root_full_path: true\n"
            "      heading_level: 2"
        )
    return "\n\n".join(parts) + "\n"


def _names() -> str:
    """What `from llama_index.tuning import …` gives, by room."""
    parts = [
        "---\ndescription: The names of the package, by room.\n---\n# The package",
        f"`from {PACKAGE} import …` gives these; the rest is in the rooms. They load on first use.",
        "| name | room |\n| --- | --- |",
    ]
    rows = [f"| {_link(name, module)} |" for name, module in sorted(public("").items())]
    return "\n\n".join(parts) + "\n" + "\n".join(rows) + "\n"


def _link(name: str, module: str) -> str:
    room = module.removeprefix(f"{PACKAGE}.").split(".")[0]
    for page in _pages_of(room):
        if name in public(room):
            return f"[`{name}`]({page}.md#{public(room)[name]}.{name}) | `{room}`"
    if room in SPINE:
        return f"[`{name}`](spine.md#{module}.{name}) | `{room}`"
    return f"`{name}` | `{room}`"


def _pages_of(room: str) -> Iterator[str]:
    return (page for page, rooms in ROOMS.items() if room in rooms)
