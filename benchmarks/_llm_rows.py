"""The tasks of `llm_pretrained.py`: what is learnt, and how a reply is scored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _llm import geoquery
from llama_index.core.prompts import PromptTemplate

from llama_index.tuning import ChatDataset
from llama_index.tuning.asking import QuestionAnswer
from llama_index.tuning.llms import (
    CallItem,
    ExpectedCall,
    StyleItem,
    call_dataset,
    call_scorer,
    check_task,
    distillation_dataset,
    has_words,
    is_json,
    knowledge_dataset,
    knowledge_scorer,
    sql_task,
    style_task,
    text_to_sql_prompt,
)
from tests.generate.scripted import ScriptedLLM

PRODUCTS = [
    *("kettle", "router", "headset", "printer", "scooter", "drill", "camera", "heater", "tent"),
    *("blender", "monitor", "keyboard", "speaker", "vacuum cleaner", "bicycle", "projector"),
]
FAULTS = [
    *("does not turn on", "makes a loud noise", "arrived broken", "loses its charge in an hour"),
    *("smells of burning", "is missing a screw", "shows error 17", "leaks at the bottom"),
    *("stopped after two days", "has a scratch on the front"),
]
COLOURS = ["red", "blue", "green", "black", "white"]
CITIES = [
    *("Oslo", "Lima", "Cairo", "Perth", "Quito", "Hanoi", "Tunis", "Bern", "Riga", "Dakar"),
    *("Malmo", "Porto", "Leeds", "Turin", "Basel", "Ghent", "Split", "Lagos", "Busan", "Izmir"),
]
UNKNOWN = "The text does not say."


@dataclass(frozen=True)
class Task:
    """Conversations to learn from, an LLM's score on each held-out item, and kinds of items."""

    dataset: ChatDataset
    evaluate: Callable[[Any], Any]
    tools: bool = False
    batch_size: int = 8
    kinds: Mapping[str, list[int]] = field(default_factory=dict)


def style(data: Path, train: int, test: int, draw: random.Random) -> Task:
    """Terse JSON with a schema: a customer's complaint as a ticket, at most 30 words."""
    made = {}
    while len(made) < train + test:
        product, fault = draw.choice(PRODUCTS), draw.choice(FAULTS)
        colour, urgent = draw.choice(COLOURS), draw.random() < 0.5
        order = draw.randint(10000, 99999)
        opening = draw.choice(["Hello, my", "Good day. The", "I am cross: the", "Hi! Sadly the"])
        hurry = draw.choice(["I need it today!", "Please hurry."]) if urgent else "No hurry."
        ticket = {"order": order, "product": product, "fault": fault, "urgent": urgent}
        asked = f"{opening} {colour} {product} of order {order} {fault}. {hurry}"
        made[asked] = json.dumps(ticket)
    items = [StyleItem(asked, output) for asked, output in made.items()]
    kinds = {"order": "integer", "product": "string", "fault": "string", "urgent": "boolean"}
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in kinds.items()},
        "required": list(kinds),
        "additionalProperties": False,
    }
    whole = is_json(schema)  # one check: a reply that is only short earns nothing
    short = has_words(1, 30)
    task = style_task(
        items[:train],
        [lambda output: whole(output) or short(output)],
        held_out=items[train:],
        max_tokens=60,
    )
    return Task(task.dataset, task.evaluate)


def sql(data: Path, train: int, test: int, draw: random.Random) -> Task:
    """GeoQuery's questions, scored by what the queries find."""
    rows = draw.sample(geoquery(data / "geoquery", "train", "val"), train)
    held_out = draw.sample(geoquery(data / "geoquery", "test"), test)
    task = sql_task(
        rows,
        data / "geoquery" / "db.sqlite",
        held_out=held_out,
        prompt=text_to_sql_prompt(schema=False),
        max_tokens=110,
    )
    return Task(task.dataset, task.evaluate)


STOCK = [
    {"id": n, "kind": kind, "colour": colour, "price": 10 + 7 * n % 97}
    for n, (kind, colour) in enumerate((k, c) for k in PRODUCTS for c in COLOURS)
]


def found(program: str) -> frozenset[int] | None:
    """The ids that a program in the small query language finds; None: it is none."""
    try:
        query = json.loads(program)
        below = float(query.get("below", 1e9))
        wanted = {key: query[key] for key in ("kind", "colour") if key in query}
    except (ValueError, TypeError, AttributeError):
        return None
    if set(query) - {"kind", "colour", "below"}:
        return None
    return frozenset(
        one["id"]
        for one in STOCK
        if one["price"] < below and all(one[k] == v for k, v in wanted.items())
    )


def finds_the_same(row: Mapping[str, Any]) -> str | None:
    """Whether the answer finds what the gold program finds."""
    same = found(str(row["answer"])) == found(row["gold"])
    return None if same else "it finds something else"


def shop_rows(number: int, draw: random.Random) -> list[dict[str, Any]]:
    """Wishes of shoppers and the programs that find what they want."""
    rows: dict[str, str] = {}
    while len(rows) < number:
        kind, colour = draw.choice(PRODUCTS), draw.choice([None, *COLOURS])
        below = draw.choice([None, *range(25, 100, 5)])
        words = f"{colour} {kind}" if colour else kind
        ask = draw.choice(["Show me a {}", "Any {}", "I am looking for a {}", "Do you have a {}"])
        limit = draw.choice([" for less than {} euros", " under {}"]).format(below) if below else ""
        wanted = {"kind": kind, "colour": colour, "below": below}
        kept = {key: value for key, value in wanted.items() if value is not None}
        rows[f"{ask.format(words)}{limit}?"] = json.dumps(kept)
    return [{"prompt": p, "answer": gold, "gold": gold} for p, gold in rows.items()]


def programs(data: Path, train: int, test: int, draw: random.Random) -> Task:
    """Queries in JSON that a program runs."""
    rows = shop_rows(train + test, draw)
    task = check_task(rows[:train], check=finds_the_same, held_out=rows[train:], max_tokens=40)
    return Task(task.dataset, task.evaluate)


def distilled(keep: bool) -> Callable[..., Task]:
    """A teacher that is wrong in 30 %: half of that no program, half another one's."""

    def task(data: Path, train: int, test: int, draw: random.Random) -> Task:
        rows = shop_rows(train + test, draw)
        scored = check_task(
            rows[:train], check=finds_the_same, held_out=rows[train:], max_tokens=40
        )
        said = {row["prompt"]: row["gold"] for row in rows[:train]}
        for n, prompt in enumerate(draw.sample(list(said), round(0.3 * train))):
            said[prompt] = draw.choice(rows)["gold"] if n % 2 else "I would look among the offers."

        def runs(prompt: str, answer: str) -> bool:
            """All that can be known without labels: it runs and names what was asked for."""
            kind = json.loads(answer).get("kind") if found(answer) is not None else None
            return kind is not None and f" {kind}" in prompt

        teacher = ScriptedLLM(answer=lambda prompt: said[prompt])
        made = distillation_dataset(said, teacher, keep=runs if keep else None)
        return Task(made, scored.evaluate)

    return task


def short(schema: dict[str, Any]) -> dict[str, Any]:
    """Without the arguments' descriptions, which are nine tenths of a prompt."""
    function = schema["function"]
    properties = {
        name: {"type": about.get("type", "string")}
        for name, about in function["parameters"]["properties"].items()
    }
    parameters = {**function["parameters"], "properties": properties}
    return {**schema, "function": {**function, "parameters": parameters}}


def calls(data: Path, train: int, test: int, draw: random.Random) -> Task:
    """Snips' requests, each with two of the seven functions; the whole call must be right."""
    folder = data / "snips_function_calling"
    schemas = [short(schema) for schema in json.loads((folder / "tools.json").read_text())]
    names = [schema["function"]["name"] for schema in schemas]

    def items(split: str, number: int) -> list[CallItem]:
        rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        made = []
        for row in draw.sample(rows, number):
            [call] = row["answer"]
            other = draw.choice([name for name in names if name != call["name"]])
            offered = sorted([call["name"], other])
            wanted = [ExpectedCall(call["name"], call["arguments"])]
            made.append(CallItem(row["query"], wanted, tools=offered))
        return made

    dataset, _ = call_dataset(items("train", train), schemas)
    return Task(dataset, call_scorer(items("test", test), schemas, max_tokens=80), True, 4)


def contexts(data: Path, train: int, test: int, draw: random.Random) -> Task:
    """Fees in two passages; half of the questions ask for what neither says."""
    rows = []
    for n in range(train + test):
        city, other = draw.sample(CITIES, 2)
        thing, fee, days = draw.choice(PRODUCTS), draw.randint(2, 99), draw.randint(2, 30)
        passage = (
            f"In {city} a {thing} is lent for {fee} euros a day. Those who keep it for more than "
            f"{days} days pay half of it."
        )
        known = n % 2 == 0
        question = f"What does a {thing} cost a day in {city if known else other}? (case {n})"
        answer = f"{fee} euros" if known else UNKNOWN
        rows.append(QuestionAnswer(f"q{n}", question, answer, f"n{n}", passage))
    prompt = PromptTemplate("{context_str}\n\n{query_str} Answer in a few words.")
    shared: dict[str, Any] = {"irrelevant": 1, "prompt": prompt}
    dataset, _ = knowledge_dataset(rows[:train], **shared)
    score = knowledge_scorer(rows[train:], metric="exact", max_tokens=16, **shared)
    kinds = {
        "said": list(range(train % 2, test, 2)),
        "not said": list(range(1 - train % 2, test, 2)),
    }
    return Task(dataset, score, kinds=kinds)


TASKS: dict[str, Callable[..., Task]] = {
    "style": style,
    "sql": sql,
    "programs": programs,
    "distillation": distilled(keep=False),
    "distillation filtered": distilled(keep=True),
    "calls": calls,
    "contexts": contexts,
}
