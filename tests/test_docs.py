"""Python of the README and of docs/, docstrings' examples and examples/ are run as they stand."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from llama_index.core import VectorStoreIndex

import llama_index.tuning as tuning
from tests.conftest import rotated_problem

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(tuning.__path__, "llama_index.tuning.")
    if not module.name.endswith("compat")
)


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    dataset, embed_model = rotated_problem()
    dataset.save_json(tmp_path / "questions.json")
    monkeypatch.chdir(tmp_path)
    # The app that the README speaks of.
    nodes = dataset.to_nodes()
    for node in nodes:
        node.text += " is a document of more than five words"
        embed_model.table[node.text] = embed_model.vector(dataset.corpus[node.node_id])
    dataset.corpus.update({node.node_id: node.text for node in nodes})
    dataset.save_json(tmp_path / "questions.json")
    app = {
        "embed_model": embed_model,
        "nodes": nodes,
        "index": VectorStoreIndex(nodes, embed_model=embed_model),
    }
    assert run("README.md", app) >= 4
    assert app["report"].accepted


def run(page, app, **instead):
    """Run a page's Python blocks one after the other, as a reader types them; how many."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    for block in blocks:
        for said, here in instead.items():
            block = block.replace(said, here)
        exec(compile(block, page, "exec"), app)
    return len(blocks)


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
