"""Answering from contexts, some irrelevant: RA-DIT's tuning (Lin et al. 2023).

An LLM's replies to many conversations: in batches if it can, else several at a time.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.chat_prompts import CHAT_TEXT_QA_PROMPT
from numpy.typing import NDArray

from llama_index.tuning._checks import items_of, number, of_type, plain_arguments
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.calls import at_once
from llama_index.tuning.asking.results import Dropped, QuestionAnswer
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.chat_faults import example_faults
from llama_index.tuning.datasets.formats.messages import message_record
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.task import kept_or_error

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """A text without case, punctuation and articles, as SQuAD's script compares answers.

    Example:
        >>> normalised("The  Eiffel Tower!")
        'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, wanted: str) -> float:
    """1 if both are the same when normalised (Rajpurkar et al. 2016)."""
    return float(normalised(answer) == normalised(wanted))


def token_f1(answer: str, wanted: str) -> float:
    """Harmonic mean of precision and recall of the words (Rajpurkar et al. 2016).

    Example:
        >>> token_f1("the fee is 5 euros", "5 euros")
        0.6666666666666666
    """
    given, gold = normalised(answer).split(), normalised(wanted).split()
    if not given or not gold:
        return float(given == gold)
    common = (Counter(given) & Counter(gold)).total()
    return 2 * common / (len(given) + len(gold))


@plain_arguments
def knowledge_dataset(
    rows: Sequence[QuestionAnswer],
    *,
    contexts: Sequence[str] = (),
    irrelevant: int = 2,
    min_support: float = 0.0,
    prompt: BasePromptTemplate | None = None,
    seed: int = 0,
) -> tuple[ChatDataset, list[Dropped]]:
    """Conversations that put the source and some irrelevant contexts before each question.

    Args:
        rows: question, answer and source, such as `GeneratedDataset.question_answers()`.
        contexts: where irrelevant ones are drawn from; empty: the sources of all rows. A context
            that holds the answer's words in their order is never taken for irrelevant.
        irrelevant: contexts beside the source, in random order with it.
        min_support: smallest share of the answer's words that must be in the source.
        prompt: with `context_str` and `query_str`; None: LlamaIndex's own for chat models, which
            a query engine sends.
        seed: the same seed gives a row the same contexts, whatever rows are beside it, if
            `contexts` is given.

    Returns:
        The sound conversations, and the rows left out with what is wrong with each.

    Raises:
        DatasetError: no row is sound.

    Example:
        >>> rows = [
        ...     QuestionAnswer("q1", "Fee in Oslo?", "5 euros", "n1", "In Oslo you pay 5 euros."),
        ...     QuestionAnswer("q2", "Fee in Lima?", "3 euros", "n2", "In Lima you pay 3 euros."),
        ... ]
        >>> dataset, dropped = knowledge_dataset(rows, irrelevant=1)
        >>> "Lima" in dataset.examples[0].messages[1]["content"]
        True
    """
    min_support = number("min_support", min_support, 0, 1)
    pool = _pool(rows, contexts, irrelevant, prompt)
    asked: set[str] = set()
    kept, dropped = list[ChatExample](), list[Dropped]()
    for at, row in enumerate(rows):
        fault = _row_fault(row) or _support_fault(row, min_support)
        if fault is None and normalised(row.question) in asked:
            fault = "the same question was asked before"
        chosen = None if fault else _chosen(row, pool, irrelevant, seed)
        if fault is None and chosen is None:
            fault = f"there are fewer than {irrelevant} contexts without the answer"
        if chosen is not None:
            reply = {"role": "assistant", "content": row.answer}
            example = ChatExample([*_messages(row, chosen, prompt), reply])
            fault = "; ".join(example_faults(example)) or None
        if fault is None:
            asked.add(normalised(row.question))
            kept.append(example)
        else:
            dropped.append(Dropped(at, fault))
    return kept_or_error("rows", kept, dropped)


@plain_arguments
def knowledge_scorer(
    rows: Sequence[QuestionAnswer],
    *,
    metric: Literal["f1", "exact"] = "f1",
    contexts: Sequence[str] = (),
    irrelevant: int = 2,
    prompt: BasePromptTemplate | None = None,
    seed: int = 0,
    workers: int = 4,
    **settings: Any,
) -> Callable[[LLM], NDArray[np.float64]]:
    """A function that scores an LLM on each row, for an engine's `evaluate=` or `protect=`.

    Args:
        rows: held-out questions.
        metric: `"f1"`, or `"exact"` match, both with SQuAD's normalisation.
        contexts: as for `knowledge_dataset`.
        irrelevant: as for `knowledge_dataset`.
        prompt: the one that was trained on.
        seed: decides the irrelevant contexts and the order.
        workers: requests at a time, if the LLM has no `chat_batch`.
        **settings: of each call, such as `max_tokens`.

    Raises:
        DatasetError: naming every faulty row.
    """
    measures = {"f1": token_f1, "exact": exact_match}
    if metric not in measures:
        raise ValueError(f"metric must be 'f1' or 'exact', got {metric!r}")
    pool = _pool(rows, contexts, irrelevant, prompt)
    faults, conversations = [], []
    for at, row in enumerate(rows):
        fault = _row_fault(row)
        chosen = None if fault else _chosen(row, pool, irrelevant, seed)
        if chosen is None:
            fault = fault or f"there are fewer than {irrelevant} contexts without the answer"
            faults.append(f"row {at}: {fault}")
        else:
            conversations.append(_messages(row, chosen, prompt))
    if faults:
        raise DatasetError("the rows have faults:", faults)

    def scores(llm: LLM) -> NDArray[np.float64]:
        replies = texts_of(llm, conversations, workers=workers, **settings)
        return np.array(
            [measures[metric](reply, row.answer) for reply, row in zip(replies, rows, strict=True)]
        )

    return scores


def _pool(
    rows: Sequence[QuestionAnswer],
    contexts: Sequence[str],
    irrelevant: int,
    prompt: BasePromptTemplate | None,
) -> list[str]:
    """The contexts to draw from, each once."""
    from llama_index.core.prompts import BasePromptTemplate

    items_of("rows", rows, "QuestionAnswer")
    if not rows:
        raise DatasetError("rows must hold at least one question, got none")
    if isinstance(irrelevant, bool) or not isinstance(irrelevant, int) or irrelevant < 0:
        raise ValueError(f"irrelevant must be a whole number >= 0, got {irrelevant!r}")
    items_of("contexts", contexts, "texts")
    if prompt is not None:
        of_type("prompt", prompt, BasePromptTemplate)
        missing = {"context_str", "query_str"} - set(prompt.template_vars)
        if missing:
            raise ValueError(f"prompt must have the variable {min(missing)!r}")
    sources = contexts or [r.context for r in rows if isinstance(r, QuestionAnswer)]
    return list(dict.fromkeys(text for text in sources if isinstance(text, str) and text.strip()))


def _chosen(
    row: QuestionAnswer, pool: Sequence[str], irrelevant: int, seed: int
) -> list[str] | None:
    """The source among irrelevant contexts, or None if there are too few."""
    draw = random.Random(f"{seed} {row.question}")
    answer = f" {normalised(row.answer)} "
    found: list[str] = []
    for text in _shuffled(pool, draw):
        if len(found) == irrelevant:
            break
        if text != row.context and answer not in f" {normalised(text)} ":
            found.append(text)
    if len(found) < irrelevant:
        return None
    found.append(row.context)
    draw.shuffle(found)
    return found


def _shuffled(pool: Sequence[str], draw: random.Random) -> Iterator[str]:
    """The texts in random order, drawn as needed: to shuffle all for each row is too slow."""
    moved: dict[int, int] = {}
    for place in range(len(pool)):
        other = draw.randrange(place, len(pool))
        yield pool[moved.get(other, other)]
        moved[other] = moved.get(place, place)


def _messages(
    row: QuestionAnswer, contexts: Sequence[str], prompt: BasePromptTemplate | None
) -> list[dict[str, Any]]:
    template = CHAT_TEXT_QA_PROMPT if prompt is None else prompt
    written = template.format_messages(context_str="\n\n".join(contexts), query_str=row.question)
    return [message_record(message) for message in written]


def _row_fault(row: Any) -> str | None:
    if not isinstance(row, QuestionAnswer):
        return f"it must be a QuestionAnswer, got {type(row).__name__}"
    for name in ("question", "answer", "context"):
        value = getattr(row, name)
        if not isinstance(value, str) or not value.strip():
            return f"{name} must be a text that is not empty, got {value!r}"
    return None


def _support_fault(row: QuestionAnswer, min_support: float) -> str | None:
    words = normalised(row.answer).split()
    if not words or not min_support:
        return None
    known = set(normalised(row.context).split())
    share = sum(word in known for word in words) / len(words)
    if share < min_support:
        return f"the source has {share:.2f} of the answer's words, not {min_support}"
    return None


Conversation = str | Sequence[Mapping[str, Any]]
"""A question, or messages in OpenAI's shape."""


def messages_of(conversation: Conversation) -> list[dict[str, Any]]:
    """The messages, a question as the user's only one."""
    if isinstance(conversation, str):
        return [{"role": "user", "content": conversation}]
    return [dict(message) for message in conversation]


def conversation_fault(conversation: Any) -> str | None:
    """What is wrong with a question or messages as they were given, or None."""
    if isinstance(conversation, str):
        return None if conversation.strip() else "the question is empty"
    if not isinstance(conversation, Sequence):
        return f"messages must be a question or a list, got {type(conversation).__name__}"
    if not conversation:
        return "it has no messages"
    wrong = next((m for m in conversation if not isinstance(m, Mapping)), None)
    return None if wrong is None else f"messages must hold objects, got {type(wrong).__name__}"


def check_teacher(teacher: Any) -> None:
    """It is an LLM: a name of one is not."""
    from llama_index.core.llms import LLM

    if not isinstance(teacher, LLM):
        raise TypeError(f"teacher must be an LLM of LlamaIndex, got {type(teacher).__name__}")


def chat_message(message: Mapping[str, Any]) -> ChatMessage:
    """LlamaIndex's message of one in OpenAI's shape."""
    from llama_index.core.base.llms.types import TextBlock, ToolCallBlock

    content, calls = message.get("content"), message.get("tool_calls") or []
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content must be a text to be asked here, got {content!r}")
    blocks: list[Any] = [TextBlock(text=content)] if content or not calls else []
    blocks += [
        ToolCallBlock(
            tool_call_id=call["id"],
            tool_name=call["function"]["name"],
            tool_kwargs=json.loads(call["function"]["arguments"]),
        )
        for call in calls
    ]
    extra = {key: message[key] for key in ("tool_call_id", "name") if key in message}
    return ChatMessage(role=message["role"], blocks=blocks, additional_kwargs=extra)


@own_work
def texts_of(
    llm: LLM, conversations: Sequence[Conversation], *, workers: int = 4, **settings: Any
) -> list[str]:
    """The texts that an LLM replies with, without its thoughts.

    Args:
        llm: any LLM.
        conversations: what it is asked.
        workers: requests at a time, if the LLM has no `chat_batch`.
        **settings: of each call, such as `max_tokens`.
    """
    asked = [[chat_message(m) for m in messages_of(c)] for c in conversations]
    batch = getattr(llm, "chat_batch", None)
    if batch is not None:
        responses: list[ChatResponse] = batch(asked, batch_size=64, **settings)
    else:
        responses = at_once(lambda messages: llm.chat(messages, **settings), asked, workers)
    return [without_thoughts(response.message.content or "") for response in responses]
