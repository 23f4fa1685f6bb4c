import json

import pytest

from llama_index.tuning.datasets.chat import FORMATS, ChatDataset
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError

FEE = {
    "type": "function",
    "function": {
        "name": "fee",
        "description": "The fee",
        "parameters": {"type": "object", "properties": {"account": {"type": "string"}}},
    },
}


def user(text):
    return {"role": "user", "content": text}


def said(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(id_, arguments='{"account": "größer"}', name="fee"):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls):
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(id_, text="5"):
    return {"role": "tool", "tool_call_id": id_, "content": text}


TOOLS = [
    {"role": "system", "content": "Be brief."},
    user("Fees?"),
    calling(call("a"), call("b", '{"account": "basic"}')),
    result("a"),
    result("b", "6"),
    said("5 and 6."),
]


def dataset(n=1, messages=None, **fields):
    given = messages or [user("q"), said("a")]
    return ChatDataset([ChatExample(given, **fields)] * n)


def faults(messages, **fields):
    with pytest.raises(DatasetError) as caught:
        ChatDataset([ChatExample(messages, **fields)])
    return caught.value.faults


CASES = [
    ([], {}, "messages must be a list of at least one message"),
    ([user("q")], {}, "messages[0]: the last message must be the assistant's"),
    ([said("a")], {}, "no message is a user's or the system's"),
    ([{"role": "bot", "content": "x"}], {}, "messages[0].role must be one of"),
    (["q"], {}, "messages[0] must be an object, got str"),
    ([user(""), said("")], {}, "messages[1].content is empty, and the message calls no tool"),
    ([user(None), said("a")], {}, "messages[0].content must be a text, got null"),
    ([user(7), said("a")], {}, "messages[0].content must be a text or a list of parts, got int"),
    ([user(" \n"), said("a")], {}, "messages[0].content is only white space"),
    ([user("q \ud83e"), said("a")], {}, "messages[0]: the text holds half a character"),
    (
        [user("q"), said("a")],
        {"rejected": said("\udd99")},
        "rejected: the text holds half a character",
    ),
    ([user([{"type": "audio"}]), said("a")], {}, "messages[0].content[0]: a part of type 'audio'"),
    ([user("q"), said([{"type": "image_url"}])], {}, "messages[1].content[0]: a part of type"),
    ([{**user("q"), "weight": 0}, said("a")], {}, "messages[0].weight is for the assistant's"),
    ([user("q"), said("a", weight=0.5)], {}, "messages[1].weight must be 0 or 1, got 0.5"),
    ([user("q"), said("a", weight=0)], {}, "no assistant message has a weight above 0"),
    ([user("q"), result("x"), said("a")], {}, "messages[1].tool_call_id 'x' answers no open call"),
    ([user("q"), result(None), said("a")], {}, "messages[1].tool_call_id must be the id of a call"),
    ([user("q"), calling(call("a")), said("x")], {}, "the calls a before it were not answered"),
    ([user("q"), calling(call("a"), call("a"))], {}, "id 'a' is used twice in this message"),
    ([user("q"), calling(call(""))], {}, "tool_calls[0].id must be a text that is not empty"),
    ([user("q"), calling(call("a", name="f f"))], {}, "function.name must be 1 to 64 of"),
    (
        [user("q"), calling(call("a", "[1]"))],
        {},
        "function.arguments must be a JSON object as text",
    ),
    ([user("q"), calling(call("a", "{"))], {}, "function.arguments must be a JSON object as text"),
    ([user("q"), calling({"id": "a"})], {}, "tool_calls[0] must have type 'function'"),
    ([user("q"), said("a", tool_calls=[])], {}, "tool_calls must be a list of at least one call"),
    (
        [user("q"), calling(call("a", name="other"))],
        {"tools": [FEE]},
        "function.name 'other' is none of the tools",
    ),
    ([user("q"), said("a")], {"tools": [FEE, FEE]}, "tools[1].function.name 'fee' occurs twice"),
    ([user("q"), said("a")], {"tools": [{"name": "f"}]}, "tools[0] must have type 'function'"),
    ([user("q"), said("a")], {"parallel_tool_calls": 1}, "parallel_tool_calls must be true or"),
    ([user("q"), said("a")], {"rejected": user("b")}, "rejected.role must be 'assistant'"),
    ([user("q"), said("a")], {"rejected": said("a")}, "rejected says the same as the last"),
]


@pytest.mark.parametrize(("messages", "fields", "fault"), CASES)
def test_each_fault_is_named_with_its_field(messages, fields, fault):
    found = faults(messages, **fields)
    assert any(fault in text for text in found), found
    assert all(text.startswith("example 0, ") for text in found)


def test_a_conversation_may_end_in_a_tool_call():
    assert len(dataset(messages=[user("q"), calling(call("a"))], tools=[FEE])) == 1


def test_the_openai_line_keeps_weights_and_the_preference_line_has_none():
    messages = [user("q"), said("old", weight=0), user("r"), said("a")]
    example = ChatExample(messages, [FEE], False, rejected=said("b"))
    [line] = ChatDataset([example]).lines("openai")
    assert line == {"messages": messages, "tools": [FEE], "parallel_tool_calls": False}
    [line] = ChatDataset([example]).lines("openai-preference")
    assert line["input"]["messages"][1] == said("old")
    assert line["preferred_output"] == [said("a")]
    assert line["non_preferred_output"] == [said("b")]


def test_trl_lines_hold_arguments_as_objects_and_tools_as_text():
    [line] = dataset(messages=TOOLS, tools=[FEE]).lines("trl")
    assert line["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"account": "größer"}
    assert line["messages"][2]["content"] == ""
    assert json.loads(line["tools"]) == [FEE]


def test_sharegpt_lines_hold_calls_and_observations():
    [line] = dataset(messages=TOOLS, tools=[FEE]).lines("sharegpt")
    assert line["system"] == "Be brief."
    who = [turn["from"] for turn in line["conversations"]]
    assert who == ["human", "function_call", "observation", "gpt"]
    assert json.loads(line["conversations"][1]["value"])[1] == {
        "name": "fee", "arguments": {"account": "basic"},
    }  # fmt: skip
    assert json.loads(line["conversations"][2]["value"]) == ["5", "6"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_loads_back_and_writes_the_same(tmp_path, format):
    example = ChatExample(TOOLS, [FEE], rejected=said("7."))
    given = ChatDataset([example] * 10)
    given.save_jsonl(tmp_path / "a.jsonl", format=format)
    loaded = ChatDataset.from_jsonl(tmp_path / "a.jsonl")
    loaded.save_jsonl(tmp_path / "b.jsonl", format=format)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert len(loaded) == 10


def test_a_format_that_cannot_hold_a_conversation_names_line_and_field():
    masked = [user("q"), said("old", weight=0), user("r"), said("a")]
    chats = ChatDataset([*dataset().examples, ChatExample(masked)])
    with pytest.raises(DatasetError, match=r"line 2, messages\[1\].weight is 0"):
        list(chats.lines("trl"))
    with pytest.raises(DatasetError, match="line 1, rejected: the preference format needs"):
        list(chats.lines("openai-preference"))
    with pytest.raises(ValueError, match="unknown format 'csv'; choose one of: openai"):
        list(chats.lines("csv"))
    assert len(list(chats.lines("trl-prompt-completion"))) == 2


def test_too_few_and_too_long_write_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(DatasetError, match="9 examples, at least 10 are needed"):
        dataset(9).save_jsonl(path)
    with pytest.raises(DatasetError, match=r"line 1 has \d+ characters, the limit is 20"):
        dataset(10).save_jsonl(path, max_characters=20)
    assert not path.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "line 2, the format is unknown"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "line 2, messages.0.: the last"),
        ('{"messages": 5}', "line 2, "),
        ('{"messages": [{"role": "user"', "line 2 is not valid JSON"),
        ('{"input": {"messages": []}}', "line 2, lacks 'preferred_output'"),
        ('{"conversations": [{"from": "alien", "value": "x"}]}', "unknown 'from' 'alien'"),
        ('{"prompt": 5, "completion": "a"}', "line 2, prompt must be a list of messages"),
    ],
)
def test_a_faulty_line_is_named_when_loading(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"messages": [user("q"), said("a")]})
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(DatasetError, match=message):
        ChatDataset.from_jsonl(path)


def test_a_split_keeps_conversations_that_open_alike_together():
    examples = [ChatExample([user(f"q{n % 10}"), said(f"a{n}")]) for n in range(30)]
    train, test = ChatDataset(examples).split(0.3, seed=1)
    opened = [{e.messages[0]["content"] for e in part.examples} for part in (train, test)]
    assert not opened[0] & opened[1]
    assert len(train) + len(test) == 30
    assert 6 <= len(test) <= 12
    with pytest.raises(DatasetError, match="all 3 conversations open alike"):
        dataset(3).split()


def test_the_fingerprint_follows_the_content():
    assert dataset().fingerprint() == dataset().fingerprint()
    assert dataset().fingerprint() != dataset(messages=[user("q"), said("b")]).fingerprint()


def test_openai_lines_satisfy_the_clients_own_types(tmp_path):
    from openai.types.chat import (
        ChatCompletionAssistantMessageParam as Assistant,
        ChatCompletionFunctionToolParam as Tool,
        ChatCompletionMessageParam as Message,
    )
    from pydantic import TypeAdapter

    image = user(
        [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ]
    )
    chats = ChatDataset(
        [
            ChatExample(TOOLS, [FEE], True, rejected=said("7.")),
            ChatExample([image, said("A card.")], rejected=said("A dog.")),
        ]
    )
    one, several, tool = TypeAdapter(Assistant), TypeAdapter(list[Message]), TypeAdapter(Tool)
    for line in chats.lines("openai"):
        several.validate_python(line["messages"], strict=False)
        [tool.validate_python(given) for given in line.get("tools", [])]
    for line in chats.lines("openai-preference"):
        several.validate_python(line["input"]["messages"])
        one.validate_python(line["preferred_output"][0])
        one.validate_python(line["non_preferred_output"][0])


@pytest.mark.parametrize("format", ["openai", "trl", "sharegpt"])
def test_files_load_with_the_datasets_library_unchanged(tmp_path, format, monkeypatch):
    import datasets

    datasets.disable_progress_bars()
    other = {"type": "function", "function": {"name": "card", "parameters": {"type": "object"}}}
    examples = [
        ChatExample(TOOLS, [FEE]),
        ChatExample([user("c"), calling(call("z", '{"number": 3}', "card"))], [other]),
        ChatExample([user("q"), said("a")]),
    ]
    chats = ChatDataset(examples * 4)
    path = tmp_path / "a.jsonl"
    chats.save_jsonl(path, format=format)
    loaded = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 12
    if format == "trl":
        lines = list(chats.lines(format))
        for row, line in zip(loaded, lines, strict=True):
            assert {k: v for k, v in row.items() if v is not None} == line
