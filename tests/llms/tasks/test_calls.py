"""Function calling: verified data, scores in BFCL's manner."""

import json

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockLLM
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, field_validator

from llama_index.tuning.asking.results import Dropped
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.calls import (
    CallItem,
    ExpectedCall,
    call_dataset,
    call_scorer,
    call_scores,
    value_accepted,
)
from tests.llms.conftest import FEES, fee_tool, question


def schema(name="pay", required=("euros",), **properties):
    properties = properties or {"euros": {"type": "integer"}, "to": {"type": "string"}}
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


class Stars(BaseModel):
    """A rating."""

    stars: int

    @field_validator("stars")
    @classmethod
    def few(cls, value: int) -> int:
        if value > 5:
            raise ValueError("five at most")
        return value


def rate(stars: int) -> str:
    """Rate it."""
    return str(stars)


PAY = ExpectedCall("pay", {"euros": [5], "to": ["Ada", "Ada L.", ""]})


class Scripted(MockFunctionCallingLLM):
    """Calls what the script says for the last message."""

    def __init__(self, script):
        def reply(messages, **kwargs):
            blocks = [
                ToolCallBlock(tool_call_id=str(n), tool_name=name, tool_kwargs=arguments)
                for n, (name, arguments) in enumerate(script[messages[-1].content])
            ]
            return ChatMessage(role="assistant", blocks=blocks or [TextBlock(text="No.")])

        super().__init__(response_generator=reply, is_chat_model=True)


def scored(calls, expected, schemas=None, **item):
    llm = Scripted({"q": calls})
    found = call_scores(llm, [CallItem("q", expected, **item)], schemas or [schema()])
    return found.name[0], found.call[0], found.valid[0]


def test_conversations_end_in_the_first_values():
    dataset, dropped = call_dataset(
        [
            CallItem("Pay Ada", [PAY]),
            CallItem("Pay", [ExpectedCall("pay", {"euros": [3], "to": ["", "Ada"]})]),
            CallItem("Hello", reply="Hi!"),
        ],
        [schema(), Stars],
    )
    assert dropped == []
    said = [example.messages[-1] for example in dataset.examples]
    written = [json.loads(m["tool_calls"][0]["function"]["arguments"]) for m in said[:2]]
    assert written == [{"euros": 5, "to": "Ada"}, {"euros": 3}]
    assert said[2] == {"role": "assistant", "content": "Hi!"}
    assert [t["function"]["name"] for t in dataset.examples[0].tools] == ["pay", "Stars"]


def test_only_the_tools_of_a_row_are_offered():
    dataset, _ = call_dataset([CallItem("Pay", [PAY], tools=["pay"])], [schema(), Stars])
    assert [t["function"]["name"] for t in dataset.examples[0].tools] == ["pay"]


def earlier(arguments, name="pay"):
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return [
        {"role": "user", "content": "Pay"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (CallItem("", [PAY]), "the question is empty"),
        (CallItem([], [PAY]), "it has no messages"),
        (CallItem(5, [PAY]), "messages must be a question or a list, got int"),
        (CallItem(["x"], [PAY]), "messages must hold objects, got str"),
        ({"messages": "x"}, "must be a CallItem, got dict"),
        (CallItem("x"), "it calls no tool and has no reply"),
        (CallItem("x", [PAY], reply="y"), "both calls and a reply"),
        (CallItem("x", [PAY], tools=["Stars"]), "'pay' is none of the tools offered: Stars"),
        (CallItem("x", [PAY], tools="pay"), "tools must be a list of names, got 'pay'"),
        (CallItem("x", [PAY], tools=["buy"]), "'buy' is none of the tools"),
        (CallItem("x", [("pay", {})]), "calls must hold ExpectedCalls, got tuple"),
        (CallItem("x", [ExpectedCall("buy")]), "'buy' is none of the tools offered"),
        (CallItem("x", [ExpectedCall("pay")]), "'euros' is a required property"),
        (CallItem("x", [ExpectedCall("pay", {"euros": ["", 5]})]), "required property"),
        (CallItem("x", [ExpectedCall("pay", {"euros": 5})]), "euros needs a list of accepted"),
        (CallItem("x", [ExpectedCall("pay", {"euros": []})]), "euros needs a list of accepted"),
        (CallItem("x", [ExpectedCall("pay", {"euros": ["5"]})]), "'5' is not of type 'integer'"),
        (CallItem("x", [ExpectedCall("pay", {"euros": [5, "five"]})]), "'five' is not of type"),
        (CallItem("x", [ExpectedCall("pay", {"euros": [5], "by": ["x"]})]), "'by' is no parameter"),
        (CallItem("x", [ExpectedCall("Stars", {"stars": [6]})]), "five at most"),
        (CallItem("x", [ExpectedCall("rate", {"stars": ["high"]})]), "is not of type 'integer'"),
        (CallItem(earlier('{"euros": "5"}'), reply="Done."), "'5' is not of type 'integer'"),
        (CallItem(earlier("{}", "buy"), reply="Done."), "'buy' is none of the tools"),
        (CallItem([{"role": "robot", "content": "x"}], [PAY]), "messages[0].role must be"),
        (CallItem([{"role": "tool", "tool_call_id": "a", "content": "x"}], [PAY]), "no open call"),
    ],
)
def test_unsound_rows_are_dropped_with_the_reason(item, reason):
    good = CallItem("Pay", [PAY])
    tools = [schema(), Stars, FunctionTool.from_defaults(rate)]
    dataset, dropped = call_dataset([good, item], tools)
    assert len(dataset) == 1
    assert [d.number for d in dropped] == [1]
    assert reason in dropped[0].reason


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([], "at least one tool"),
        ([schema(), schema()], "'pay' occurs twice"),
        ([{"name": "pay"}], "must have type 'function'"),
        ([schema("p a y")], "function.name must be"),
        ([schema(euros={"type": "money"})], "tool pay: parameters is no JSON schema"),
    ],
)
def test_unsound_tools_are_errors(tools, message):
    with pytest.raises(DatasetError, match=message):
        call_dataset([CallItem("Pay", [PAY])], tools)


@pytest.mark.parametrize("tools", ["pay", {"pay": 1}, [rate], [3]])
def test_other_things_are_no_tools(tools):
    with pytest.raises(TypeError, match="tools"):
        call_dataset([CallItem("Pay", [PAY])], tools)


def test_nothing_sound_is_an_error_with_the_reasons():
    with pytest.raises(DatasetError, match="row 0: the question is empty"):
        call_dataset([CallItem("", [PAY])], [schema()])


@pytest.mark.parametrize(
    ("calls", "expected", "scores"),
    [
        ([("pay", {"euros": 5, "to": "ada"})], [PAY], (1, 1, 1)),
        ([("pay", {"euros": 5})], [PAY], (1, 1, 1)),  # it may be left out
        ([("pay", {"euros": 5, "to": ""})], [PAY], (1, 0, 1)),
        ([("pay", {"euros": 6, "to": "Ada"})], [PAY], (1, 0, 1)),
        ([("pay", {"euros": "5", "to": "Ada"})], [PAY], (1, 0, 0)),
        ([("pay", {"to": "Ada"})], [PAY], (1, 0, 0)),
        ([("pay", {"euros": 5, "by": "x"})], [PAY], (1, 0, 0)),
        ([("buy", {"euros": 5})], [PAY], (0, 0, 0)),
        ([], [PAY], (0, 0, 1)),
        ([], [], (1, 1, 1)),
        ([("pay", {"euros": 5})], [], (0, 0, 1)),
        ([("pay", {"euros": 5})] * 2, [PAY], (0, 0, 1)),
        (
            [("pay", {"euros": 5}), ("pay", {"euros": 7})],
            [ExpectedCall("pay", {"euros": [7]}), PAY],
            (1, 1, 1),
        ),
        (  # the first call fits both, the second only the one: greedy matching would fail
            [("pay", {"euros": 5}), ("pay", {"euros": 7})],
            [ExpectedCall("pay", {"euros": [5, 7]}), ExpectedCall("pay", {"euros": [5]})],
            (1, 1, 1),
        ),
        (
            [("pay", {"euros": 5}), ("pay", {"euros": 5})],
            [PAY, ExpectedCall("pay", {"euros": [7]})],
            (1, 0, 1),
        ),
    ],
)
def test_scores(calls, expected, scores):
    assert scored(calls, expected) == scores


def test_a_tool_that_was_not_offered_is_no_valid_call():
    assert scored([("pay", {"euros": 5})], [], [schema(), Stars], tools=["Stars"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("value", "accepted", "right"),
    [
        ("New York!", ["new york"], False),
        ("9:00", ["9.00"], False),
        ("-", ["*"], False),
        ([1, "A"], [[1, "a"]], True),
        ([1], [[1, 2]], False),
        ({"a": "X"}, [{"a": "x"}], True),
        ({"a": 1, "b": 2}, [{"a": 1}], False),
        (None, [None], True),
        (2, [2.0], True),
        (1, [True], False),
    ],
)
def test_values(value, accepted, right):
    assert value_accepted(value, accepted) is right


def test_the_scorer_scores_every_item_in_order():
    llm = Scripted({"a": [("pay", {"euros": 5})], "b": [], "c": [("pay", {"euros": 9})]})
    items = [CallItem("a", [PAY]), CallItem("b"), CallItem("c", [PAY])]
    found = {s: call_scorer(items, [schema()], score=s)(llm) for s in ("call", "name", "valid")}
    assert np.array_equal(found["call"], [1, 1, 0])
    assert np.array_equal(found["name"], [1, 1, 1])
    assert found["call"].dtype == np.float64


@pytest.mark.parametrize(
    ("items", "given", "error", "message"),
    [
        ([CallItem("x", [PAY])], {"score": "recall"}, ValueError, "score must be"),
        ([], {}, DatasetError, "at least one row"),
        ([CallItem("x", [ExpectedCall("buy")])], {}, DatasetError, "row 0: 'buy'"),
    ],
)
def test_the_scorer_refuses_at_once(items, given, error, message):
    with pytest.raises(error, match=message):
        call_scorer(items, [schema()], **given)


def test_an_llm_without_function_calling_is_refused():
    with pytest.raises(TypeError, match="must be able to call functions, got MockLLM"):
        call_scorer([CallItem("x", [PAY])], [schema()])(MockLLM())


@pytest.mark.parametrize("workers", [0, 1.5, True])
def test_workers_must_be_a_number(workers):
    with pytest.raises(ValueError, match="workers"):
        call_scorer([CallItem("q", [])], [schema()], workers=workers)(Scripted({"q": []}))


def test_an_error_of_the_llm_is_no_score():
    with pytest.raises(KeyError):
        call_scorer([CallItem("unknown")], [schema()])(Scripted({}))


def test_a_tuned_model_is_scored_in_batches(tuned):
    items = [CallItem(question(c), [ExpectedCall("fee", {"city": [c]})]) for c in FEES]
    found = call_scores(tuned, items, [fee_tool()], max_tokens=60)
    assert found.call.tolist() == found.name.tolist() == found.valid.tolist() == [1, 1]
    wrong = [CallItem(question(c), [ExpectedCall("fee", {"city": ["Rome"]})]) for c in FEES]
    assert call_scores(tuned, wrong, [fee_tool()], max_tokens=60).call.tolist() == [0, 0]


def test_dropped_rows_are_plain_data():
    assert Dropped(3, "why") == Dropped(number=3, reason="why")


def test_a_tool_may_be_described_at_length():
    """OpenAI's limit is OpenAI's."""
    tool = FunctionTool.from_defaults(lambda: "", name="now", description="The time. " * 200)
    dataset, dropped = call_dataset([CallItem("What time is it?", [ExpectedCall("now")])], [tool])
    assert len(dataset) == 1
    assert not dropped
