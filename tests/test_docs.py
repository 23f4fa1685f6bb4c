"""Docstrings' examples and examples/ are run as they stand; pages, in tests/docs."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import llama_index.tuning as tuning

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(tuning.__path__, "llama_index.tuning.")
    if not module.name.endswith("compat")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


NOTEBOOKS = {path.stem for path in ROOT.glob("examples/notebooks/*.ipynb")}  # test_notebooks.py
SCRIPTS = [path for path in sorted(ROOT.glob("examples/*.py")) if path.stem not in NOTEBOOKS]


@pytest.mark.slow  # they embed with MiniLM: minutes; CI runs them
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_examples_run(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == []
