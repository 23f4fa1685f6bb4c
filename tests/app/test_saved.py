"""A tuned app on disk, its report, and its checks on new questions."""

import json
import os
import subprocess
import sys

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import TextNode

from llama_index.tuning import load_app, tune_app
from llama_index.tuning.app import run as app_run
from llama_index.tuning.app.ladder.choose import Stack
from llama_index.tuning.app.ladder.outcome import Outcome
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.report import AppReport
from llama_index.tuning.cli.app import run
from llama_index.tuning.errors import ArtifactError
from tests.app.conftest import WordEmbedding, nodes_of, questions_of

ASKED = [f"What does pump number {i} cost?" for i in range(0, 60, 7)]


@pytest.fixture
def app(index, questions):
    return tune_app(index, questions, run_folder=None)


def found(app):
    return [[item.node.node_id for item in app.retriever.retrieve(text)] for text in ASKED]


def test_a_loaded_app_finds_the_same(app, index, tmp_path):
    app.save(tmp_path / "tuned")
    loaded = load_app(tmp_path / "tuned", index)
    assert found(loaded) == found(app)
    assert loaded.report == app.report


def test_every_stack_survives_saving(index, questions, tmp_path, monkeypatch):
    for stack in (Stack("adapted", "tuned"), Stack("adapted", "retriever"), Stack("own", "fusion")):

        def decided(measured, asked, seed, stack=stack):
            return Outcome(stack, True, "for the test")

        with monkeypatch.context() as patch:
            patch.setattr(app_run, "decided", decided)
            patch.setattr(
                "llama_index.tuning.app.ladder.measure.served_stack", lambda _, s=stack: s
            )
            app = tune_app(index, questions, run_folder=None)
        folder = tmp_path / str(stack).replace(" ", "")
        app.save(folder)
        assert app.stack == stack
        assert found(load_app(folder, index)) == found(app)


def test_another_index_and_another_model_are_refused(app, tmp_path):
    app.save(tmp_path / "tuned")
    other = VectorStoreIndex(
        [TextNode(text=f"Nothing of it, {i}") for i in range(9)], embed_model=WordEmbedding()
    )
    with pytest.raises(ArtifactError, match="another index"):
        load_app(tmp_path / "tuned", other)
    trained = VectorStoreIndex(nodes_of(), embed_model=WordEmbedding(salt="trained again"))
    with pytest.raises(ArtifactError, match="other vectors"):
        load_app(tmp_path / "tuned", trained)
    renamed = VectorStoreIndex(nodes_of(), embed_model=WordEmbedding(model_name="other"))
    with pytest.raises(ArtifactError, match="not for 'other'"):
        load_app(tmp_path / "tuned", renamed)


def test_a_folder_that_is_no_app_is_refused(index, tmp_path):
    with pytest.raises(ArtifactError):
        load_app(tmp_path, index)


def test_the_report_survives_json_and_escapes_its_page(app, tmp_path):
    app.report.save_json(tmp_path / "r.json")
    assert AppReport.from_json(tmp_path / "r.json") == app.report
    hostile = AppReport.from_dict({**app.report.to_dict(), "notes": ["<script>alert(1)</script>"]})
    page = hostile._repr_html_()
    assert "<script>" not in page
    assert app.report.served in page


def test_new_questions_check_what_was_promised(app):
    assert app.check(questions_of(each=2)).verdict == "better"
    assert app.check(questions_of(5)).verdict == "too few"
    with pytest.raises(ValueError, match="max_loss"):
        app.check(questions_of(), max_loss=-1)


class Forgetful(BaseRetriever):
    def _retrieve(self, query_bundle):
        return []


def test_a_shown_loss_is_a_regression(app, questions):
    class Broken(TunedApp):
        def as_retriever(self, top_k=None):
            return Forgetful()

    app.__class__ = Broken
    result = app.check(questions)
    assert result.regressed
    assert "worse" in str(result)
    assert result.worse[0].now is None


def test_a_check_embeds_each_question_once(app, model, questions):
    model.texts.clear()
    app.check(questions)
    asked = [text for text in model.texts if text in set(questions.queries.values())]
    assert len(asked) <= len(questions) + 2  # whether batches embed as queries do is seen on one


def test_commands_tune_ask_check_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "llama_index.tuning.cli.tune_app.embedding_model", lambda _: WordEmbedding()
    )
    docs = tmp_path / "docs"
    docs.mkdir()
    for node in nodes_of(40):
        (docs / f"{node.node_id}.txt").write_text(node.text)
    questions = tmp_path / "q.csv"
    rows = [f"What does pump number {i} cost?,one is {3 * i + 7} euros" for i in range(40)]
    questions.write_text("\n".join(["question,answer", *rows]))
    out = str(tmp_path / "tuned")
    assert run(["app", "tune", str(docs), "--out", out, "--questions", str(questions)]) == 0
    assert "Answers found in the first 5" in capsys.readouterr().out
    assert run(["app", "ask", out, "What does pump number 5 cost?", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"before", "after"}
    assert run(["app", "check", out, "--questions", str(questions)]) == 0
    wrong = [
        [out, "--questions", str(tmp_path / "none.csv")],
        [str(tmp_path / "none"), "--questions", str(questions)],
        [out],
        [out, "--questions", str(questions), "--max-loss", "much"],
    ]
    assert [run(["app", "check", *each]) for each in wrong] == [2] * len(wrong)
    assert run(["app", "ask", out, " "]) == 1
    assert "question is empty" in capsys.readouterr().err
    assert run(["app", "report", out]) == 0
    capsys.readouterr()
    assert run(["compare", out, out, "--questions", str(questions), "--json"]) == 0
    gain = json.loads(capsys.readouterr().out)["ndcg@10"]
    assert gain["n"] == 40
    assert gain["base"] == gain["tuned"] > 0
    again = ["app", "tune", f"{out}/storage", "--out", f"{out}2", "--json"]
    assert run(again) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "stand-ins"


def test_a_terminal_without_arrows_shows_a_report(app, tmp_path):
    app.save(tmp_path / "tuned")
    code = "from llama_index.tuning.cli import main; main()"
    command = [sys.executable, "-c", code, "app", "report", str(tmp_path / "tuned")]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, capture_output=True, env=ascii_only, check=True)
    assert b"\\u2192" in shown.stdout
    shown = subprocess.run([*command, "--json"], capture_output=True, env=ascii_only, check=True)
    assert "→" in json.loads(shown.stdout)["sentence"]


def test_a_command_says_what_an_app_saved_in_python_lacks(app, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    app.save("tuned")
    (tmp_path / "other").mkdir()
    assert run(["app", "ask", "tuned", "What?"]) == 1
    assert "index.storage_context.persist('tuned/storage')" in capsys.readouterr().err
    assert run(["app", "ask", "other", "What?"]) == 1
    assert "other holds no saved component" in capsys.readouterr().err


def test_a_command_refuses_before_it_embeds_the_documents(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("llama_index.tuning.cli.tune_app._index", None)  # it would be called
    (tmp_path / "docs").mkdir()
    (tmp_path / "empty.csv").write_text("question,answer\n")
    (tmp_path / "other.csv").write_text("answer\n12 euros\n")
    (tmp_path / "q.xlsx").write_text("no workbook")
    faults = {
        "--questions empty.csv": "empty.csv has no rows",
        "--questions other.csv": "no column 'question'",
        "--questions q.xlsx": "q.xlsx is no table: ",
        "--max-seconds -1": "max_seconds must be",
        "--also nothing": "nothing",
    }
    monkeypatch.chdir(tmp_path)
    assert run(["app", "tune", "q.xlsx"]) == 1
    assert "'q.xlsx' is a file" in capsys.readouterr().err
    for arguments, message in faults.items():
        assert run(["app", "tune", "docs", *arguments.split()]) == 1
        assert message in capsys.readouterr().err
