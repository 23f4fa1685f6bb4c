"""`llama-index-tuning scale`: the same jobs from a shell."""

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from llama_index.tuning import JudgeFinetuneEngine, LightReranker
from llama_index.tuning.cli.app import commands, run
from llama_index.tuning.judges import JudgeOptions
from tests.generate.scripted import WordEmbedding
from tests.servers import ChatServer


@pytest.fixture
def folder(tmp_path):
    rows = [{"key": f"d{i}", "text": f"The price of subject-{i} is {i}."} for i in range(6)]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "docs.jsonl"


def invoke(*arguments):
    done = CliRunner().invoke(
        commands("scale"), ["scale", *map(str, arguments), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_embedding_a_folder_and_its_array(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("llama_index.tuning.cli.models.minilm", WordEmbedding)
    out, array = tmp_path / "out", tmp_path / "v.npy"
    more = ["--column", "id=key", "--rows-per-shard", "2", "--array", array]
    report = invoke("embed", folder, "--out", out, *more)
    assert (report["written"], report["failed"]) == (6, 0)
    assert invoke("embed", folder, "--out", out, *more)["resumed"] == report["shards"]
    ids = pq.read_table(f"{array}.ids.parquet").column("id").to_pylist()
    assert ids == [f"d{i}" for i in range(6)]


def test_questions_from_a_server(folder, tmp_path):
    with ChatServer() as server:
        report = invoke(
            *("questions", folder, "--out", tmp_path / "out", "--llm", "any"),
            *("--api-base", server.base_url, "--column", "id=key"),
        )
    assert report["written"] == 12
    asked = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["relevant"][0] for row in asked} == {f"d{i}" for i in range(6)}


def test_errors_are_one_line(folder, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert run(["scale", "embed", str(folder), *out]) == 1
    assert "has no column id; it has key, text" in capsys.readouterr().err
    assert run(["scale", "embed", str(folder), *out, "--column", "id"]) == 1
    assert "--column must be NAME=VALUE" in capsys.readouterr().err
    assert run(["scale", "embed", str(folder), *out, "--backend", "spark"]) == 1
    assert "choose one of: local, ray" in capsys.readouterr().err


def test_reranking_by_the_packages_own_and_by_a_saved_one(tmp_path):
    row = {"id": "q", "query": "When is a refund?", "found": ["a", "b", "c"]}
    row["texts"] = ["Fees are due.", "A refund takes a week.", "Nothing."]
    (tmp_path / "found.jsonl").write_text(json.dumps(row))
    LightReranker().save(tmp_path / "saved")
    for out, more in (("own", []), ("tuned", ["--reranker", tmp_path / "saved"])):
        rename = ["--column", "candidates=found", "--top-n", "2"]
        report = invoke("rerank", tmp_path / "found.jsonl", "--out", tmp_path / out, *rename, *more)
        assert (report["written"], report["failed"]) == (1, 0)
        (found,) = pq.read_table(tmp_path / out).to_pylist()
        assert found["candidates"][0] == "b"
        assert len(found["candidates"]) == 2


def test_judging_by_a_tuned_judge(tmp_path):
    from tests.judges.conftest import data, verdicts

    tuning = JudgeFinetuneEngine(data(verdicts()), options=JudgeOptions(folds=3), accept="always")
    tuning.finetune()
    judge = tuning.get_finetuned_model()
    judge.save(tmp_path / "judge")
    rows = [{"id": str(n), **row} for n, row in enumerate(verdicts(4, seed=9))]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    how = ["--judge", tmp_path / "judge", "--model", "none"]
    report = invoke("judge", tmp_path / "answers.jsonl", "--out", tmp_path / "out", *how)
    assert (report["written"], report["failed"]) == (4, 0)
    asked = [{name: row[name] for name in ("query", "response", "contexts")} for row in rows]
    wanted = [judge.evaluate(**fields).score for fields in asked]
    found = pq.read_table(tmp_path / "out").column("score").to_pylist()
    assert found == pytest.approx(wanted, rel=1e-5)
