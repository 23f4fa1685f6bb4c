import pytest

from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError


def test_verdicts_come_back_from_the_file(tmp_path):
    given = JudgmentDataset(
        [
            Judgment(query="q", response="r", contexts=["c"], score=0.5, source="human"),
            Judgment(query="q", response="r", second_response="s", passing=True, weight=2.0),
        ]
    )
    given.save_jsonl(tmp_path / "a.jsonl")
    loaded = JudgmentDataset.from_jsonl(tmp_path / "a.jsonl")
    assert loaded == given
    assert loaded.fingerprint() == given.fingerprint()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"response": None, "score": 1}, "response must be a text, got None"),
        ({"response": True, "score": 1}, "response must be a text, got True"),
        ({"response": "r"}, "neither score nor passing"),
        ({"response": "r", "score": float("nan")}, "score must be a number, got nan"),
        ({"response": "r", "score": "4.0/5"}, "score must be a number, got '4.0/5'"),
        ({"response": "r", "score": 1, "weight": "much"}, "weight must be above 0, got 'much'"),
        ({"response": "r", "passing": "yes"}, "passing must be true or false, got 'yes'"),
        ({"response": "r", "score": 1, "query": 3}, "query must be a text, got int"),
        ({"response": "r", "score": 1, "contexts": "c"}, "contexts must be a list of texts"),
        ({"response": "r", "score": 1, "weight": 0}, "weight must be above 0, got 0"),
        ({"response": "r", "grade": 1}, "judgment 0 has unknown fields: grade"),
    ],
)
def test_each_fault_is_named(row, fault):
    with pytest.raises(DatasetError, match=fault):
        JudgmentDataset.from_records([row])


def verdicts(source, *values, **fields):
    return [
        {"query": f"q{i}", "response": "r", "source": source, **fields, "passing": value}
        for i, value in enumerate(values)
    ]


def test_sources_stay_apart():
    rows = [*verdicts("human", True, False), *verdicts("gpt", True, True)]
    dataset = JudgmentDataset.from_records(rows)
    assert dataset.sources() == ["human", "gpt"]
    assert [j.passing for j in dataset.by_source("gpt").judgments] == [True, True]
    with pytest.raises(DatasetError, match="no verdict is by 'me'; sources: 'human', 'gpt'"):
        dataset.by_source("me")


def test_agreement_is_cohens_kappa():
    first = [True, True, True, False, False, True, False, True]
    second = [True, False, True, False, True, True, False, True]
    rows = [*verdicts("a", *first), *verdicts("b", *second), *verdicts("b", *[True] * 9)[8:]]
    found = JudgmentDataset.from_records(rows).agreement("a", "b")
    # observed 6/8; by chance 5/8 · 5/8 + 3/8 · 3/8 = 34/64
    assert (found.n, found.equal) == (8, 0.75)
    assert found.kappa == pytest.approx((48 - 34) / (64 - 34))


def test_several_verdicts_of_one_source_are_put_to_the_vote():
    people = [*verdicts("p", True, True), *verdicts("p", False, True), *verdicts("p", True)]
    dataset = JudgmentDataset.from_records([*people, *verdicts("t", True, False)])
    found = dataset.agreement("p", "t")
    assert (found.n, found.equal, found.undecided) == (2, 0.5, 0)
    dataset = JudgmentDataset.from_records([*people[:4], *verdicts("t", True, False)])
    found = dataset.agreement("p", "t")
    assert (found.n, found.undecided) == (1, 1)


def test_unanimous_verdicts_have_no_kappa():
    rows = [*verdicts("a", True, True), *verdicts("b", True, True)]
    found = JudgmentDataset.from_records(rows).agreement("a", "b")
    assert (found.equal, found.kappa) == (1.0, None)
    assert "undefined" in str(found)


def test_scores_agree_where_they_are_equal():
    scores = {"a": (1, 5, 3), "b": (1, 4, 3.0)}
    rows = [
        {"query": f"q{i}", "response": "r", "source": source, "score": value}
        for source, values in scores.items()
        for i, value in enumerate(values)
    ]
    assert JudgmentDataset.from_records(rows).agreement("a", "b").equal == pytest.approx(2 / 3)


def pair(first, second, score, source="t", query="q"):
    return {"query": query, "response": first, "second_response": second, "score": score,
            "source": source}  # fmt: skip


def test_a_pair_is_the_same_in_either_order():
    rows = [pair("x", "y", 1.0, "a"), pair("y", "x", 0.0, "b")]
    assert JudgmentDataset.from_records(rows).agreement("a", "b").equal == 1.0
    rows[1]["score"] = 1.0
    assert JudgmentDataset.from_records(rows).agreement("a", "b").equal == 0.0
    rows = [{**row, "passing": None} for row in rows]
    rows[0]["score"] = rows[1]["score"] = 0.5
    assert JudgmentDataset.from_records(rows).agreement("a", "b").equal == 1.0


def test_no_verdict_agrees_with_nobody(tmp_path):
    silent = {"passing": None, "invalid": True}
    rows = [*verdicts("a", True, True, True), *verdicts("b", True, True, True)]
    rows = [{**row, **silent} if number in (2, 4, 5) else row for number, row in enumerate(rows)]
    dataset = JudgmentDataset.from_records(rows)
    found = dataset.agreement("a", "b")
    assert (found.n, found.equal) == (3, pytest.approx(1 / 3))  # nor do two silences agree
    dataset.save_jsonl(tmp_path / "verdicts.jsonl")
    assert JudgmentDataset.from_jsonl(tmp_path / "verdicts.jsonl") == dataset
    assert (tmp_path / "verdicts.jsonl").read_text().count("invalid") == 3
    both = [pair("x", "y", 1.0), {**pair("y", "x", None), "invalid": True}]
    with pytest.raises(DatasetError, match="no pair was judged in both orders"):
        JudgmentDataset.from_records(both).agreement_of_orders()


def test_flips_are_counted():
    rows = [
        pair("x", "y", 1.0, query="1"), pair("y", "x", 0.0, query="1"),  # the same answer
        pair("x", "y", 1.0, query="2"), pair("y", "x", 1.0, query="2"),  # the first, both times
        pair("x", "y", 0.5, query="3"), pair("y", "x", 0.5, query="3"),  # tied both times
        pair("x", "y", 0.5, query="4"), pair("y", "x", 0.0, query="4"),  # tied once
        pair("x", "y", 0.5, query="5"),  # one order only
        pair("x", "x", 1.0, query="6"), pair("x", "x", 0.0, query="6"),  # no two orders
    ]  # fmt: skip
    dataset = JudgmentDataset.from_records(rows)
    found = dataset.agreement_of_orders("t")
    assert (found.n, found.flip_rate) == (4, 0.5)
    other = JudgmentDataset.from_records([rows[0], {**rows[1], "source": "other"}])
    with pytest.raises(DatasetError, match="both orders by one source"):
        other.agreement_of_orders()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: d.agreement("a", "a"), ValueError, "two sources are needed"),
        (lambda d: d.agreement("a", "c"), DatasetError, "no verdict is by 'c'"),
        (lambda d: d.agreement("a", "b"), DatasetError, "no item has verdicts of both"),
        (lambda d: d.agreement_of_orders(), DatasetError, "no pair was judged in both"),
        (lambda d: d.split(1.0), ValueError, "test_size must be between 0 and 1, got 1.0"),
        (lambda d: d.by_source("a").split(), DatasetError, "at least 2 queries"),
    ],
)
def test_what_cannot_be_had_is_named(call, error, message):
    rows = [*verdicts("a", True), *verdicts("b", True, query="other")]
    with pytest.raises(error, match=message):
        call(JudgmentDataset.from_records(rows))


def test_a_split_keeps_a_query_on_one_side():
    rows = [
        {"query": query, "response": f"r{i}", "passing": True, "source": source}
        for i in range(20)
        for query, source in ((f"Query {i}", "a"), (f"query  {i} ", "b"))
    ]
    dataset = JudgmentDataset.from_records(rows)
    train, test = dataset.split(0.25, seed=3)
    assert (len(train), len(test)) == (30, 10)
    assert not {j.response for j in train.judgments} & {j.response for j in test.judgments}
    assert dataset.split(0.25, seed=3) == (train, test)
    assert dataset.split(0.25, seed=4) != (train, test)


def test_answers_without_a_query_are_split_by_their_contexts():
    rows = [{"response": f"r{i}", "contexts": [f"c{i // 2}"], "passing": True} for i in range(8)]
    train, test = JudgmentDataset.from_records(rows).split(0.5)
    assert not {j.contexts[0] for j in train.judgments} & {j.contexts[0] for j in test.judgments}


def test_rows_of_other_files_are_read_and_changes_counted():
    rows = [
        {"query": "q0", "response": "x", "response_b": "y", "label": "A", "id": 1},
        {"query": "q1", "response": True, "response_b": 3, "label": "b"},
        {"query": "q2", "response": "x", "response_b": "y", "label": "tie"},
        {"query": "q3", "response": "x", "response_b": "y", "label": None},
        {"query": "q4", "response": None, "response_b": "y", "label": "A"},
        {"query": "q5", "response": "x", "response_b": "y", "label": "C"},
        {"query": "q6", "response": ["x"], "response_b": "y", "label": "A"},
        {"query": "q7", "response": "x", "contexts": "c", "label": "A"},
        {"query": "q8", "response": "x", "score": True},
        {"query": "q9", "response": "x", "score": 1, "weight": 0},
    ]
    columns = {"second_response": "response_b", "verdict": "label"}
    loaded = JudgmentDataset.from_rows(rows, columns=columns, source="human")
    assert loaded.counts == {
        "rows": 10,
        "kept": 4,
        "response: bool made a text": 1,
        "second_response: int made a text": 1,
        "left out: no verdict": 1,
        "left out: no response": 1,
        "left out: verdict 'C' is not in verdicts": 1,
        "left out: response: list": 1,
        "contexts: str made a list": 1,
        "left out: score is no number": 1,
        "left out: weight must be above 0, got 0": 1,
    }
    found = loaded.dataset.judgments
    assert [j.score for j in found] == [1.0, 0.0, 0.5, 1.0]
    assert (found[1].response, found[1].second_response) == ("True", "3")
    assert found[3].contexts == ["c"]
    assert loaded.dataset.sources() == ["human"]
    strict = JudgmentDataset.from_rows(rows, columns=columns, coerce=False)
    assert strict.counts["kept"] == 2
    assert strict.counts["left out: response: bool"] == 1
    assert strict.counts["left out: contexts: str"] == 1


def test_a_field_that_means_something_else_is_left_alone():
    row = {"response": "r", "passing": True, "source": "a web page"}
    assert JudgmentDataset.from_rows([row], source="human").dataset.sources() == ["a web page"]
    loaded = JudgmentDataset.from_rows([row], columns={"source": None}, source="human")
    assert loaded.dataset.sources() == ["human"]


@pytest.mark.parametrize(
    ("rows", "columns", "error", "message"),
    [
        ([{"response": "r", "passing": True}], {"grade": "g"}, ValueError, "no judgment has grade"),
        ([{"response": "r", "passing": True}], {"query": "q"}, DatasetError, "query: 'q'"),
        ([{"response": "r"}], {}, DatasetError, "left out: no verdict: 1"),
        (["r"], {}, DatasetError, "row 0 must be an object, got str"),
    ],
)
def test_rows_that_cannot_be_read_are_named(rows, columns, error, message):
    with pytest.raises(error, match=message):
        JudgmentDataset.from_rows(rows, columns=columns)


class Example:
    def __init__(self, **fields):
        self.__dict__.update(fields)


def test_reference_answers_pass():
    by = Example(model_name="gpt", type="ai")
    example = Example(
        query="q", reference_answer="right", reference_contexts=["c"], reference_answer_by=by
    )
    found = JudgmentDataset.from_labelled_rag(Example(examples=[example]))
    assert found.judgments == [
        Judgment(query="q", response="right", contexts=["c"], passing=True, source="gpt")
    ]
    found = JudgmentDataset.from_labelled_rag(Example(examples=[example]), source="human")
    assert found.sources() == ["human"]
    example.reference_answer_by = Example(model_name="", type=Example(value="human"))
    assert JudgmentDataset.from_labelled_rag(Example(examples=[example])).sources() == ["human"]
    example.reference_answer = ""
    with pytest.raises(DatasetError, match="example 0 has no reference_answer"):
        JudgmentDataset.from_labelled_rag(Example(examples=[example]))
    with pytest.raises(DatasetError, match="with examples is needed"):
        JudgmentDataset.from_labelled_rag(Example(examples=[]))
