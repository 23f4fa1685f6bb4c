"""Conversations that a chat model learns from: one record type, one validator, five formats."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.tuning._checks import items_of, plain_arguments, share, whole_number
from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning.datasets.chat_faults import example_faults
from llama_index.tuning.datasets.checks import listed_records
from llama_index.tuning.datasets.formats import chat as formats
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.datasets.records import ChatExample, Message, Tool
from llama_index.tuning.errors import DatasetError

FORMATS = ("openai", "openai-preference", "trl", "trl-prompt-completion", "sharegpt")
READ_ONLY = ("trl-preference", "alpaca")


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
        self.examples = listed_records("examples", self.examples, ChatExample)
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
    @plain_arguments
    def from_messages(
        cls,
        conversations: Sequence[Sequence[Message]],
        *,
        tools: Sequence[Tool] = (),
    ) -> ChatDataset:
        """From lists of messages that share the same tools."""
        given = items_of("conversations", conversations, "lists of messages")
        shared = [*items_of("tools", tools, "tools")]
        return cls(
            [ChatExample([*items_of("messages", each, "messages")], shared) for each in given]
        )

    def subset(self, numbers: Sequence[int]) -> ChatDataset:
        """These conversations only, by their place."""
        return ChatDataset([self.examples[number] for number in numbers])

    def without_thinking(self) -> ChatDataset:
        """The same conversations without the model's thoughts, beside its answers or in them."""
        return ChatDataset([_without_thinking(example) for example in self.examples])

    @plain_arguments
    def split(self, test_size: float = 0.2, *, seed: int = 0) -> tuple[ChatDataset, ChatDataset]:
        """Two datasets, with conversations that open alike on the same side.

        Args:
            test_size: share of the conversations that go to the second one, between 0 and 1.
            seed: the same seed gives the same split.

        Raises:
            DatasetError: all of them open alike.
        """
        share("test_size", test_size)
        groups: dict[str, list[int]] = {}
        for number, example in enumerate(self.examples):
            groups.setdefault(opening(example), []).append(number)
        if len(groups) < 2:
            raise DatasetError(
                f"cannot split: all {len(self)} conversations open alike; give an engine others to "
                "measure on as val_dataset="
            )
        shuffled = list(groups.values())
        random.Random(int(seed)).shuffle(shuffled)
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
        min_examples = whole_number("min_examples", min_examples, 0)
        if max_characters is not None:
            max_characters = whole_number("max_characters", max_characters, 1)
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
    @plain_arguments
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
            except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as exc:
                missing = f"lacks {exc}" if isinstance(exc, KeyError) else str(exc)
                found = [missing]
            else:
                examples.append(example)
            faults += [f"line {number}, {fault}" for fault in found]
        if faults:
            raise DatasetError(f"{path} has faults:", faults)
        if not examples:
            raise DatasetError(f"{path} is empty")
        return cls(examples)


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
