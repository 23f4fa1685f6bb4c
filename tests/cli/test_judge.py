import json

import pytest
from typer.testing import CliRunner

from llama_index.tuning import JudgmentDataset
from llama_index.tuning.cli.app import commands, run
from tests.servers import ChatServer


def invoke(*arguments):
    done = CliRunner().invoke(
        commands("judge"), ["judge", *map(str, arguments)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [
        {"query": f"q{i}", "response": f"first-{i}", "second_response": f"second-{i}"}
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_label_both_orders_then_agreement(samples, tmp_path):
    out = tmp_path / "verdicts.jsonl"
    options = ["--teacher", "pairwise", "--llm", "scripted", "--out", out, "--both-orders"]
    with ChatServer(answer=lambda prompt: "[[A]]") as server:
        options += ["--api-base", server.base_url]
        plan = json.loads(
            invoke("label", samples, *options, "--dry-run", "--prompt-price", 2, "--json")
        )
        assert not server.kinds
        counts = json.loads(invoke("label", samples, *options, "--json"))
        assert "written to" in invoke("label", samples, *options)
        assert sum(server.kinds.values()) == plan["requests"] == 8
    assert plan["cost"] == pytest.approx(plan["prompt_tokens"] * 2e-6)
    assert (counts["labelled"], counts["requests"], counts["failed"]) == (8, 8, [])
    assert len(JudgmentDataset.from_jsonl(out)) == 8
    found = json.loads(invoke("agreement", out, "--json"))
    assert found["sources"] == {}
    assert found["orders"]["scripted"]["flip_rate"] == 1.0
    assert "scripted: flip rate 1.000 over 4 pairs" in invoke("agreement", out)


def test_failed_evaluations_are_shown(samples, tmp_path):
    out = tmp_path / "verdicts.jsonl"
    with ChatServer(answer=lambda prompt: "no verdict") as server:
        text = invoke(
            "label", samples, "--teacher", "pairwise", "--llm", "m", "--out", out,
            "--api-base", server.base_url, "--retry-limit", 1,
        )  # fmt: skip
    assert "Output cannot be parsed" in text
    assert "invalid       4" in text


def test_sources_are_compared(tmp_path):
    rows = [
        {"query": f"q{i}", "response": "r", "passing": bool(i % k), "source": name}
        for name, k in (("human", 2), ("gpt", 3))
        for i in range(6)
    ]
    path = tmp_path / "verdicts.jsonl"
    JudgmentDataset.from_records(rows).save_jsonl(path)
    found = json.loads(invoke("agreement", path, "--json"))["sources"]["human / gpt"]
    assert (found["n"], found["equal"], found["kappa"]) == (6, 0.5, pytest.approx(0.0))
    assert "human / gpt: equal 0.500, kappa 0.000, n=6" in invoke("agreement", path)
    JudgmentDataset.from_records(rows[:6]).save_jsonl(path)
    assert "no item was judged twice" in invoke("agreement", path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "kindness"], "unknown --teacher 'kindness'"),
        (["--teacher", "correctness", "--both-orders"], "--both-orders belongs to"),
        (["--teacher", "correctness", "--guidelines", "x"], "--guidelines belongs to"),
        (["--teacher", "faithfulness"], "sample 0 has no contexts"),
    ],
)
def test_wrong_options_are_named(samples, tmp_path, options, message, capsys):
    common = ["--llm", "m", "--api-base", "http://127.0.0.1:1/v1", "--out", tmp_path / "o.jsonl"]
    assert run(["judge", "label", *map(str, [samples, *common, *options])]) == 1
    assert message in capsys.readouterr().err


def plans(numbers):
    for n in numbers:
        yield {
            "query": f"Fee of plan {n}?",
            "contexts": [f"Plan {n} costs {n} euros a month."],
            "response": f"It costs {n if n % 2 else n + 500} euros.",
            "passing": bool(n % 2),
        }


def test_tune_evaluate_estimate(tmp_path):
    train, test, more = (tmp_path / f"{name}.jsonl" for name in ("train", "test", "more"))
    JudgmentDataset.from_records(plans(range(100, 160))).save_jsonl(train)
    JudgmentDataset.from_records(plans(range(200, 240))).save_jsonl(test)
    rows = [{k: v for k, v in row.items() if k != "passing"} for row in plans(range(300, 400))]
    more.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", "none"]
    text = invoke("tune", train, "--out", tmp_path / "judge", *words, "--accept", "always")
    assert "accepted" in text
    assert (tmp_path / "judge" / "report.html").exists()
    on_judge = ["--judge", tmp_path / "judge", *words]
    found = json.loads(invoke("evaluate", test, *on_judge, "--json"))
    assert (found["judgments"], found["trained_on"]) == (40, 0)
    assert found["gains"]["accuracy"]["base"] == 0.5
    assert found["gains"]["accuracy"]["tuned"] > 0.9
    assert "trained on 60 of these items" in invoke("evaluate", train, *on_judge)
    pytest.importorskip("ppi_py")
    rate = json.loads(invoke("estimate", more, test, *on_judge, "--json"))
    assert (rate["n"], rate["unlabelled"]) == (40, 100)
    assert rate["interval"][0] <= 0.5 <= rate["interval"][1]
    assert "pass rate" in invoke("estimate", more, test, *on_judge)


def test_a_judge_without_a_gain_is_a_candidate(tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [{"query": f"q{i}", "response": "r", "passing": bool(i % 2)} for i in range(40)]
    JudgmentDataset.from_records(rows).save_jsonl(path)
    text = invoke("tune", path, "--out", tmp_path / "judge", "--model", "none")
    assert "the refused judge lies in candidate/" in text
    assert (tmp_path / "judge" / "candidate" / "tuning.json").exists()
    assert (tmp_path / "judge" / "report.json").exists()
