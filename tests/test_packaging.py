"""What pyproject.toml says of the package agrees with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llama_index.tuning as tuning
from llama_index.tuning import get_engine, list_engines

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
APART = {"all", "finetuning"}  # the old package keeps LlamaIndex's current OpenAI LLM away


def test_the_extra_all_holds_every_other_one():
    (all_,) = EXTRAS["all"]
    assert set(re.search(r"\[(.*)\]", all_)[1].split(",")) == set(EXTRAS) - APART


def test_llamahub_finds_the_classes():
    hub = PROJECT["tool"]["llamahub"]
    assert hub["import_path"] == tuning.__name__
    named = hub["class_authors"]
    assert list(named) == sorted(named, key=str.lower)
    assert set(named) <= set(tuning.__all__)
    ours = [get_engine(name) for name in list_engines()]  # other tests register toys
    ours = [engine for engine in ours if engine.__module__.startswith(tuning.__name__)]
    assert {engine.__name__ for engine in ours} <= set(named)
    assert hub["contains_example"] == bool(list((ROOT / "examples").glob("*.py")))


def test_the_package_index_shows_the_addresses():
    named = PROJECT["project"]["urls"]
    assert named.keys() == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert all(url.startswith("https://") for url in named.values())


def test_the_source_distribution_holds_docs_and_examples_and_nothing_made():
    sdist = pytest.importorskip("hatchling.builders.sdist")
    files = {
        file.distribution_path for file in sdist.SdistBuilder(str(ROOT)).recurse_included_files()
    }
    for folder, kind in {"docs": "md", "examples": "py", "tests": "py", "benchmarks": "py"}.items():
        assert {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).glob(f"*.{kind}")} <= files
    made = [f for f in files if f.startswith((".venv", "dist", "site/")) or "__pycache__" in f]
    assert made == []
