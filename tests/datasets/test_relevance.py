import json
from types import SimpleNamespace

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.datasets.records import Candidate, RelevanceList
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.errors import DatasetError


class Scripted(BaseRetriever):
    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def _retrieve(self, query_bundle):
        return self.answers[query_bundle.query_str]


def found(id_, text, score=0.5):
    return NodeWithScore(node=TextNode(id_=id_, text=text), score=score)


def one_list(**fields):
    candidates = [Candidate("a", "one", 1.0, 0.9), Candidate("b", "two", 0.0, 0.8)]
    return RelevanceList(**{"query_id": "q", "query": "what", "candidates": candidates, **fields})


def test_a_retriever_gives_lists_in_its_order_with_missed_documents(tiny_dataset):
    answers = {
        "reset password": [found("d2", "Fees", 0.9), found("d1", "Forgot", 0.4)],
        "refund fees": [found("d3", "Closing", None)],
        "close account": [],
    }
    data = RelevanceDataset.from_retriever(tiny_dataset, Scripted(answers))
    first, second, third = data.lists
    assert [(c.node_id, c.score, c.retrieval_score) for c in first.candidates] == [
        ("d2", 0.0, 0.9),
        ("d1", 1.0, 0.4),
    ]
    assert second.missed == {"d2": 1.0}
    assert second.candidates[0].retrieval_score is None
    assert third.relevant == ["d3", "d1"]
    assert not third.candidates


def test_collecting_concurrently_gives_the_same(tiny_dataset):
    answers = {text: [found("d1", "Forgot")] for text in tiny_dataset.queries.values()}
    one = RelevanceDataset.from_retriever(tiny_dataset, Scripted(answers))
    many = RelevanceDataset.from_retriever(tiny_dataset, Scripted(answers), num_workers=3)
    assert one.fingerprint() == many.fingerprint()


def test_nodes_without_text_are_left_out(tiny_dataset):
    image = NodeWithScore(node=ImageNode(id_="i", image="x"), score=1.0)
    answers = {t: [image, found("d1", "Forgot")] for t in tiny_dataset.queries.values()}
    data = RelevanceDataset.from_retriever(tiny_dataset, Scripted(answers))
    assert {c.node_id for item in data.lists for c in item.candidates} == {"d1"}


def test_a_retriever_that_finds_nothing_at_all_is_an_error(tiny_dataset):
    answers = {text: [] for text in tiny_dataset.queries.values()}
    with pytest.raises(DatasetError, match="the retriever found nothing for any of 3 queries"):
        RelevanceDataset.from_retriever(tiny_dataset, Scripted(answers))


def test_cutting_moves_relevant_candidates_to_missed():
    cut = RelevanceDataset([one_list(candidates=one_list().candidates[::-1])])
    assert list(cut.top(1).lists[0].missed) == ["a"]
    with pytest.raises(ValueError, match="depth must be a whole number >= 1, got 0"):
        cut.top(0)


def test_a_file_brings_everything_back(tmp_path):
    data = RelevanceDataset([one_list(missed=["c"])])
    data.save_jsonl(tmp_path / "d.jsonl")
    assert RelevanceDataset.from_jsonl(tmp_path / "d.jsonl") == data


def test_what_is_cut_keeps_its_grade_also_in_a_file(tmp_path):
    candidates = [Candidate(id_, id_, score) for id_, score in (("a", 0.2), ("b", 3.0), ("c", 0.0))]
    data = RelevanceDataset([one_list(candidates=candidates, missed={"d": 2.0})]).top(1)
    assert data.lists[0].missed == {"d": 2.0, "b": 3.0}
    assert data.lists[0].grades == {"a": 0.2, "d": 2.0, "b": 3.0}
    data.save_jsonl(tmp_path / "d.jsonl")
    assert RelevanceDataset.from_jsonl(tmp_path / "d.jsonl") == data


def test_missed_ids_are_of_grade_one_and_a_file_still_lists_them(tmp_path):
    data = RelevanceDataset([one_list(missed=["c", "d"])])
    assert data.lists[0].missed == {"c": 1.0, "d": 1.0}
    data.save_jsonl(tmp_path / "d.jsonl")
    assert json.loads((tmp_path / "d.jsonl").read_text())["missed"] == ["c", "d"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query_id": "q", "query": "x"}', "line 1: the key 'candidates' is missing"),
        ('{"query_id": "q", "query": "x", "candidates": [3]}', "is not a list of candidates"),
        ('{"query_id": "q", "query": "x", "candidates": [', "not valid JSON"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, message):
    (tmp_path / "d.jsonl").write_text(line)
    with pytest.raises(DatasetError, match=message):
        RelevanceDataset.from_jsonl(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query_id": ""}, "query id '' must be a non-empty string"),
        ({"query": "  "}, "query 'q': the text is empty"),
        ({"candidates": []}, "query 'q' has no candidates"),
        ({"candidates": [Candidate("a", "t", float("nan"))]}, "score must be a finite number"),
        ({"candidates": [Candidate("a", "t", -1.0)]}, "must be a finite number >= 0, got -1.0"),
        ({"candidates": [Candidate("a", "", 1.0)]}, "node 'a': the text is empty"),
        ({"candidates": [Candidate("", "t", 1.0)]}, "node id '' must be a non-empty string"),
        ({"candidates": [Candidate("a", "t", 1.0)] * 2}, "node 'a' occurs twice"),
        ({"candidates": [Candidate("a", "t", 1.0, float("inf"))]}, "retrieval_score must be"),
        ({"missed": ["a"]}, "node 'a' is both a candidate and missed"),
        ({"missed": {"c": 0.0}}, "the grade of missed node 'c' must be above 0, got 0.0"),
        ({"missed": {"c": float("nan")}}, "the grade of missed node 'c' must be above 0, got nan"),
        ({"missed": [""]}, "missed node id '' must be a non-empty string"),
        ({"candidates": [Candidate("a", "t", 0.0)]}, "no candidate of any query is relevant"),
    ],
)
def test_every_fault_is_named(fields, message):
    with pytest.raises(DatasetError, match=message):
        RelevanceDataset([one_list(**fields)])


def test_no_queries_and_repeated_ids_are_faults():
    with pytest.raises(DatasetError, match="there are no queries"):
        RelevanceDataset([])
    with pytest.raises(DatasetError, match="query id 'q' occurs twice"):
        RelevanceDataset([one_list(), one_list()])


def test_labels_may_be_graded_and_must_name_known_ids():
    data = RelevanceDataset.from_labels({"q": "x"}, {"a": "A", "b": "B"}, {"q": {"a": 3, "b": 0}})
    assert [pair.score for pair in data.pairs()] == [3.0, 0.0]
    with pytest.raises(DatasetError, match="labelled node 'z' is not in the corpus"):
        RelevanceDataset.from_labels({"q": "x"}, {"a": "A"}, {"q": {"z": 1}})
    with pytest.raises(DatasetError, match="labels name query 'y', not in queries"):
        RelevanceDataset.from_labels({"q": "x"}, {"a": "A"}, {"y": {"a": 1}})


def test_feedback_keeps_what_was_shown_and_drops_answers_nobody_judged():
    nodes = [{"node_id": "a", "text": "A", "score": 0.7}, {"node_id": "b"}, {"node_id": "c"}]
    records = [
        {"query": "one", "nodes": nodes, "relevant": ["b", "z"]},
        {"query": "two", "nodes": nodes, "relevant": ["a"], "irrelevant": ["c"]},
        {"query": "three", "nodes": nodes, "relevant": []},
    ]
    data = RelevanceDataset.from_feedback(records, corpus={"b": "B", "c": "C"})
    assert [item.query for item in data.lists] == ["one", "two"]
    assert [c.score for c in data.lists[0].candidates] == [0.0, 1.0, 0.0]
    assert data.lists[0].missed == {"z": 1.0}
    assert [c.node_id for c in data.lists[1].candidates] == ["a", "c"]
    with pytest.raises(DatasetError, match="node 'b' has no text"):
        RelevanceDataset.from_feedback(records)
    with pytest.raises(DatasetError, match="record 0 lacks nodes"):
        RelevanceDataset.from_feedback([{"query": "x"}])


def test_old_samples_become_lists_by_query():
    samples = [
        SimpleNamespace(query="x", context="A", score=1),
        SimpleNamespace(query="x", context="B", score=0),
        {"query": "y", "context": "A", "score": 0},
    ]
    data = RelevanceDataset.from_samples(samples)
    assert [len(item.candidates) for item in data.lists] == [2, 1]
    assert len(data.trainable()) == 1
    with pytest.raises(DatasetError, match="sample 0 lacks query, context or score"):
        RelevanceDataset.from_samples([{"query": "x"}])


def test_queries_about_one_node_stay_together():
    lists = [one_list(query_id=f"q{i}", query=f"text {i}") for i in range(3)]
    other = one_list(query_id="o", query="other", candidates=[Candidate("n", "t", 1.0)])
    assert sorted(map(len, RelevanceDataset([*lists, other]).groups())) == [1, 3]


def test_graded_lists_are_tied_by_their_best_nodes_alone():
    def graded(id_, **grades):
        candidates = [Candidate(node, node, grade) for node, grade in grades.items()]
        return one_list(query_id=id_, query=f"text {id_}", candidates=candidates)

    lists = [graded("q", a=0.9, b=0.1, c=0.2), graded("r", b=0.8, c=0.2), graded("s", c=0.9, a=0.9)]
    assert RelevanceDataset(lists).groups() == [[0, 2], [1]]


def test_coerce_says_what_it_takes(tiny_dataset):
    with pytest.raises(TypeError, match="must be a RelevanceDataset"):
        RelevanceDataset.coerce(json)
    assert isinstance(tiny_dataset, RetrievalDataset)
