"""A judge that is tuned with its app: from verdicts, or from users' thumbs in the traffic."""

import pytest

from llama_index.tuning import JudgmentDataset, load_app, tune_app
from llama_index.tuning.collect.traffic import Traffic
from llama_index.tuning.errors import DatasetError


def answer(number, *, loud):
    said = f"A new one is {3 * number + 7} euros."
    return said.upper() if loud else said


def verdicts_of(count=60):
    """Answers about the pumps, of which those in capitals fail: no length or overlap tells."""
    return JudgmentDataset.from_records(
        {
            "query": f"What does pump number {i} cost?",
            "contexts": [f"The pump number {i} is in the house. A new one is {3 * i + 7} euros."],
            "response": answer(i, loud=bool(i % 2)),
            "passing": not i % 2,
        }
        for i in range(count)
    )


def test_verdicts_teach_a_judge_that_is_saved_with_the_app(index, questions, tmp_path):
    few = questions.subset(list(questions.queries)[:12])
    file = tmp_path / "verdicts.jsonl"
    verdicts_of().save_jsonl(file)
    app = tune_app(index, few, judgments=file, run_folder=None)
    assert any("60 verdicts" in note for note in app.report.notes)
    app.save(tmp_path / "tuned")
    judge = load_app(tmp_path / "tuned", index).evaluator
    asked = "What does pump number 70 cost?"
    contexts = ["The pump number 70 is in the house. A new one is 217 euros."]
    assert judge.evaluate(asked, answer(70, loud=False), contexts).passing
    assert not judge.evaluate(asked, answer(70, loud=True), contexts).passing


def thumbs(count):
    """What the recorder writes of questions, answers and users' thumbs."""
    for i, item in enumerate(verdicts_of(count).judgments):
        node = {"id": f"n{i}", "score": 0.5}
        yield {"kind": "node", "id": f"n{i}", "text": item.contexts[0]}
        query = {"query": item.query, "response": item.response, "nodes": [node]}
        yield {"kind": "query", "trace": f"t{i}", "time": float(i), **query}
        score = 1.0 if item.passing else -1.0
        said = dict.fromkeys(("answer", "comment", "choice"))
        yield {"kind": "feedback", "trace": f"t{i}", "time": i + 0.5, "score": score, **said}


def test_thumbs_of_the_traffic_teach_a_judge(index):
    app = tune_app(index, traffic=Traffic.from_rows(thumbs(60)), run_folder=None)
    assert app.evaluator is not None, app.report.notes


def test_too_few_verdicts_are_refused_before_any_cost_or_said(index, questions, model):
    model.texts.clear()
    with pytest.raises(DatasetError, match="4 verdicts are too few"):
        tune_app(index, questions, judgments=verdicts_of(4), run_folder=None)
    assert not model.texts
    traffic = Traffic.from_rows(thumbs(6))
    app = tune_app(index, traffic=traffic, run_folder=None)
    assert app.evaluator is None
    assert any("no judge could be learnt" in note for note in app.report.notes)
