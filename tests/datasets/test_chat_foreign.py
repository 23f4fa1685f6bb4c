"""Rows as others publish them: TRL's preferences, ultrafeedback, Alpaca, calls without ids."""

import json

import pytest

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import DatasetError

U = {"role": "user", "content": "How high is the fee?"}
A = {"role": "assistant", "content": "5 euros."}
B = {"role": "assistant", "content": "No idea."}


def read(tmp_path, *rows, **more):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ChatDataset.from_jsonl(file, **more)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [U], "chosen": [A], "rejected": [B]},
        {"prompt": U["content"], "chosen": A["content"], "rejected": B["content"]},
        {"chosen": [U, A], "rejected": [U, B]},
        {"prompt": U["content"], "chosen": [U, A], "rejected": [U, B], "score_chosen": 8.0},
        {"prompt": U["content"], "messages": [U, A], "chosen": [U, A], "rejected": [U, B]},
        {"question": U["content"], "chosen": A["content"], "rejected": B["content"]},
        {
            "instruction": U["content"],
            "input": "",
            "chosen": A["content"],
            "rejected": B["content"],
        },
        {
            "conversations": [{"from": "human", "value": U["content"]}],
            "chosen": {"from": "gpt", "value": A["content"]},
            "rejected": {"from": "gpt", "value": B["content"]},
        },
    ],
)
def test_preferences_of_trl_and_ultrafeedback(tmp_path, row):
    (example,) = read(tmp_path, row).examples
    assert example.messages == [U, A]
    assert example.rejected == B


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [U, A], "rejected": [B]}, "rejected stands beside messages"),
        ({"messages": [U, A], "rejected_response": "b"}, "rejected_response stands beside"),
        ({"prompt": "a", "completion": "b", "label": False}, "label is false: .* not wanted"),
        ({"messages": [U, A], "label": False}, "label is false"),
        ({"chosen": "a", "rejected": "b"}, "they need a prompt"),
        ({"chosen": [U, A], "rejected": [{**U, "content": "Other?"}, B]}, "last message alone"),
        ({"instruction": 5, "output": "x"}, "instruction must be a text, got 5"),
        ({"prompt": 5, "completion": "x"}, "prompt must be a list of messages, got int"),
        ({"messages": "x"}, "messages must be a list of messages, got str"),
        ({"messages": ["x"]}, r"messages\[0\] must be an object, got str"),
        ({"input": "x", "preferred_output": [A], "non_preferred_output": [B]}, "input must be an"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, row, reason):
    with pytest.raises(DatasetError, match=f"line 1, .*{reason}"):
        read(tmp_path, row)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [U, A]},
        {"prompt": [U], "completion": [A]},
        {"question": U["content"], "chosen": A["content"], "rejected": B["content"]},
        {"chosen": [U, A], "rejected": [U, B]},
        {"instruction": U["content"], "output": A["content"]},
        {"instruction": U["content"], "response": A["content"]},
    ],
)
def test_a_system_message_beside_the_others_is_theirs(tmp_path, row):
    (example,) = read(tmp_path, {"system": "Be brief.", **row}).examples
    assert example.messages == [{"role": "system", "content": "Be brief."}, U, A]
    with pytest.raises(DatasetError, match="system must be a text, got 5"):
        read(tmp_path, {"system": 5, **row})


def test_two_system_messages_are_one_too_many(tmp_path):
    with pytest.raises(DatasetError, match="system stands beside messages whose first"):
        read(tmp_path, {"system": "a", "messages": [{"role": "system", "content": "b"}, U, A]})


@pytest.mark.parametrize("answer", ["output", "response"])
def test_the_context_of_an_instruction_is_learnt(tmp_path, answer):
    row = {"instruction": "How high is it?", "context": "The fee is 5 euros.", answer: "5 euros."}
    (example,) = read(tmp_path, row).examples
    assert example.messages[0]["content"] == "How high is it?\n\nThe fee is 5 euros."


def test_a_wanted_answer_of_kto_is_learnt(tmp_path):
    (example,) = read(tmp_path, {"prompt": [U], "completion": [A], "label": True}).examples
    assert example.messages == [U, A]


def test_alpaca_rows(tmp_path):
    plain = {"instruction": "Add.", "input": "", "output": "3"}
    given = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    first, second = read(tmp_path, plain, given).examples
    assert [m["content"] for m in first.messages] == ["Add.", "3"]
    assert [m["content"] for m in second.messages] == ["Add.\n\n1 and 2", "3"]


def test_texts_for_prompt_and_completion(tmp_path):
    (example,) = read(tmp_path, {"prompt": "Add.", "completion": "3"}).examples
    assert [m["role"] for m in example.messages] == ["user", "assistant"]


def test_calls_without_ids_get_them_and_results_find_them(tmp_path):
    function = {"name": "fee", "arguments": {"city": "Oslo"}}
    bare = {"role": "assistant", "tool_calls": [{"function": function}, dict(function)]}
    results = [{"role": "tool", "name": "fee", "content": c} for c in ("5", "6")]
    (example,) = read(tmp_path, {"messages": [U, bare, *results, A]}).examples
    calls = example.messages[1]["tool_calls"]
    assert [call["id"] for call in calls] == ["call_1_0", "call_1_1"]
    assert [m["tool_call_id"] for m in example.messages[2:4]] == ["call_1_0", "call_1_1"]
    assert json.loads(calls[1]["function"]["arguments"]) == {"city": "Oslo"}
    kept = {**bare, "tool_calls": [{"id": "a", "type": "function", "function": function}]}
    (example,) = read(tmp_path, {"messages": [U, kept, results[0], A]}).examples
    assert example.messages[2]["tool_call_id"] == "a"


def test_thoughts_of_a_reasoning_model_are_thinking(tmp_path):
    said = {**A, "reasoning_content": "Hm."}
    (example,) = read(tmp_path, {"messages": [U, said]}).examples
    assert example.messages[1]["thinking"] == "Hm."


TURNS = [{"from": "human", "value": U["content"]}, {"from": "gpt", "value": A["content"]}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": U["content"], "completion": A["content"], "label": "False"},
        {"prompt": [U], "completion": [A], "label": 0},
        {"instruction": U["content"], "output": A["content"], "kto_tag": False},
        {"conversations": TURNS, "kto_tag": False},
        {"conversations": TURNS, "label": False},
    ],
)
def test_an_answer_that_was_not_wanted_is_learnt_from_no_format(tmp_path, row):
    with pytest.raises(DatasetError, match="is false: the answer is one that was not wanted"):
        read(tmp_path, row)


def test_earlier_turns_of_an_instruction_stay(tmp_path):
    row = {"instruction": "And today?", "output": "6 euros.", "system": "Be brief."}
    (example,) = read(tmp_path, {**row, "history": [[U["content"], A["content"]]]}).examples
    assert [message["role"] for message in example.messages] == [
        *("system", "user", "assistant", "user", "assistant"),
    ]
    assert example.messages[1:3] == [U, A]
    with pytest.raises(DatasetError, match="history must hold pairs"):
        read(tmp_path, {**row, "history": ["How high?"]})


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss": False}, {"train": False}])
def test_turns_of_sharegpt_that_are_not_learnt_stay_so(tmp_path, mark):
    row = {"conversations": [TURNS[0], {**TURNS[1], **mark}, *TURNS]}
    (example,) = read(tmp_path, row).examples
    assert [message.get("weight") for message in example.messages] == [None, 0, None, None]


def test_a_call_of_sharegpt_that_is_no_json_is_named(tmp_path):
    turns = [TURNS[0], {"from": "function_call", "value": "fee()"}, TURNS[1]]
    with pytest.raises(DatasetError, match=r"a function_call must hold JSON, got 'fee\(\)'"):
        read(tmp_path, {"conversations": turns})
