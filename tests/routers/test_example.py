import runpy
from pathlib import Path

import pytest
from llama_index.core import Settings

from tests.conftest import TableEmbedding

EXAMPLE = Path(__file__).parents[2] / "examples" / "router_query_engine.py"


@pytest.fixture(autouse=True)
def settings_of_others_stay():
    kept = Settings._llm, Settings._embed_model
    yield
    Settings._llm, Settings._embed_model = kept


def test_the_example_tunes_a_router_over_indexes_and_answers(capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    assert main(TableEmbedding(dim=16)) in {"billing", "shipping", "accounts"}
    assert "probability" in capsys.readouterr().out
