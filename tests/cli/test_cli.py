import json
import subprocess
import sys

import pytest

from llama_index.tuning import __version__
from llama_index.tuning.cli import data as data_commands, models
from llama_index.tuning.cli.app import GROUPS, _fail, run
from llama_index.tuning.cli.tune import field_docs
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.errors import DatasetError
from tests.conftest import rotated_problem


@pytest.fixture
def files(tmp_path, monkeypatch):
    dataset, model = rotated_problem()
    train, test = dataset.split(0.3, seed=1)
    train.save_json(tmp_path / "train.json")
    test.save_json(tmp_path / "test.json")
    monkeypatch.setattr(models, "embedding_model", lambda name: model)
    return tmp_path


def test_tune_then_evaluate(files, capsys):
    out = files / "adapter"
    assert run(["adapter", "tune", str(files / "train.json"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "accepted" in shown
    assert "ndcg@10" in shown
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    command = ["adapter", "evaluate", str(files / "test.json"), "--adapter", str(out), "--json"]
    assert run(command) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["tuned"]["ndcg@10"] > scores["base"]["ndcg@10"]
    assert scores["gain_interval"]["ndcg@10"][0] > 0


def test_json_is_all_that_is_printed(files, capsys):
    command = ["adapter", "tune", str(files / "train.json"), "--out", str(files / "a"), "--json"]
    assert run(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["accepted"] is True
    assert report["data"]["labelled"]["queries"] > 100


def test_evaluate_without_an_adapter_shows_the_base(files, capsys):
    assert run(["adapter", "evaluate", str(files / "test.json")]) == 0
    assert "base" in capsys.readouterr().out


def test_engines_are_listed(capsys):
    assert run(["engines", "--json"]) == 0
    assert "embedding-adapter" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["adapter", "tune", "missing.json", "--out", "x"], "'missing.json' does not exist"),
        (["adapter", "tune", "{train}"], "Missing option '--out'"),
        (["adapter", "tune", "{train}", "--out", "x", "--lr", "1"], "No such option"),
        (["adapter", "tune", "{train}", "--out", "x", "--side", "left"], "unknown side 'left'"),
        (["adapter", "tune", "{bad}", "--out", "x"], "is not valid JSON, or is truncated"),
        (["router", "tune", "{table}", "--out", "x"], "questions convert` makes a dataset of a"),
        (["judge", "tune", "{table}", "--out", "x"], "questions convert` makes a dataset of a"),
        (["adapter", "evaluate", "{train}", "--adapter", "{folder}"], "holds no adapter"),
        (["tune"], "No such command 'tune'"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(files, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(files)
    (files / "bad.json").write_text("{")
    (files / "empty").mkdir()
    (files / "faq.csv").write_text("question,passage\nFee?,5 euros\n")
    places = {"train": "train.json", "bad": "bad.json", "folder": "empty", "table": "faq.csv"}
    assert run([argument.format(**places) for argument in arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert not (files / "x").exists()


def test_an_options_dashes_stay_in_the_error(capsys):
    assert _fail(DatasetError("--llm needs more:", ["this", "that"])) == 1
    assert capsys.readouterr().err == "error: --llm needs more: this; that\n"


@pytest.mark.parametrize("command", [[], ["reranker"]])
def test_without_arguments_it_shows_its_help_as_such(command, capsys):
    assert run(command) == 0
    shown = capsys.readouterr()
    assert "\nCommands:\n" in shown.out
    assert not shown.err


def test_the_version_is_shown(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"llama-index-tuning {__version__}\n"


def test_completion_can_be_installed(capsys):
    assert run(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(files, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_commands, "generate_qa_embedding_pairs", interrupted)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    (files / "docs").mkdir()
    (files / "docs" / "fees.md").write_text("The fee is five euros. It is due in May.")
    out = files / "made.json"
    command = ["generate", "questions", str(files / "docs"), "--out", str(out), "--llm", "any"]
    assert run(command) == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: interrupted; finished calls are kept in")
    assert f"{out}.run.jsonl: the same command goes on" in said


def test_an_options_help_and_default_are_those_of_the_options_class(capsys):
    assert run(["adapter", "tune", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"[default: {AdapterOptions().side}]" in shown
    assert field_docs(AdapterOptions)["side"][:40] in shown
    assert '"' not in field_docs(AdapterOptions)["rank"]  # code marks are for docstrings


def test_every_group_of_commands_is_found():
    for group in GROUPS:
        assert run([group, "--help"]) == 0


def test_the_command_is_installed_and_helps():
    done = subprocess.run(
        [sys.executable, "-c", "from llama_index.tuning.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    for command in ("demo", "engines", "adapter"):
        assert command in done.stdout
