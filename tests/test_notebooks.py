"""The notebooks are the example scripts, with what they printed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "notebooks"


def _maker():
    spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = _maker()


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def printed(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return "".join(out.get("text", "") for cell in cells for out in cell.outputs)


def test_there_are_no_others():
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == set(MAKE.NAMES)


@pytest.mark.parametrize("name", MAKE.NAMES)
def test_a_notebook_is_its_script(name):
    """`make notebooks` makes them anew."""
    made = MAKE.notebook_of(ROOT / "examples" / f"{name}.py")
    kept = read(name)
    shown = [[(c.cell_type, c.source, c.id) for c in nb.cells] for nb in (kept, made)]
    assert shown[0] == shown[1]
    assert kept.metadata == made.metadata
    nbformat.validate(kept)


@pytest.mark.parametrize("name", MAKE.NAMES)
def test_its_outputs_are_there_and_name_no_machine(name):
    notebook = read(name)
    assert printed(notebook).strip()
    assert not re.search(
        r"/(tmp|home|root|work|usr|var|Users)/|[A-Z]:\\\\", notebook_text(notebook)
    )
    kinds = {out.output_type for c in notebook.cells for out in c.get("outputs", [])}
    assert kinds == {"stream"}  # no error, no picture


def notebook_text(notebook):
    return nbformat.writes(notebook)


def test_comments_that_stand_alone_are_text(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        '"""A title\n\nWhy.\n"""\n\nimport os\n\n# A story\n# of two lines.\n\n# of the code\n'
        "x = os.sep\n\n\ndef f():\n    # inside\n\n    return x\n"
    )
    made = MAKE.notebook_of(script)
    assert [(cell.cell_type, cell.source) for cell in made.cells] == [
        ("markdown", "# A title\n\nWhy."),
        ("code", "import os"),
        ("markdown", "A story\nof two lines."),
        ("code", "# of the code\nx = os.sep\n\n\ndef f():\n    # inside\n\n    return x"),
    ]


@pytest.mark.slow  # in place of their scripts
@pytest.mark.parametrize("name", MAKE.NAMES)
def test_notebooks_run(name, tmp_path, monkeypatch):
    home, place = tmp_path / "home", tmp_path / "here"
    for folder in (home, place):
        folder.mkdir()
    monkeypatch.setenv("IPYTHONDIR", str(home))
    monkeypatch.delenv("MODEL", raising=False)
    ran = MAKE.run(MAKE.notebook_of(ROOT / "examples" / f"{name}.py"), str(place))
    assert printed(ran).strip()
    assert list(place.iterdir()) == []
