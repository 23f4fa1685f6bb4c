import doctest
import importlib

import pytest

MODULES = [
    "collect.recorder",
    "collect.masking",
    "collect.callbacks",
    "collect.recorded",
    "datasets.chat",
    "datasets.judgments",
    "datasets.relevance",
    "datasets.retrieval",
    "datasets.routing",
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_run(module):
    found = importlib.import_module(f"llama_index.tuning.{module}")
    result = doctest.testmod(found)
    assert result.attempted
    assert not result.failed
