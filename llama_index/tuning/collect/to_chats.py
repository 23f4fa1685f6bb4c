"""Recorded LLM exchanges as conversations and as preferences."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from llama_index.tuning.collect.recorded import Recorded
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.chat_faults import example_faults
from llama_index.tuning.datasets.records import ChatExample

if TYPE_CHECKING:
    from llama_index.tuning.collect.recorded import Record, Teacher, Where


logger = logging.getLogger(__name__)

Message = dict[str, Any]


def chat_dataset(
    traffic: Recorded, where: Where | None = None, teacher: Teacher | None = None
) -> ChatDataset:
    """LLM exchanges as conversations; what a longer one holds is no line of its own."""
    exchanges = sound([conversation(r) for r in traffic.select("llm", where, teacher)])
    taught = {_key(example) for example in exchanges}
    covered: set[str] = set()
    weighted = []
    for example in exchanges:
        messages = []
        for place, message in enumerate(example.messages[:-1]):
            if message["role"] == "assistant":
                part = _key(ChatExample(example.messages[: place + 1], example.tools))
                message = {**message, "weight": int(part in taught)}
                covered.add(part)
            messages.append(message)
        weighted.append(replace(example, messages=[*messages, example.messages[-1]]))
    pairs = zip(exchanges, weighted, strict=True)
    return ChatDataset([kept for example, kept in pairs if _key(example) not in covered])


def preference_dataset(
    traffic: Recorded, where: Where | None = None, teacher: Teacher | None = None
) -> ChatDataset:
    """A better and a worse answer to the same prompt."""
    exchanges = list(traffic.select("llm", where, teacher))
    # What a judge, a router or a re-ranker was asked is not what the user corrects.
    last = {record.trace: record for record in exchanges if record.data.get("within") is None}
    pairs = []
    for record in last.values():
        feedback = traffic.last_feedback(record.trace)
        if feedback is not None and feedback["answer"]:
            better = {"role": "assistant", "content": feedback["answer"]}
            pairs.append(_pair(conversation(record), better, record.data["response"]))
    rated = [r for r in exchanges if r.feedback is not None or r.score is not None]
    for records in _by_prompt(rated):
        compared = _best_and_worst(records)
        if compared is not None:
            best, worst = compared
            pairs.append(_pair(conversation(best), best.data["response"], worst.data["response"]))
    return ChatDataset(sound(pairs))


def _best_and_worst(records: list[Record]) -> tuple[Record, Record] | None:
    """Of answers to one prompt: by users' scores, else by judges', never one against the other."""
    for score in (attrgetter("feedback"), attrgetter("score")):
        scored = sorted((r for r in records if score(r) is not None), key=score)
        if scored and score(scored[0]) < score(scored[-1]):
            best = next(r for r in scored if score(r) == score(scored[-1]))
            same = best.data["response"] == scored[0].data["response"]
            return None if same else (best, scored[0])
    return None


def _by_prompt(records: list[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        example = conversation(record)
        key = _key(replace(example, messages=example.messages[:-1]))
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def sound(examples: list[ChatExample]) -> list[ChatExample]:
    """Those that can be trained on: an answer may be empty, a tool call left unanswered."""
    faults = [example_faults(example) for example in examples]
    found = [fault[0] for fault in faults if fault]
    if found:
        logger.warning("%d exchanges are left out; the first: %s", len(found), found[0])
    return [example for example, fault in zip(examples, faults, strict=True) if not fault]


def conversation(record: Record) -> ChatExample:
    """The whole exchange."""
    data = record.data
    messages = filled([*data["messages"], data["response"]])
    return ChatExample(messages, data.get("tools", []), data.get("parallel_tool_calls"))


def filled(given: list[Message]) -> list[Message]:
    """The messages with an id for every tool call, and every result, that has none."""
    messages, waiting, calls = [], [], 0
    for message in given:
        if message.get("tool_calls"):
            named = []
            for call in message["tool_calls"]:
                named.append({**call, "id": call["id"] or f"call_{calls}"})
                calls += 1
            message = {**message, "tool_calls": named}
            waiting = [call["id"] for call in named]
        elif message["role"] == "tool":
            id_ = message.get("tool_call_id") or (waiting[0] if waiting else None)
            message = {**message, "tool_call_id": id_}
            waiting = [other for other in waiting if other != id_]
        messages.append(message)
    return messages


def _pair(example: ChatExample, better: Message, worse: Message) -> ChatExample:
    prompt = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in example.messages[:-1]
    ]
    return replace(example, messages=[*prompt, better], rejected=worse)


def _key(example: ChatExample) -> str:
    return json.dumps([example.messages, example.tools], sort_keys=True)
