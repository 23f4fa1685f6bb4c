"""Conversations as token ids, with the loss on the assistant's words alone.

We tokenise and mask ourselves and hand the trainer `input_ids` and `labels`: nothing is cut, no
end token is lost, and a prompt in training has the very tokens that it has in serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llama_index.tuning.datasets.chat import ChatDataset, ChatExample, Message
from llama_index.tuning.errors import DatasetError, TemplateError
from llama_index.tuning.llms.options import HuggingFaceOptions
from llama_index.tuning.llms.template import ChatTemplate

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
    """

    example: int
    input_ids: list[int]
    labels: list[int]
    worse: list[int] | None = None

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
        rows: the rows; a conversation has several where the template rewrites earlier turns.
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
) -> TokenizedChats:
    """Rows of a dataset for supervised tuning, or pairs for preference tuning.

    Args:
        dataset: the conversations.
        template: the model's chat template.
        eos_ids: the tokens at which the model stops.
        options: method, and what happens to a conversation above the limit.
        max_length: tokens that a row may have.

    Raises:
        DatasetError: naming each conversation that cannot be learnt from, and why.
    """
    found = TokenizedChats()
    faults: list[str] = []
    make = preference_row if options.method == "dpo" else conversation_rows
    for number, example in enumerate(dataset.examples):
        try:
            made = make(number, example, template, eos_ids)
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
    number: int, example: ChatExample, template: ChatTemplate, eos_ids: Sequence[int]
) -> list[Row]:
    """The rows of one conversation; usually one, with all its learnt turns.

    A template may write a turn differently once others follow (leave out its thoughts, say). The
    model will have to say it as it stands last: such a turn gets a row of its own.
    """
    turns = [
        (_encoded_turn(example, place, message, template, eos_ids))
        for place, message in enumerate(example.messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    rows: list[Row] = []
    shared_prompt, whole = turns[-1]
    labels = [*[IGNORED] * shared_prompt, *whole[shared_prompt:]]
    for prompt, ids in turns[:-1]:
        if whole[: len(ids)] == ids:
            labels[prompt : len(ids)] = ids[prompt:]
        else:
            rows.append(Row(number, ids, [*[IGNORED] * prompt, *ids[prompt:]]))
    return [*rows, Row(number, whole, labels)]


def preference_row(
    number: int, example: ChatExample, template: ChatTemplate, eos_ids: Sequence[int]
) -> list[Row]:
    """The better and the worse answer to one prompt."""
    if example.rejected is None:
        raise DatasetError("rejected: method='dpo' needs a worse answer, it has none")
    last = len(example.messages) - 1
    prompt, better = _encoded_turn(example, last, example.messages[-1], template, eos_ids)
    _, worse = _encoded_turn(example, last, example.rejected, template, eos_ids)
    labels = [*[IGNORED] * prompt, *better[prompt:]]
    return [Row(number, better, labels, worse[prompt:])]


def _encoded_turn(
    example: ChatExample,
    place: int,
    message: Message,
    template: ChatTemplate,
    eos_ids: Sequence[int],
) -> tuple[int, list[int]]:
    """(tokens of the prompt, tokens of prompt and answer up to and with the end token)."""
    at = f"messages[{place}]"
    if place == 0:
        raise DatasetError(f"{at} is the assistant's and answers nothing; give it weight 0")
    before = example.messages[:place]
    prompt = template.ids(template.render(before, example.tools, answer=True))
    ids = template.ids(template.render([*before, message], example.tools))
    if ids[: len(prompt)] != prompt:
        raise TemplateError(
            f"{at}: the tokens of the prompt are no prefix of those with the answer, so the model "
            f"would learn another prompt than it is served; the chat template of {template.name} "
            "opens an answer differently from how it writes one"
        )
    answer = ids[len(prompt) :]
    end = next((n for n, token in enumerate(answer) if token in eos_ids), None)
    if end is None:
        names = ", ".join(map(repr, template.tokenizer.convert_ids_to_tokens(list(eos_ids))))
        raise TemplateError(
            f"{at}: the chat template of {template.name} writes no end token ({names}) after the "
            "assistant's turn: a model tuned on it would never stop"
        )
    rest = [token for token in answer[end:] if token not in eos_ids]
    if template.tokenizer.decode(rest).strip():
        raise DatasetError(f"{at}: the end token stands within the text")
    return len(prompt), ids[: len(prompt) + end + 1]


def _unwritten(example: ChatExample, template: ChatTemplate) -> int:
    if template.thoughts_key:
        return 0
    return sum(bool(message.get("thinking")) for message in example.messages)
