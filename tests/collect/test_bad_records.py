"""A record that cannot be used is left out, counted and named; it costs no other record."""

import json
import logging

import pytest

from llama_index.tuning.collect import Traffic
from llama_index.tuning.errors import DatasetError

CHOICES = [{"name": "fees", "description": "Fees"}, {"name": "cards", "description": "Cards"}]
NODES = [{"id": "a", "score": 0.5}, {"id": "b", "score": 0.4}]
RANKED = [{"id": "b", "score": 0.9}, {"id": "a", "score": 0.1}]
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
GOOD = {
    "selection": {"query": "How much?", "choices": CHOICES, "selected": [0]},
    "retrieval": {"query": "How much?", "nodes": NODES},
    "rerank": {"query": "How much?", "nodes": NODES, "ranked": RANKED},
    "evaluation": {"query": "q", "response": "r", "score": 1.0, "passing": True},
    "llm": {"model": "m", "messages": [USER], "response": ANSWER},
    "query": {"query": "q", "response": "r", "nodes": NODES},
}
VIEWS = {
    "selection": ("routing_dataset", "examples"),
    "retrieval": ("retrieval_dataset", "queries"),
    "rerank": ("relevance_dataset", "lists"),
    "evaluation": ("judgment_dataset", "judgments"),
    "llm": ("chat_dataset", "examples"),
}
TEXTS = [{"kind": "node", "id": id_, "text": f"Text {id_}"} for id_ in "ab"]


def record(kind, number, changed=None, **more):
    changed = {**(changed or {}), **more}
    head = {"kind": kind, "trace": f"t{number}", "time": 1e9 + number, "span": f"s{number}"}
    row = {**head, **GOOD[kind], **changed}
    if "query" in row and "query" not in changed:
        row["query"] = f"{row['query']} {number}"
    if kind == "llm" and "messages" not in changed:
        row["messages"] = [{"role": "user", "content": f"q{number}"}]
    return {key: value for key, value in row.items() if value is not ...}


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize(
    "bad",
    [{"trace": ...}, {"time": ...}, {"time": "noon"}, {"time": float("nan")}, {"kind": ...}],
)
def test_a_record_without_its_head_costs_only_itself(tmp_path, caplog, kind, bad):
    rows = [record(kind, n) for n in range(5)] + [record(kind, 5, bad)]
    path = tmp_path / "t.jsonl"
    header = {"kind": "header", "format": 1}
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *TEXTS, *rows]))
    traffic = Traffic.load(path)
    view, items = VIEWS[kind]
    assert len(getattr(getattr(traffic, view)(), items)) == 5
    assert sum(traffic.left_out.values()) == traffic.stats()["left_out"] == 1
    assert "1 records are left out of the log: 1 " in caplog.text


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        *(
            (kind, {field: ...}, f"{kind} without {field}")
            for kind, needed in GOOD.items()
            for field in needed
            if field not in ("passing", "model")
        ),
        ("retrieval", {"nodes": "a"}, "retrieval with a wrong nodes"),
        ("retrieval", {"nodes": [{"score": 1}]}, "retrieval with a wrong nodes"),
        ("retrieval", {"query": None}, "retrieval with a wrong query"),
        ("rerank", {"ranked": [{"id": 3, "score": 1}]}, "rerank with a wrong ranked"),
        ("selection", {"selected": ["fees"]}, "selection with a wrong selected"),
        ("selection", {"choices": ["fees"]}, "selection with a wrong choices"),
        ("llm", {"messages": ["q"]}, "llm with a wrong messages"),
        ("evaluation", {"score": "high"}, "evaluation with a wrong score"),
    ],
)
def test_a_record_of_another_shape_costs_only_itself(kind, bad, reason):
    rows = [*TEXTS, *(record(kind, n) for n in range(5)), record(kind, 5, bad)]
    traffic = Traffic.from_rows(rows)
    assert (len(traffic.records), traffic.left_out) == (5, {reason: 1})


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        ("selection", {"query": " "}, "routing: with a blank query"),
        ("selection", {"selected": [7]}, "routing: with a selection that was not offered"),
        (
            "selection",
            {"choices": [CHOICES[0], CHOICES[0]]},
            "routing: with two choices of the same name and description",
        ),
        (
            "selection",
            {"choices": [{"name": "", "description": ""}]},
            "routing: with a choice that has neither name nor description",
        ),
        ("retrieval", {"query": "\n"}, "retrieval: with a blank query"),
        ("rerank", {"query": ""}, "relevance: with a blank query"),
        (
            "rerank",
            {"ranked": [{"id": "b", "score": float("nan")}, RANKED[1]]},
            "relevance: with a score that is not finite",
        ),
        ("rerank", {"nodes": [{"id": "x", "score": 1}]}, "relevance: without a passage's text"),
        (
            "evaluation",
            {"score": float("nan")},
            "judgment: because score must be a number, got nan",
        ),
        (
            "evaluation",
            {"response": None},
            "judgment: because response must be a text, got None",
        ),
        (
            "evaluation",
            {"invalid_result": True},
            "judgment: whose judge's reply could not be read",
        ),
    ],
)
def test_a_record_that_a_view_cannot_use_is_counted_and_named(caplog, kind, bad, reason):
    rows = [*TEXTS, *(record(kind, n) for n in range(5)), record(kind, 5, bad)]
    traffic = Traffic.from_rows(rows)
    view, items = VIEWS[kind]
    with caplog.at_level(logging.WARNING):
        assert len(getattr(getattr(traffic, view)(), items)) == 5
    assert traffic.left_out == {reason: 1}
    assert f"1 {reason.partition(': ')[2]}" in caplog.text


def test_a_score_that_is_not_finite_does_not_cost_what_was_retrieved():
    nodes = [{"id": "a", "score": float("nan")}, NODES[1]]
    rows = [*TEXTS, record("rerank", 0, nodes=nodes), record("rerank", 1)]
    first, _ = Traffic.from_rows(rows).relevance_dataset().lists
    assert [c.retrieval_score for c in first.candidates] == [None, 0.4]


def test_a_choice_renamed_in_case_is_the_same_choice():
    renamed = [{"name": "Fees ", "description": "Fees"}, CHOICES[1]]
    rows = [record("selection", 0), record("selection", 1, choices=renamed)]
    feedback = {"kind": "feedback", "trace": "t1", "time": 2e9, "score": -1, "choice": "CARDS"}
    dataset = Traffic.from_rows([*rows, feedback]).routing_dataset()
    assert list(dataset.choices) == ["fees", "cards"]
    assert [e.choices for e in dataset.examples] == [("fees",), ("cards",)]


def test_a_correction_to_an_unknown_choice_is_left_out():
    feedback = {"kind": "feedback", "trace": "t1", "time": 2e9, "score": -1, "choice": "loans"}
    rows = [record("selection", 0), record("selection", 1), feedback]
    traffic = Traffic.from_rows(rows)
    assert len(traffic.routing_dataset()) == 1
    assert traffic.left_out == {"routing: corrected to a choice that no router offers": 1}


def test_where_nothing_is_left_the_error_says_why():
    traffic = Traffic.from_rows([record("selection", 0, query=" ")])
    with pytest.raises(DatasetError, match="1 left out with a blank query"):
        traffic.routing_dataset()


def test_half_a_surrogate_pair_in_a_log_is_mended_on_reading(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [{"kind": "header", "format": 1}, *TEXTS, record("retrieval", 0, query="a\ud83d")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = Traffic.load(path).retrieval_dataset()
    assert list(dataset.queries.values()) == ["a\ufffd"]
    dataset.save_json(tmp_path / "d.json")
