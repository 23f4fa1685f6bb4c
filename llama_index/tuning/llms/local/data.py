"""Conversations as token ids, with the loss on the assistant's words alone.

We tokenise and mask ourselves and hand the trainer `input_ids` and `labels`: nothing is cut, no
end token is lost, and a prompt in training has the very tokens that it has in serving.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.datasets.records import ChatExample, Message
from llama_index.tuning.errors import DatasetError, TemplateError
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.serving.replies import read_reply
from llama_index.tuning.llms.serving.template import ChatTemplate
from llama_index.tuning.llms.serving.tool_calls import ParsedReply
from llama_index.tuning.llms.serving.tool_parsers import ToolParser

Read = Callable[[str, Sequence[Mapping[str, Any]]], tuple[str, ParsedReply]]
"""(learnt text, tools) → what is read from it when the model is served."""

IGNORED = -100
"""The label of a token that is not learnt, as torch's cross-entropy has it."""


@dataclass(frozen=True)
class Row:
    """One sequence to learn from.

    Attributes:
        example: place of its conversation in the dataset.
        input_ids: tokens, shape `(length,)`.
        labels: the same tokens where they are learnt, `IGNORED` elsewhere, shape `(length,)`.
        worse: for preferences, the tokens of the worse answer, its end token included.
        given_back: of each answer that is learnt in it, whether serving reads it as it stands.
    """

    example: int
    input_ids: list[int]
    labels: list[int]
    worse: list[int] | None = None
    given_back: tuple[bool, ...] = ()

    @property
    def trained(self) -> int:
        """How many tokens are learnt."""
        return sum(label != IGNORED for label in self.labels)

    @property
    def prompt_length(self) -> int:
        """Tokens before the first learnt one."""
        return next(place for place, label in enumerate(self.labels) if label != IGNORED)


@dataclass
class TokenizedChats:
    """A dataset as rows, and what was left out on the way.

    Attributes:
        rows: the rows; a conversation has several if the template rewrites earlier turns.
        too_long: places of the conversations that were dropped for their length.
        unwritten_thoughts: messages whose thinking the template has no place for.
    """

    rows: list[Row] = field(default_factory=list)
    too_long: list[int] = field(default_factory=list)
    unwritten_thoughts: int = 0


def tokenize_chats(
    dataset: ChatDataset,
    template: ChatTemplate,
    eos_ids: Sequence[int],
    options: HuggingFaceOptions,
    max_length: int,
    parser: ToolParser | None = None,
) -> TokenizedChats:
    """Rows of a dataset for supervised tuning, or pairs for preference tuning.

    Args:
        dataset: the conversations.
        template: the model's chat template.
        eos_ids: the tokens at which the model stops.
        options: method, and what happens to a conversation above the limit.
        max_length: tokens that a row may have.
        parser: how the model writes tool calls.

    Raises:
        DatasetError: naming each conversation that cannot be learnt from, and why.
    """
    found = TokenizedChats()
    faults: list[str] = []
    make = preference_row if options.method == "dpo" else conversation_rows
    read: Read = partial(_read, template, parser)
    for number, example in enumerate(dataset.examples):
        try:
            made = make(number, example, template, eos_ids, read)
        except (DatasetError, TemplateError) as exc:
            faults.append(f"example {number}, {exc}")
            continue
        longest = max(max(len(r.input_ids), r.prompt_length + len(r.worse or [])) for r in made)
        if longest <= max_length:
            found.rows += made
            found.unwritten_thoughts += _unwritten(example, template)
        elif options.too_long == "drop":
            found.too_long.append(number)
        else:
            faults.append(
                f"example {number} has {longest} tokens, max_length is {max_length}; "
                "too_long='drop' leaves such conversations out"
            )
    if faults:
        raise DatasetError(f"{template.name} cannot learn from the dataset:", faults)
    return found


def conversation_rows(
    number: int, example: ChatExample, template: ChatTemplate, eos_ids: Sequence[int], read: Read
) -> list[Row]:
    """The rows of one conversation; usually one, with all its learnt turns.

    A template may write a turn differently once others follow (leave out its thoughts, say). The
    model will have to say it as it stands last: such a turn gets a row of its own.
    """
    turns = [
        _encoded_turn(example, place, message, template, eos_ids, read)
        for place, message in enumerate(example.messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    rows: list[Row] = []
    shared_prompt, whole, good = turns[-1]
    labels = [*[IGNORED] * shared_prompt, *whole[shared_prompt:]]
    given_back = [good]
    for prompt, ids, good in turns[:-1]:
        if whole[: len(ids)] == ids:
            labels[prompt : len(ids)] = ids[prompt:]
            given_back.append(good)
        else:
            own = [*[IGNORED] * prompt, *ids[prompt:]]
            rows.append(Row(number, ids, own, given_back=(good,)))
    return [*rows, Row(number, whole, labels, given_back=tuple(given_back))]


def preference_row(
    number: int, example: ChatExample, template: ChatTemplate, eos_ids: Sequence[int], read: Read
) -> list[Row]:
    """The better and the worse answer to one prompt."""
    if example.rejected is None:
        raise DatasetError("rejected: method='dpo' needs a worse answer, it has none")
    last = len(example.messages) - 1
    answer = example.messages[-1]
    prompt, better, good = _encoded_turn(example, last, answer, template, eos_ids, read)
    _, worse, _ = _encoded_turn(example, last, example.rejected, template, eos_ids, read)
    labels = [*[IGNORED] * prompt, *better[prompt:]]
    return [Row(number, better, labels, worse[prompt:], (good,))]


def _encoded_turn(
    example: ChatExample,
    place: int,
    message: Message,
    template: ChatTemplate,
    eos_ids: Sequence[int],
    read: Read,
) -> tuple[int, list[int], bool]:
    """(tokens of the prompt, tokens of prompt and answer with the end token, is it given back)."""
    at = f"messages[{place}]"
    if place == 0:
        raise DatasetError(f"{at} is the assistant's and answers nothing; give it weight 0")
    try:
        asked, said = template.turn(example.messages[:place], message, example.tools)
    except TemplateError as exc:
        raise TemplateError(f"{at}: {exc}") from exc
    prompt, ids = template.ids(asked), template.ids(asked + said)
    if ids[: len(prompt)] != prompt:
        # The tokens across the border would be one, such as a prompt's and an answer's newline:
        # the model is served the prompt's tokens, so they are kept apart here too.
        ids = [*prompt, *template.ids(said)]
    answer = ids[len(prompt) :]
    end = next((n for n, token in enumerate(answer) if token in eos_ids), None)
    if end is None:
        names = ", ".join(map(repr, template.tokenizer.convert_ids_to_tokens(list(eos_ids))))
        raise TemplateError(
            f"{at}: the chat template of {template.name} writes no end token ({names}) after the "
            "assistant's turn: a model tuned on it would never stop; end the turn with one in "
            "tokenizer.chat_template, or name the one that it writes in the eos_token_id of "
            "generation_config.json"
        )
    rest = [token for token in answer[end:] if token not in eos_ids]
    if template.tokenizer.decode(rest).strip():
        raise DatasetError(f"{at}: the end token stands within the text")
    learnt = template.tokenizer.decode(answer[:end])
    good = _given_back(message, read(learnt, _tools_of(example, message)), at, template)
    return len(prompt), ids[: len(prompt) + end + 1], good


def _read(
    template: ChatTemplate,
    parser: ToolParser | None,
    text: str,
    tools: Sequence[Mapping[str, Any]],
) -> tuple[str, ParsedReply]:
    return read_reply(text, template, parser, tools)


def _tools_of(example: ChatExample, message: Message) -> Sequence[Mapping[str, Any]]:
    """The tools offered; if a message calls one that is not listed, its name alone."""
    called = [
        {"function": {"name": c["function"]["name"]}} for c in message.get("tool_calls") or ()
    ]
    return example.tools or called


def _given_back(
    message: Message, found: tuple[str, ParsedReply], at: str, template: ChatTemplate
) -> bool:
    """Whether serving reads from the learnt text what the message says."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(part["text"] for part in content)
    said, read = without_thoughts(content).strip(), found[1].content.strip()
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    if said and not read and not functions:
        raise TemplateError(f"{at}: the chat template of {template.name} leaves the answer out")
    calls = [(function["name"], json.loads(function["arguments"])) for function in functions]
    return said == read and calls == [(call.name, call.arguments) for call in found[1].calls]


def _unwritten(example: ChatExample, template: ChatTemplate) -> int:
    if template.thoughts_key:
        return 0
    return sum(bool(message.get("thinking")) for message in example.messages)
