import json
import os

import pytest

from llama_index.tuning import (
    ChatDataset,
    JudgmentDataset,
    RelevanceDataset,
    RetrievalDataset,
    RoutingDataset,
)
from llama_index.tuning._files import read_json, read_json_lines
from llama_index.tuning.datasets import Judgment
from llama_index.tuning.datasets.records import Candidate, RelevanceList, RoutingExample
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


def listed(node_id="d", metadata=None, **fields):
    candidate = Candidate(node_id, "text", 1.0, metadata=metadata or {})
    return RelevanceList(**{"query_id": "q", "query": "text", "candidates": [candidate], **fields})


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({"title": HALF}, "half a character"),
        ({"pages": [{"number": float("inf")}]}, "a number in it is inf"),
    ],
)
def test_metadata_can_be_written(metadata, fault):
    with pytest.raises(DatasetError, match=rf"query 'q', node 'd': metadata: .*{fault}"):
        RelevanceDataset([listed(metadata=metadata)])


@pytest.mark.parametrize("id_", [HALF, 5, "", ["d"]])
def test_ids_are_texts_in_every_dataset(id_):
    with pytest.raises(DatasetError, match="id"):
        RelevanceDataset([listed(node_id=id_)])
    with pytest.raises(DatasetError, match="id"):
        RelevanceDataset([listed(query_id=id_)])
    with pytest.raises(DatasetError, match="is not one of the choices"):
        RoutingDataset({"a": "x"}, [RoutingExample("text", (id_,))])


@pytest.mark.parametrize("ids", ["d1", [5], 5])
def test_ids_of_feedback_are_a_list_of_texts(ids):
    record = {"query": "text", "nodes": [{"node_id": "d", "text": "text"}], "relevant": ids}
    with pytest.raises(DatasetError, match="record 0: relevant must be a list of node ids"):
        RelevanceDataset.from_feedback([record])


def test_a_conversation_holds_whole_characters_and_finite_numbers():
    says = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    parameters = {"type": "object", "properties": {"n": {"default": float("nan")}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    with pytest.raises(DatasetError, match="example 0, tools: a number in it is nan"):
        ChatDataset.from_messages([says], tools=[tool])
    with pytest.raises(DatasetError, match=r"example 0, messages\[1\]: .*half a character"):
        ChatDataset.from_messages([[says[0], {**says[1], "content": HALF}]])
    function = {"name": "f", "arguments": json.dumps({"city": HALF})}  # "\\ud83d": all ASCII
    call = {"id": "a", "type": "function", "function": function}
    with pytest.raises(DatasetError, match=r"tool_calls\[0\].function.arguments: .*half a char"):
        ChatDataset.from_messages([[says[0], {**says[1], "tool_calls": [call]}]])


@pytest.mark.parametrize("made_of", ["text", 5, None, [5], [None], {"a": 1}])
@pytest.mark.parametrize("dataset", [ChatDataset, JudgmentDataset, RelevanceDataset])
def test_a_dataset_is_a_list_of_its_records(dataset, made_of):
    with pytest.raises(DatasetError, match="must be a"):
        dataset(made_of)


@pytest.mark.parametrize("size", ["0.2", 0, 1, float("nan"), None, True])
def test_the_size_of_a_test_part_is_a_share(size):
    dataset = RetrievalDataset({"q": "a", "r": "b"}, {"d": "text"}, {"q": ["d"], "r": ["d"]})
    with pytest.raises(ValueError, match="test_size must be between 0 and 1, got"):
        dataset.split(size)
