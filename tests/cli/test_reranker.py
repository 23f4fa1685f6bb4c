import json

import pytest

from llama_index.tuning import LightReranker, TunedReranker, load_reranker
from llama_index.tuning.cli import models
from llama_index.tuning.cli.app import run
from llama_index.tuning.text.words import Analyzer

from ..conftest import TableEmbedding
from ..rerankers.conftest import shop
from ..tiny_bert import save_tiny_bert


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "embedding_model", lambda _: TableEmbedding())
    shop().save_json(tmp_path / "data.json")
    return tmp_path


@pytest.mark.filterwarnings("default:the light re-ranker has learnt")
def test_tune_saves_a_reranker_that_evaluate_measures(files, capsys):
    data, out = str(files / "data.json"), files / "out"
    assert run(["reranker", "tune", data, "--out", str(out), "--depth", "10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["gains"]["ndcg@10"]["tuned"] > 0.5
    assert LightReranker.load(out)
    assert (out / "report.html").exists()
    assert run(["reranker", "evaluate", data, "--reranker", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    assert "has learnt 80 of these 80 questions" in shown.err
    measured = json.loads(shown.out)
    assert measured["re-ranked"]["ndcg@10"] > measured["retriever"]["ndcg@10"]


@pytest.mark.filterwarnings("default:the light re-ranker has learnt")
def test_a_cross_encoder_is_tuned_and_measured(files, capsys):
    base = save_tiny_bert(files / "tiny", [*shop().corpus.values(), *shop().queries.values()])
    data, out = str(files / "data.json"), files / "out"
    command = ["reranker", "tune-cross-encoder", data, "--out", str(out), "--cross-encoder", base]
    assert run([*command, "--depth", "5", "--epochs", "1", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "holds the base" in printed  # it learnt nothing in so few steps
    assert (out / "report.html").exists()
    assert isinstance(load_reranker(out), LightReranker)
    assert isinstance(load_reranker(out / "candidate"), TunedReranker)
    assert run(["reranker", "evaluate", data, "--reranker", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    assert "re-ranked" in json.loads(shown.out)
    assert "has learnt 48 of these 80 questions" in shown.err  # the light one that was kept
    assert run([*command, "--loss", "hinge"]) == 1
    assert "unknown loss 'hinge'" in capsys.readouterr().err


def test_tables_are_printed_without_json(files, capsys):
    assert run(["reranker", "evaluate", str(files / "data.json")]) == 0
    printed = capsys.readouterr().out
    assert "fusion" in printed
    assert "re-ranked" in printed


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--language", "x", "unknown language 'x'"),
        ("--depth", "1", "depth"),
        ("--seed", "-1", "seed must be a whole number >= 0, got -1"),
        ("--accept", "maybe", "unknown accept 'maybe'"),
    ],
)
@pytest.mark.parametrize("name", ["tune", "tune-cross-encoder"])
def test_a_wrong_option_is_one_line_before_any_work(
    files, capsys, monkeypatch, name, option, value, message
):
    monkeypatch.setattr(models, "embedding_model", None)  # not to be reached
    data = str(files / "data.json")
    assert run(["reranker", name, data, "--out", str(files / "o"), option, value]) == 1
    assert message in capsys.readouterr().err


def test_a_reranker_with_its_own_stop_words_is_evaluated(files, capsys):
    LightReranker(analyzer=Analyzer("english", stop_words=["what"])).save(files / "r")
    data = str(files / "data.json")
    assert run(["reranker", "evaluate", data, "--reranker", str(files / "r"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 80
