import os

import pytest

from llama_index.tuning import JudgmentDataset, RetrievalDataset, RoutingDataset
from llama_index.tuning._files import read_json, read_json_lines
from llama_index.tuning.datasets import Judgment
from llama_index.tuning.datasets.routing import RoutingExample
from llama_index.tuning.errors import DatasetError

HALF = "a\ud83d"


def test_half_a_character_is_named_by_id():
    with pytest.raises(DatasetError, match=r"query 'q'.*half a character"):
        RetrievalDataset({"q": HALF}, {"d": "text"}, {"q": ["d"]})
    with pytest.raises(DatasetError, match=r"document 'd'.*half a character"):
        RetrievalDataset({"q": "text"}, {"d": HALF}, {"q": ["d"]})
    with pytest.raises(DatasetError, match=r"example 0.*half a character"):
        RoutingDataset({"a": "x"}, [RoutingExample(HALF, ("a",))])
    with pytest.raises(DatasetError, match=r"judgment 0: response.*half a character"):
        JudgmentDataset([Judgment(query="q", response=HALF, contexts=["c"], score=1.0)])


@pytest.mark.parametrize("score", ["4.0/5", "4", float("inf"), float("nan"), True, [1]])
def test_a_score_is_a_finite_number(score):
    with pytest.raises(DatasetError, match="judgment 0: score must be a number, got"):
        JudgmentDataset([Judgment(query="q", response="r", contexts=["c"], score=score)])


@pytest.mark.parametrize("weight", [-1, 0, "1", float("inf"), float("nan"), None])
def test_a_weight_is_a_finite_number_above_0(weight):
    with pytest.raises(DatasetError, match=r"judgment 0: weight must be (above 0|finite), got"):
        JudgmentDataset([Judgment(query="q", response="r", score=1.0, weight=weight)])


def test_contexts_are_a_list_of_texts():
    with pytest.raises(DatasetError, match="contexts must be a list of texts"):
        JudgmentDataset([Judgment(query="q", response="r", contexts=float("nan"), score=1.0)])


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": ' * 200_000, "1" * 5000])
def test_deep_and_enormous_json_is_an_error_of_ours(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"x\.json"):
        read_json(path)
    with pytest.raises(DatasetError, match=r"x\.json"):
        list(read_json_lines(path))


def test_folders_and_pipes_are_no_data_files(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DatasetError, match="is no ordinary file"):
        read_json(pipe)
    with pytest.raises(DatasetError, match="is a folder"):
        read_json(tmp_path)
    with pytest.raises(TypeError, match="path must be a path, got int"):
        read_json(3)
