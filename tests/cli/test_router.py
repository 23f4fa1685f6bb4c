import json

import numpy as np
import pytest
from typer.testing import CliRunner

from llama_index.tuning.cli import components, models
from llama_index.tuning.cli.app import run as command
from tests.conftest import TableEmbedding
from tests.routers.conftest import world


@pytest.fixture
def files(tmp_path, monkeypatch):
    dataset, model = world()
    monkeypatch.setattr(models, "embedding_model", lambda name: model)
    dataset.save_jsonl(tmp_path / "train.jsonl", tmp_path / "labels.json")
    return tmp_path


def run(*arguments):
    done = CliRunner().invoke(
        components.router_app, list(map(str, arguments)), catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_tune_evaluate_and_route(files):
    out = files / "router"
    assert "accepted" in run("tune", files / "train.jsonl", "--out", out)
    assert {"report.json", "report.html", "tuning.json"} <= {p.name for p in out.iterdir()}
    with pytest.warns(UserWarning, match="router has learnt 48 of these 48 questions"):
        told = run("evaluate", files / "train.jsonl", "--router", out, "--json")
    measured = json.loads(told[-2000:])
    assert measured["exact"] > 0.9
    assert "orders" in run("route", "orders question 3", "--router", out)
    found = json.loads(run("route", "orders question 3", "--router", out, "--json"))
    assert found["names"][0] == "orders"


def test_after_a_refusal_the_folder_says_so_and_where_the_router_lies(files, monkeypatch, capsys):
    monkeypatch.setattr(models, "embedding_model", lambda name: TableEmbedding({}, dim=8))
    rows = [json.loads(line) for line in (files / "train.jsonl").read_text().splitlines()]
    drawn = np.random.default_rng(1).permutation([row["label"] for row in rows]).tolist()
    data, out = str(files / "shuffled.jsonl"), files / "router"
    lines = [json.dumps({**row, "label": name}) for row, name in zip(rows, drawn, strict=True)]
    (files / "shuffled.jsonl").write_text("\n".join(lines))
    assert command(["router", "tune", data, "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "base kept" in printed
    assert "the refused router lies in candidate/" in printed
    assert {"report.json", "report.html", "tuning.json", "candidate"} <= {
        path.name for path in out.iterdir()
    }
    assert command(["router", "route", "anything", "--router", str(out)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the base selector is kept" in said
    assert "candidate" in said
    assert command(["router", "route", "anything", "--router", str(out / "candidate")]) == 0


def test_a_wrong_option_is_one_line_before_any_work(files, monkeypatch, capsys):
    data = str(files / "train.jsonl")
    for option, value, words in (
        ("--accept", "maybe", "unknown accept 'maybe'"),
        ("--seed", "-1", "seed must be a whole number"),
    ):
        assert command(["router", "tune", data, "--out", str(files / "o"), option, value]) == 1
        assert words in capsys.readouterr().err
    assert not (files / "o").exists()
