import json

import pytest
from typer.testing import CliRunner

from llama_index.tuning.cli import router
from tests.routers.conftest import world


@pytest.fixture
def files(tmp_path, monkeypatch):
    dataset, model = world()
    monkeypatch.setattr(router, "embedding_model", lambda name: model)
    dataset.save_jsonl(tmp_path / "train.jsonl", tmp_path / "labels.json")
    return tmp_path


def run(*arguments):
    done = CliRunner().invoke(router.app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_tune_evaluate_and_route(files):
    out = files / "router"
    assert "accepted" in run("tune", files / "train.jsonl", "--out", out)
    assert {"report.json", "report.html", "tuning.json"} <= {p.name for p in out.iterdir()}
    measured = json.loads(run("evaluate", files / "train.jsonl", "--router", out, "--json")[-2000:])
    assert measured["exact"] > 0.9
    assert "orders" in run("route", "orders question 3", "--router", out)
    found = json.loads(run("route", "orders question 3", "--router", out, "--json"))
    assert found["names"][0] == "orders"
