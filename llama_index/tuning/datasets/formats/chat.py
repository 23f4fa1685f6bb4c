"""One function from an example to a line for each format, and one back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.tuning.datasets.records import ChatExample


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
    for keys, format in (
        (("chosen", "rejected"), "trl-preference"),
        (("input", "preferred_output"), "openai-preference"),
        (("instruction", "output"), "alpaca"),
        (("instruction", "response"), "alpaca"),
        (("messages",), "openai"),
        (("prompt",), "trl-prompt-completion"),
        (("conversations",), "sharegpt"),
        (("input",), "openai-preference"),
    ):
        if all(key in row for key in keys):
            return format
    raise DatasetError(f"the format is unknown: the keys are {', '.join(map(repr, row))}")


def from_openai(row: Mapping[str, Any]) -> Row:
    """An example's fields from OpenAI's line, or from TRL's messages."""
    dropped = [
        key
        for key, value in row.items()
        if value is not None and str(key).startswith(_PREFERENCES) and "score" not in str(key)
    ]
    if dropped:
        raise DatasetError(
            f"{dropped[0]} stands beside messages and would be dropped; rows of preferences have "
            "chosen and rejected"
        )
    _refuse_unwanted(row)
    messages = _after_system(row, _loaded_messages(row["messages"], "messages"))
    return {"messages": messages, **_loaded_tools(row)}


_PREFERENCES = ("chosen", "rejected", "completion", "preferred_output", "non_preferred_output")


def _refuse_unwanted(row: Mapping[str, Any]) -> None:
    """A KTO row whose answer people did not want must not be learnt."""
    for key in ("label", "kto_tag"):
        if str(row.get(key)).strip().casefold() in ("false", "0", "0.0"):
            raise DatasetError(
                f"{key} is false: the answer is one that was not wanted, and would be learnt as a "
                "good one; leave such rows out, or pair them with a better answer as chosen and "
                "rejected"
            )


def from_preference(row: Mapping[str, Any]) -> Row:
    """An example's fields from OpenAI's preference line."""
    if not isinstance(row["input"], Mapping):
        raise DatasetError(f"input must be an object with messages, got {row['input']!r:.80}")
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
    """An example's fields from TRL's prompt and completion, as messages or as texts."""
    _refuse_unwanted(row)
    prompt = _after_system(row, _loaded_messages(row["prompt"], "prompt", "user"))
    completion = _loaded_messages(row["completion"], "completion", "assistant")
    messages = _with_ids([*map(_unlearnt, prompt), *completion])
    return {"messages": messages, **_loaded_tools(row)}


def from_trl_preference(row: Mapping[str, Any]) -> Row:
    """An example's fields from TRL's preferences: chosen and rejected, with the prompt or without.

    Without a `prompt` of messages both hold whole conversations, which open alike; a prompt that
    is a text beside conversations is their first message, as in ultrafeedback. Orca's pairs call
    it `question`; Alpaca's and ShareGPT's ask as their other rows do.
    """
    chosen = _loaded_messages(_turned(row["chosen"]), "chosen", "assistant")
    rejected = _loaded_messages(_turned(row["rejected"]), "rejected", "assistant")
    whole = any(message["role"] != "assistant" for message in chosen)
    prompt = [] if whole else _asked(row)
    better, worse = (_after_system(row, [*prompt, *said]) for said in (chosen, rejected))
    if not chosen or not rejected or better[:-1] != worse[:-1]:
        raise DatasetError("chosen and rejected must differ in their last message alone")
    *before, last = _with_ids(better)
    return {
        "messages": [*map(_unlearnt, before), last],
        "rejected": _with_ids(worse)[-1],
        **_loaded_tools(row),
    }


def _turned(given: Any) -> Any:
    """ShareGPT's turn, or its turns, as messages; anything else as it is."""
    turns = [given] if isinstance(given, dict) and "from" in given else given
    dicts = isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)
    if dicts and turns and all("from" in turn for turn in turns):
        return from_sharegpt({"conversations": turns})["messages"]
    return given


def _asked(row: Mapping[str, Any]) -> list[Message]:
    """What two answers of a preference reply to."""
    for key in ("prompt", "question"):
        if key in row:
            return _loaded_messages(row[key], key, "user")
    if "conversations" in row:
        return list(from_sharegpt({"conversations": row["conversations"]})["messages"])
    if "instruction" in row:
        alone = {key: value for key, value in row.items() if key != "system"}
        return list(from_alpaca({**alone, "output": ""})["messages"][:-1])
    raise DatasetError("chosen and rejected hold answers alone: they need a prompt")


def from_alpaca(row: Mapping[str, Any]) -> Row:
    """An example's fields from Alpaca's instruction, input and output.

    Dolly's rows call the last two `context` and `response`; `history` holds earlier pairs of
    instruction and output.
    """
    _refuse_unwanted(row)
    answer = "output" if "output" in row else "response"
    for key in ("instruction", "input", "context", answer):
        if not isinstance(row.get(key) or "", str):
            raise DatasetError(f"{key} must be a text, got {row[key]!r:.80}")
    given = row.get("input") or row.get("context") or ""
    asked = f"{row['instruction']}\n\n{given}" if given.strip() else row["instruction"]
    said = [{"role": "user", "content": asked}, {"role": "assistant", "content": row[answer]}]
    earlier = row.get("history") or []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in earlier):
        raise DatasetError(f"history must hold pairs of question and answer, got {earlier!r:.80}")
    for before, reply in reversed(earlier):
        said[:0] = [{"role": "user", "content": before}, {"role": "assistant", "content": reply}]
    return {"messages": _after_system(row, said)}


def from_sharegpt(row: Mapping[str, Any]) -> Row:
    """An example's fields from ShareGPT's line; calls get ids by their place.

    A turn of weight 0, as Axolotl writes it, or with `loss` or `train` false is not learnt.
    """
    _refuse_unwanted(row)
    messages: list[Message] = _after_system(row, [])
    waiting: list[str] = []
    count = 0
    for turn in row["conversations"]:
        who, value = turn["from"], turn["value"]
        if who == "function_call":
            parsed = _parsed(value, "a function_call")
            calls = parsed if isinstance(parsed, list) else [parsed]
            waiting = [f"call_{count + place}" for place in range(len(calls))]
            count += len(calls)
            messages.append(_called(calls, waiting))
        elif who == "observation":
            results = _parsed(value, "an observation") if len(waiting) > 1 else [value]
            messages += [
                {"role": "tool", "tool_call_id": id_, "content": result}
                for id_, result in zip(waiting, results, strict=True)
            ]
        elif who in _SHAREGPT_ROLES:
            messages.append({"role": _SHAREGPT_ROLES[who], "content": value})
        else:
            raise DatasetError(f"conversations: unknown 'from' {who!r}")
        if turn.get("weight") == 0 or turn.get("loss") is False or turn.get("train") is False:
            messages[-1] = _unlearnt(messages[-1])
    tools = json.loads(row["tools"]) if row.get("tools") else []
    return {
        "messages": messages,
        "tools": [{"type": "function", "function": function} for function in tools],
    }


def _parsed(value: str, what: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise DatasetError(f"conversations: {what} must hold JSON, got {value!r:.80}") from error


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
    arguments = function.get("arguments")
    return {**function, "arguments": _json({} if arguments is None else arguments)}


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _loaded_messages(given: Any, at: str, role: str | None = None) -> list[Message]:
    """Messages as they were written; a text is one message of the role."""
    if isinstance(given, str) and role is not None:
        return [{"role": role, "content": given}]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise DatasetError(f"{at} must be a list of messages, got {type(given).__name__}")
    wrong = next((n for n, each in enumerate(given) if not isinstance(each, Mapping)), None)
    if wrong is not None:
        raise DatasetError(f"{at}[{wrong}] must be an object, got {type(given[wrong]).__name__}")
    return _with_ids([_loaded(message) for message in given])


def _after_system(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """The messages behind the system text beside them, as in Anthropic's rows."""
    system = row.get("system")
    if not system:
        return messages
    if not isinstance(system, str):
        raise DatasetError(f"system must be a text, got {system!r:.80}")
    if messages and messages[0]["role"] == "system":
        raise DatasetError("system stands beside messages whose first is the system's too")
    return [{"role": "system", "content": system}, *messages]


def _loaded(message: Mapping[str, Any]) -> Message:
    loaded = {key: value for key, value in message.items() if value is not None or key == "content"}
    thoughts = loaded.pop("reasoning_content", None)
    if thoughts and "thinking" not in loaded:
        loaded["thinking"] = thoughts
    if loaded.get("tool_calls"):
        loaded["content"] = loaded.get("content") or None
        loaded["tool_calls"] = [_loaded_call(call) for call in loaded["tool_calls"]]
    return loaded


def _loaded_call(call: Any) -> Any:
    """A call as OpenAI has it; Hugging Face's may lack `type`, or stand without `function`."""
    if not isinstance(call, Mapping):
        return call
    function = call.get("function")
    if function is None and "name" in call:
        function = {key: call[key] for key in ("name", "arguments") if key in call}
    if not isinstance(function, Mapping):
        return dict(call)
    kept = {key: call[key] for key in ("id",) if call.get(key) is not None}
    return {**kept, "type": call.get("type", "function"), "function": _function(function)}


def _with_ids(messages: list[Message]) -> list[Message]:
    """Calls without ids get one, and the results that follow name them in their order."""
    made: list[Message] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        calls = message.get("tool_calls")
        if calls:
            named = [
                {"id": f"call_{place}_{n}", **call} if isinstance(call, Mapping) else call
                for n, call in enumerate(calls)
            ]
            message = {**message, "tool_calls": named}
            waiting = [call["id"] for call in named if isinstance(call, Mapping)]
        elif message.get("role") == "tool":
            id_ = message.get("tool_call_id")
            if id_ is None and waiting:
                message = {**message, "tool_call_id": waiting[0]}
            waiting = [each for each in waiting if each != message.get("tool_call_id")]
        made.append(message)
    return made


def _loaded_tools(row: Mapping[str, Any]) -> Row:
    tools = row.get("tools") or []
    fields: Row = {"tools": json.loads(tools) if isinstance(tools, str) else tools}
    if row.get("parallel_tool_calls") is not None:
        fields["parallel_tool_calls"] = row["parallel_tool_calls"]
    return fields
