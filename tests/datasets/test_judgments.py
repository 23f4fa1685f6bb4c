import pytest

from llama_index.tuning.datasets.judgments import Judgment, JudgmentDataset
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
