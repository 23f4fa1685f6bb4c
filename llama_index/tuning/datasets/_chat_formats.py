"""One function from an example to a line for each format, and one back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.tuning.datasets.chat import ChatExample

Row = dict[str, Any]
Message = dict[str, Any]


def openai_line(example: ChatExample) -> Row:
    """OpenAI's supervised chat format; weights of 0 are kept."""
    return {
        "messages": [_openai_message(message) for message in example.messages],
        **_openai_tools(example),
    }


def preference_line(example: ChatExample) -> Row:
    """OpenAI's preference format (DPO): one preferred and one non-preferred answer."""
    if example.rejected is None:
        raise DatasetError("rejected: the preference format needs a worse answer, it has none")
    prompt = [_without_weight(_openai_message(message)) for message in example.messages[:-1]]
    return {
        "input": {"messages": prompt, **_openai_tools(example)},
        "preferred_output": [_without_weight(_openai_message(example.messages[-1]))],
        "non_preferred_output": [_without_weight(_openai_message(example.rejected))],
    }


def trl_line(example: ChatExample) -> Row:
    """TRL's and Hugging Face's conversational format.

    Arguments are objects, as chat templates expect; tools are JSON text, which TRL reads, since
    a table would fill up the schemas' missing keys with nulls.
    """
    _refuse_weights(example, "'trl-prompt-completion' teaches the last message alone")
    return {
        "messages": [trl_message(message) for message in example.messages],
        **_trl_tools(example),
    }


def prompt_completion_line(example: ChatExample) -> Row:
    """TRL's prompt and completion: only the last message is learnt."""
    messages = [trl_message(message) for message in example.messages]
    return {"prompt": messages[:-1], "completion": messages[-1:], **_trl_tools(example)}


def sharegpt_line(example: ChatExample) -> Row:
    """ShareGPT's format, with function calls and observations as LLaMA-Factory reads them."""
    _refuse_weights(example, "'openai' can")
    line: Row = {"conversations": []}
    turns: list[Row] = line["conversations"]
    observations: list[str] = []
    for place, message in enumerate(example.messages):
        role, text = message["role"], _text(message.get("content"), f"messages[{place}].content")
        if role == "tool":
            observations.append(text)
            following = example.messages[place + 1]["role"]
            if following != "tool":
                shown = observations[0] if len(observations) == 1 else json.dumps(observations)
                turns.append({"from": "observation", "value": shown})
                observations = []
        elif role in ("system", "developer"):
            if place > 0:
                raise DatasetError(f"messages[{place}]: ShareGPT has one system message, the first")
            line["system"] = text
        elif message.get("tool_calls"):
            if text:
                raise DatasetError(f"messages[{place}]: ShareGPT has no text beside a tool call")
            turns.append({"from": "function_call", "value": _sharegpt_calls(message)})
        else:
            turns.append({"from": "human" if role == "user" else "gpt", "value": text})
    if example.tools:
        functions = [tool["function"] for tool in example.tools]
        line["tools"] = json.dumps(functions, ensure_ascii=False)
    return line


def told(row: Mapping[str, Any]) -> str:
    """The format of a line, by its keys."""
    for key, format in {
        "messages": "openai",
        "input": "openai-preference",
        "prompt": "trl-prompt-completion",
        "conversations": "sharegpt",
    }.items():
        if key in row:
            return format
    raise DatasetError(f"the format is unknown: the keys are {', '.join(map(repr, row))}")


def from_openai(row: Mapping[str, Any]) -> Row:
    """An example's fields from OpenAI's line, or from TRL's messages."""
    messages = [_loaded(message) for message in row["messages"]]
    return {"messages": messages, **_loaded_tools(row)}


def from_preference(row: Mapping[str, Any]) -> Row:
    """An example's fields from OpenAI's preference line."""
    fields = from_openai(row["input"])
    better, worse = row["preferred_output"], row["non_preferred_output"]
    if len(better) != 1 or len(worse) != 1:
        raise DatasetError("preferred_output and non_preferred_output must hold one message each")
    fields["messages"] = [_unlearnt(message) for message in fields["messages"]]
    return {
        **fields,
        "messages": [*fields["messages"], _loaded(better[0])],
        "rejected": _loaded(worse[0]),
    }


def from_prompt_completion(row: Mapping[str, Any]) -> Row:
    """An example's fields from TRL's prompt and completion, as messages."""
    if isinstance(row["prompt"], str):
        raise DatasetError("prompt must be a list of messages, got a text")
    prompt = [_unlearnt(_loaded(message)) for message in row["prompt"]]
    completion = [_loaded(message) for message in row["completion"]]
    return {"messages": [*prompt, *completion], **_loaded_tools(row)}


def from_sharegpt(row: Mapping[str, Any]) -> Row:
    """An example's fields from ShareGPT's line; calls get ids by their place."""
    messages: list[Message] = []
    if row.get("system"):
        messages.append({"role": "system", "content": row["system"]})
    waiting: list[str] = []
    count = 0
    for turn in row["conversations"]:
        who, value = turn["from"], turn["value"]
        if who == "function_call":
            parsed = json.loads(value)
            calls = parsed if isinstance(parsed, list) else [parsed]
            waiting = [f"call_{count + place}" for place in range(len(calls))]
            count += len(calls)
            messages.append(_called(calls, waiting))
        elif who == "observation":
            results = json.loads(value) if len(waiting) > 1 else [value]
            messages += [
                {"role": "tool", "tool_call_id": id_, "content": result}
                for id_, result in zip(waiting, results, strict=True)
            ]
        elif who in _SHAREGPT_ROLES:
            messages.append({"role": _SHAREGPT_ROLES[who], "content": value})
        else:
            raise DatasetError(f"conversations: unknown 'from' {who!r}")
    tools = json.loads(row["tools"]) if row.get("tools") else []
    return {
        "messages": messages,
        "tools": [{"type": "function", "function": function} for function in tools],
    }


_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def _openai_message(message: Message) -> Message:
    kept: Message = {"role": message["role"], "content": message.get("content")}
    for key in ("name", "tool_calls", "tool_call_id", "weight"):
        if message.get(key) is not None:
            kept[key] = message[key]
    return kept


def _without_weight(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "weight"}


def _unlearnt(message: Message) -> Message:
    return {**message, "weight": 0} if message["role"] == "assistant" else message


def _openai_tools(example: ChatExample) -> Row:
    fields: Row = {"tools": example.tools} if example.tools else {}
    if example.tools and example.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = example.parallel_tool_calls
    return fields


def trl_message(message: Message) -> Message:
    """A message as chat templates expect it: text for content, objects for arguments."""
    kept = _without_weight(_openai_message(message))
    if isinstance(kept["content"], list) and all(p["type"] == "text" for p in kept["content"]):
        kept["content"] = "\n".join(part["text"] for part in kept["content"])
    if kept["content"] is None:
        kept["content"] = ""  # templates print a null as the word None
    if "tool_calls" in kept:
        kept["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _arguments(call)}}
            for call in kept["tool_calls"]
        ]
    return kept


def _trl_tools(example: ChatExample) -> Row:
    return {"tools": json.dumps(example.tools, ensure_ascii=False)} if example.tools else {}


def _arguments(call: Mapping[str, Any]) -> Any:
    return json.loads(call["function"]["arguments"])


def _refuse_weights(example: ChatExample, instead: str) -> None:
    for place, message in enumerate(example.messages):
        if message.get("weight", 1) == 0:
            raise DatasetError(
                f"messages[{place}].weight is 0, which this format cannot hold; {instead}"
            )


def _text(content: Any, at: str) -> str:
    if isinstance(content, list):
        if any(part["type"] != "text" for part in content):
            raise DatasetError(f"{at}: ShareGPT holds text only")
        return "\n".join(part["text"] for part in content)
    return content or ""


def _sharegpt_calls(message: Message) -> str:
    calls = [
        {"name": call["function"]["name"], "arguments": _arguments(call)}
        for call in message["tool_calls"]
    ]
    return json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)


def _called(calls: list[Row], ids: list[str]) -> Message:
    named = [
        {"id": id_, "type": "function", "function": _function(call)}
        for id_, call in zip(ids, calls, strict=True)
    ]
    return {"role": "assistant", "content": None, "tool_calls": named}


def _function(function: Mapping[str, Any]) -> Row:
    return {**function, "arguments": _json(function["arguments"])}


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _loaded(message: Mapping[str, Any]) -> Message:
    loaded = {key: value for key, value in message.items() if value is not None or key == "content"}
    if loaded.get("tool_calls"):
        loaded["content"] = loaded.get("content") or None
        loaded["tool_calls"] = [
            {**call, "function": _function(call["function"])} for call in loaded["tool_calls"]
        ]
    return loaded


def _loaded_tools(row: Mapping[str, Any]) -> Row:
    tools = row.get("tools") or []
    fields: Row = {"tools": json.loads(tools) if isinstance(tools, str) else tools}
    if row.get("parallel_tool_calls") is not None:
        fields["parallel_tool_calls"] = row["parallel_tool_calls"]
    return fields
