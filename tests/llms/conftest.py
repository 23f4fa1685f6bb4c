"""Tiny parts for the tests of LLM tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from llama_index.tuning import HuggingFaceFinetuneEngine, TunedHuggingFaceLLM
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.messages import message_record, tool_record
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.llms import HuggingFaceOptions
from llama_index.tuning.llms.tasks.style import StyleItem, is_json, style_dataset
from tests.llms.tiny import save_tiny

CITIES = ["Oslo", "Lima", "Cairo", "Quito", "Paris", "Delhi", "Rome", "Seoul", "Accra", "Baku"]


def fees(n: int = 20) -> ChatDataset:
    """Questions whose answers follow a rule."""
    return ChatDataset.from_messages(
        [
            [
                {"role": "user", "content": f"Fee in {CITIES[i % 10]} for {i // 10 + 1}?"},
                {"role": "assistant", "content": f"{CITIES[i % 10]}: {i // 10 + 1} euros."},
            ]
            for i in range(n)
        ]
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    texts = [m["content"] for e in fees(50).examples for m in e.messages]
    return save_tiny(tmp_path_factory.mktemp("tiny-llm") / "model", texts)


class City(BaseModel):
    """A city."""

    name: str
    fee: int


FEES = {"Oslo": 5, "Lima": 3}


def fee(city: str) -> str:
    """The fee in a city."""
    return str(FEES[city])


def fee_tool():
    return FunctionTool.from_defaults(fn=fee, description="Fee.")


def question(city: str) -> str:
    """It names the city often, so that a tiny model soon sees the one word that matters."""
    return f"{city} {city} {city}: fee in {city}?"


def request(city: str) -> str:
    """One for a `City`."""
    return f"{city} {city} {city}: about {city}"


def json_chats() -> ChatDataset:
    """What `LLMTextCompletionProgram` asks for a `City`, answered by sound JSON."""
    prompt = PromptTemplate("{request}", output_parser=PydanticOutputParser(City))
    items = [
        StyleItem(
            [message_record(m) for m in prompt.format_messages(request=request(city))],
            City(name=city, fee=euros).model_dump_json(),
        )
        for city, euros in FEES.items()
    ]
    return style_dataset(items, [is_json(City.model_json_schema())])[0]


def tool_chats() -> ChatDataset:
    """Conversations that call `fee`, that fill in a `City`, and that call nothing."""
    offered = {"fee": tool_record(fee_tool()), "City": tool_record(get_function_tool(City))}

    def calling(tool, **arguments):
        function = {"name": tool, "arguments": json.dumps(arguments)}
        call = {"id": "c1", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    examples = []
    for city, euros in FEES.items():
        asked = {"role": "user", "content": question(city)}
        result = {"role": "tool", "tool_call_id": "c1", "content": str(euros)}
        hello = {"role": "assistant", "content": "Hello!"}
        said = {"role": "assistant", "content": f"In {city} it is {euros} euros."}
        examples += [
            ChatExample([asked, calling("fee", city=city), result, said], [offered["fee"]]),
            ChatExample(
                [
                    {"role": "user", "content": request(city)},
                    calling("City", name=city, fee=euros),
                ],
                [offered["City"]],
            ),
            ChatExample([{"role": "user", "content": f"Hi {city}"}, hello]),
        ]
    return ChatDataset(examples)


def learn_by_heart(folder: Path, chats: ChatDataset, *, steps: int) -> Path:
    """The folder of a tiny model tuned until it knows the conversations."""
    texts = [json.dumps(line, ensure_ascii=False) for line in chats.lines("trl")] * 3
    save_tiny(folder / "base", texts, vocabulary=600, hidden=96)
    engine = HuggingFaceFinetuneEngine(
        chats,
        folder / "base",
        model_output_path=folder / "tuned",
        evaluate=lambda llm: [0.0] * 20,
        options=HuggingFaceOptions(
            weights="full", device="cpu", learning_rate=4e-3, max_steps=steps, batch_size=6
        ),
        accept="always",
    )
    engine.finetune()
    return folder / "tuned"


@pytest.fixture(scope="session")
def tuned_folder(tmp_path_factory):
    """A model that has learnt `tool_chats` by heart."""
    return learn_by_heart(tmp_path_factory.mktemp("tuned-llm"), tool_chats(), steps=80)


@pytest.fixture(scope="session")
def tuned(tuned_folder):
    return TunedHuggingFaceLLM.load(tuned_folder, device="cpu", max_new_tokens=60)
