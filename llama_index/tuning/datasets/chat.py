"""Conversations that a chat model learns from: one record type, one validator, five formats.

What can be wrong with a conversation, each fault a sentence that names the field.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning.datasets import chat_formats as formats
from llama_index.tuning.datasets.thoughts import without_thoughts
from llama_index.tuning.errors import DatasetError

Message = dict[str, Any]
Tool = dict[str, Any]

FORMATS = ("openai", "openai-preference", "trl", "trl-prompt-completion", "sharegpt")
READ_ONLY = ("trl-preference", "alpaca")


@dataclass(frozen=True)
class ChatExample:
    """One conversation, its last message the assistant's.

    Attributes:
        messages: in OpenAI's shape (role, content, tool_calls, tool_call_id, name). An
            assistant's message may have a `weight`: 0 leaves it out of the loss, 1 is the
            default. `thinking` may hold a model's thoughts; no format can write them, so they
            are refused there until `without_thinking()` takes them out.
        tools: function schemas in OpenAI's shape.
        parallel_tool_calls: whether several calls in one turn were allowed; None: not said.
        rejected: for preferences, the assistant's message that is worse than the last one.
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    parallel_tool_calls: bool | None = None
    rejected: Message | None = None


@dataclass(repr=False)
class ChatDataset:
    """Conversations to tune a chat model on.

    Args:
        examples: the conversations.

    Raises:
        DatasetError: naming every fault with its example and field.

    Example:
        >>> dataset = ChatDataset.from_messages([[
        ...     {"role": "user", "content": "How high is the fee?"},
        ...     {"role": "assistant", "content": "5 euros a month."},
        ... ]])
        >>> next(dataset.lines("openai"))["messages"][1]["content"]
        '5 euros a month.'
    """

    examples: list[ChatExample]

    def __post_init__(self) -> None:
        faults = [
            f"example {number}, {fault}"
            for number, example in enumerate(self.examples)
            for fault in example_faults(example)
        ]
        if faults:
            raise DatasetError("the chat dataset has faults:", faults)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} conversations)"

    def _repr_html_(self) -> str:
        from llama_index.tuning.pages.dataset import dataset_html

        rows = (
            (
                example.messages[-2].get("content") if len(example.messages) > 1 else None,
                example.messages[-1].get("content") or example.messages[-1].get("tool_calls"),
            )
            for example in self.examples
        )
        return dataset_html(self, ("asked", "answered"), rows)

    def __len__(self) -> int:
        """The number of conversations."""
        return len(self.examples)

    @classmethod
    def from_messages(
        cls,
        conversations: Sequence[Sequence[Message]],
        *,
        tools: Sequence[Tool] = (),
    ) -> ChatDataset:
        """From lists of messages that share the same tools."""
        return cls([ChatExample([*messages], [*tools]) for messages in conversations])

    def subset(self, numbers: Sequence[int]) -> ChatDataset:
        """These conversations only, by their place."""
        return ChatDataset([self.examples[number] for number in numbers])

    def without_thinking(self) -> ChatDataset:
        """The same conversations without the model's thoughts, beside its answers or in them."""
        return ChatDataset([_without_thinking(example) for example in self.examples])

    def split(self, test_size: float = 0.2, *, seed: int = 0) -> tuple[ChatDataset, ChatDataset]:
        """Two datasets, with conversations that open alike on the same side.

        Args:
            test_size: share of the conversations that go to the second one, between 0 and 1.
            seed: the same seed gives the same split.
        """
        if not 0 < test_size < 1:
            raise ValueError(f"test_size must be between 0 and 1, got {test_size}")
        groups: dict[str, list[int]] = {}
        for number, example in enumerate(self.examples):
            groups.setdefault(opening(example), []).append(number)
        if len(groups) < 2:
            raise DatasetError(f"cannot split: all {len(self)} conversations open alike")
        shuffled = list(groups.values())
        random.Random(seed).shuffle(shuffled)
        test: list[int] = []
        while len(shuffled) > 1 and len(test) < test_size * len(self):
            test += shuffled.pop()
        held_out = set(test)
        train = [number for number in range(len(self)) if number not in held_out]
        return self.subset(train), self.subset(sorted(held_out))

    def fingerprint(self) -> str:
        """A short hash of the content, written into reports and artifacts."""
        rows = (json.dumps(vars(example), sort_keys=True) for example in self.examples)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]

    def lines(self, format: str = "openai") -> Iterator[dict[str, Any]]:
        """Each conversation as an object of a format, see `save_jsonl`.

        Raises:
            DatasetError: a conversation that the format cannot hold, by line and field.
        """
        write = _writer(format)
        for number, example in enumerate(self.examples, start=1):
            try:
                _refuse_thinking(example)
                yield write(example)
            except DatasetError as exc:
                raise DatasetError(f"line {number}, {exc}") from None

    def save_jsonl(
        self,
        path: PathLike,
        *,
        format: str = "openai",
        min_examples: int = 10,
        max_characters: int | None = None,
    ) -> None:
        """Write a training file, atomically, after checking every line.

        Args:
            path: the file.
            format: `"openai"` (chat: messages, tools, weights), `"openai-preference"` (DPO),
                `"trl"` (Hugging Face messages), `"trl-prompt-completion"` (only the last
                message is learnt) or `"sharegpt"`.
            min_examples: fewer are an error; OpenAI asks for 10.
            max_characters: longest conversation, its tools included; None: no limit. A token
                has about four characters of English.

        Raises:
            DatasetError: naming each faulty line and field; nothing is written.
        """
        if len(self) < min_examples:
            raise DatasetError(
                f"{path}: {len(self)} examples, at least {min_examples} are needed; "
                "min_examples= sets another limit"
            )
        lines = [json.dumps(line, ensure_ascii=False) for line in self.lines(format)]
        too_long = [
            f"line {number} has {len(line)} characters, the limit is {max_characters}"
            for number, line in enumerate(lines, start=1)
            if max_characters is not None and len(line) > max_characters
        ]
        if too_long:
            raise DatasetError(f"{path} was not written:", too_long)
        write_text_atomic(path, "".join(f"{line}\n" for line in lines))

    @classmethod
    def from_jsonl(cls, path: PathLike, *, format: str | None = None) -> ChatDataset:
        """Load a training file of any of the formats.

        Args:
            path: the file.
            format: its format, one that `save_jsonl` writes, `"trl-preference"` (prompt, chosen,
                rejected) or `"alpaca"`; None: told by the keys of each line.

        Raises:
            DatasetError: naming each faulty line and field.
        """
        examples, faults = [], []
        for number, row in read_json_lines(path):
            try:
                example = _reader(format or formats.told(row))(row)
                found = example_faults(example)
            except (DatasetError, KeyError, TypeError, AttributeError, ValueError) as exc:
                missing = f"lacks {exc}" if isinstance(exc, KeyError) else str(exc)
                found = [missing]
            else:
                examples.append(example)
            faults += [f"line {number}, {fault}" for fault in found]
        if faults:
            raise DatasetError(f"{path} has faults:", faults)
        return cls(examples)


def example_faults(example: ChatExample) -> list[str]:
    """What keeps a conversation from being trained on, each fault naming its field."""
    return conversation_faults(
        example.messages, example.tools, example.parallel_tool_calls, example.rejected
    )


def _without_thinking(example: ChatExample) -> ChatExample:
    messages = [_unthinking(message) for message in example.messages]
    rejected = None if example.rejected is None else _unthinking(example.rejected)
    return replace(example, messages=messages, rejected=rejected)


def _unthinking(message: Message) -> Message:
    kept = {key: value for key, value in message.items() if key != "thinking"}
    content = kept.get("content")
    if message["role"] != "assistant" or not content:
        return kept
    if isinstance(content, str):
        return {**kept, "content": without_thoughts(content)}
    parts = [{**part, "text": without_thoughts(part["text"])} for part in content]
    return {**kept, "content": [part for part in parts if part["text"]]}


def _refuse_thinking(example: ChatExample) -> None:
    places = [(f"messages[{n}]", message) for n, message in enumerate(example.messages)]
    for at, message in (*places, ("rejected", example.rejected or {})):
        if message.get("thinking"):
            raise DatasetError(
                f"{at}.thinking: no format holds a model's thoughts; without_thinking() of the "
                "dataset leaves them out"
            )


def _writer(format: str) -> Callable[[ChatExample], dict[str, Any]]:
    writers: Mapping[str, Callable[[Any], dict[str, Any]]] = {
        "openai": formats.openai_line,
        "openai-preference": formats.preference_line,
        "trl": formats.trl_line,
        "trl-prompt-completion": formats.prompt_completion_line,
        "sharegpt": formats.sharegpt_line,
    }
    return writers[_known(format, FORMATS)]


def _reader(format: str) -> Callable[[Mapping[str, Any]], ChatExample]:
    readers = {
        "openai": formats.from_openai,
        "openai-preference": formats.from_preference,
        "trl": formats.from_openai,
        "trl-prompt-completion": formats.from_prompt_completion,
        "trl-preference": formats.from_trl_preference,
        "alpaca": formats.from_alpaca,
        "sharegpt": formats.from_sharegpt,
    }
    read = readers[_known(format, (*FORMATS, *READ_ONLY))]
    return lambda row: ChatExample(**read(row))


def _known(format: str, formats_known: Sequence[str]) -> str:
    if format not in formats_known:
        raise ValueError(f"unknown format {format!r}; choose one of: {', '.join(formats_known)}")
    return format


def opening(example: ChatExample) -> str:
    """What comes before the assistant's first message, as a key to compare by."""
    for place, message in enumerate(example.messages):
        if message["role"] == "assistant":
            return json.dumps(example.messages[:place], sort_keys=True)
    return ""


_ROLES = ("system", "developer", "user", "assistant", "tool")
_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "weight", "thinking")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def conversation_faults(messages: Any, tools: Any, parallel: Any, rejected: Any) -> list[str]:
    """Every fault of one conversation; an empty list means that it is sound."""
    if not isinstance(messages, list) or not messages:
        return ["messages must be a list of at least one message"]
    faults = [*_tool_faults(tools)]
    parts = {f"messages[{place}]": message for place, message in enumerate(messages)}
    faults += [
        f"{at} holds half a character (a lone surrogate), which no file and no tokenizer can hold"
        for at, part in {**parts, "tools": tools, "rejected": rejected}.items()
        if not is_whole(part)
    ]
    names = set() if faults else {tool["function"]["name"] for tool in tools}
    if parallel is not None and not isinstance(parallel, bool):
        faults.append(f"parallel_tool_calls must be true or false, got {parallel!r}")
    shape = [
        fault
        for place, message in enumerate(messages)
        for fault in _message_faults(f"messages[{place}]", message, names)
    ]
    faults += shape or [*_order_faults(messages)]
    if rejected is not None:
        faults += _message_faults("rejected", rejected, names)
        if isinstance(rejected, dict) and rejected.get("role") != "assistant":
            faults.append(f"rejected.role must be 'assistant', got {rejected.get('role')!r}")
        elif isinstance(rejected, dict) and _said(rejected) == _said(messages[-1]):
            faults.append("rejected says the same as the last message")
    return faults


def is_whole(value: Any) -> bool:
    """Whether every text in a value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    except (TypeError, ValueError):  # no JSON at all: not a matter of characters
        return True
    return True


def _said(message: Any) -> Any:
    return (message.get("content"), message.get("tool_calls")) if isinstance(message, dict) else 0


def _message_faults(at: str, message: Any, names: set[str]) -> Iterator[str]:
    if not isinstance(message, dict):
        yield f"{at} must be an object, got {type(message).__name__}"
        return
    role = message.get("role")
    if role not in _ROLES:
        yield f"{at}.role must be one of {', '.join(_ROLES)}, got {role!r}"
        return
    for key, value in message.items():
        if key not in _KEYS and value not in (None, [], {}):
            yield f"{at}: {key!r} cannot be trained on, and no format would write it"
    if "thinking" in message and not isinstance(message["thinking"], str):
        yield f"{at}.thinking must be a text, got {type(message['thinking']).__name__}"
    yield from _content_faults(at, role, message)
    if "weight" in message:
        if role != "assistant":
            yield f"{at}.weight is for the assistant's messages, not for role {role!r}"
        elif message["weight"] not in (0, 1):
            yield f"{at}.weight must be 0 or 1, got {message['weight']!r}"
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        yield f"{at}.tool_call_id must be the id of a call, got {message.get('tool_call_id')!r}"
    calls = message.get("tool_calls")
    if calls is not None:
        if role != "assistant":
            yield f"{at}.tool_calls is for the assistant's messages, not for role {role!r}"
        elif not isinstance(calls, list) or not calls:
            yield f"{at}.tool_calls must be a list of at least one call"
        else:
            yield from _call_faults(at, calls, names)


def _content_faults(at: str, role: str, message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if content is None or content == "":
        if role == "assistant" and not message.get("tool_calls"):
            yield f"{at}.content is empty, and the message calls no tool"
        elif content is None and role != "assistant":
            yield f"{at}.content must be a text, got null"
    elif isinstance(content, list):
        for place, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                continue
            if kind != "image_url" or role != "user":
                yield f"{at}.content[{place}]: a part of type {kind!r} cannot be trained on here"
    elif not isinstance(content, str):
        yield f"{at}.content must be a text or a list of parts, got {type(content).__name__}"
    elif role in ("user", "assistant") and content.isspace():
        yield f"{at}.content is only white space"


def _call_faults(at: str, calls: list[Any], names: set[str]) -> Iterator[str]:
    seen = set()
    for place, call in enumerate(calls):
        here = f"{at}.tool_calls[{place}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type") != "function":
            yield f"{here} must have type 'function' and a function"
            continue
        if not isinstance(call.get("id"), str) or not call["id"]:
            yield f"{here}.id must be a text that is not empty, got {call.get('id')!r}"
        elif call["id"] in seen:
            yield f"{here}.id {call['id']!r} is used twice in this message"
        seen.add(call.get("id"))
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"{here}.function.name must be 1 to 64 of a-z A-Z 0-9 _ -, got {name!r}"
        elif names and name not in names:
            yield f"{here}.function.name {name!r} is none of the tools"
        if not _is_object(function.get("arguments")):
            yield f"{here}.function.arguments must be a JSON object as text"


def _is_object(text: Any) -> bool:
    try:
        return isinstance(text, str) and isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _order_faults(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Whether the conversation runs as one: every call answered, the assistant last."""
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        at, role = f"messages[{place}]", message["role"]
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                yield f"{at}.tool_call_id {message['tool_call_id']!r} answers no open call"
            else:
                open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            yield f"{at}: the calls {', '.join(open_calls)} before it were not answered"
        open_calls = [call["id"] for call in message.get("tool_calls") or []]
    last = messages[-1]
    if last["role"] != "assistant":
        yield f"messages[{len(messages) - 1}]: the last message must be the assistant's"
    if all(m.get("weight", 1) == 0 for m in messages if m["role"] == "assistant"):
        yield "no assistant message has a weight above 0: nothing would be learnt"
    if all(m["role"] in ("assistant", "tool") for m in messages):
        yield "no message is a user's or the system's: there is nothing to answer"


def _tool_faults(tools: Any) -> Iterator[str]:
    if not isinstance(tools, list):
        yield f"tools must be a list, got {type(tools).__name__}"
        return
    names = []
    for place, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            yield f"tools[{place}] must have type 'function' and a function"
            continue
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"tools[{place}].function.name must be 1 to 64 of a-z A-Z 0-9 _ -, got {name!r}"
        elif name in names:
            yield f"tools[{place}].function.name {name!r} occurs twice"
        names.append(name)
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            yield f"tools[{place}].function.parameters must be an object"
