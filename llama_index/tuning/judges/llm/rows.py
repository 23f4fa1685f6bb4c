"""Verdicts as conversations: what an evaluator asks its LLM, and what it should say."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from llama_index.core.llms import LLMMetadata

from llama_index.tuning._checks import check_counts, plain_arguments
from llama_index.tuning.asking.results import Dropped
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.messages import message_record
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.data import JudgeData, judge_data_of
from llama_index.tuning.judges.llm.asking import asked_and_read
from llama_index.tuning.judges.llm.model import Messages, evaluator_of
from llama_index.tuning.judges.llm.verdicts import (
    Answer,
    answer_of,
    kind_of,
    reads_scores,
    verdict_of,
)
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.teacher import PAIRWISE, check_samples, turned

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator

TooLong = Literal["error", "drop"]
CONTEXT_WINDOW = 8192
"""Tokens, if nothing else is said; LlamaIndex takes as many for a hosted model it does not
know."""


class _TooLongError(Exception):
    """An item that the evaluator asks about in several requests."""


@dataclass(frozen=True)
class JudgeRows:
    """What an LLM is tuned on to judge.

    Attributes:
        chats: conversations, each a request of the evaluator and its answer.
        numbers: the judgment of each conversation, from 0; a pair has two conversations.
        left_out: judgments that are asked about in several requests, and why.
    """

    chats: ChatDataset
    numbers: list[int]
    left_out: list[Dropped] = field(default_factory=list)

    def without(self, judgments: Collection[int]) -> JudgeRows:
        """The rows of all other judgments."""
        gone = set(judgments)
        kept = [place for place, number in enumerate(self.numbers) if number not in gone]
        return JudgeRows(
            self.chats.subset(kept),
            [self.numbers[place] for place in kept],
            [dropped for dropped in self.left_out if dropped.number not in gone],
        )


@plain_arguments
def judge_rows(
    dataset: JudgmentDataset,
    form: Any,
    *,
    passing_score: float | None = None,
    answer: Answer | None = None,
    reasons: bool = True,
    context_window: int = CONTEXT_WINDOW,
    too_long: TooLong = "error",
) -> JudgeRows:
    """Conversations that teach an LLM to judge as recorded, in an evaluator's own words.

    The requests are what the evaluator itself sends, its templates and all; an answer is one that
    its own parser reads as the recorded verdict, which is checked. A pair comes in both orders.

    Args:
        dataset: the verdicts.
        form: an evaluator, or its class, whose prompts and parser are learnt.
        passing_score: a verdict with a score and no `passing` passes from here on.
        answer: judgment → answer, for evaluators other than LlamaIndex's own, or other parsers.
        reasons: put the recorded feedback into the answers, if the form has a place for it:
            correctness, guidelines, relevancy of answers and of contexts.
        context_window: tokens of the LLM to be tuned; an evaluator cuts contexts by it.
        too_long: a verdict on more contexts than one request holds is an `"error"`, as the answers
            to the requests between are not known; or `"drop"` leaves it out, and counts it.

    Raises:
        DatasetError: naming each verdict that the evaluator could not come to.

    Example:
        >>> from llama_index.core.evaluation import FaithfulnessEvaluator
        >>> verdict = {"response": "5 euros.", "contexts": ["The fee is 5 euros."]}
        >>> verdicts = JudgmentDataset.from_records([{**verdict, "passing": True}])
        >>> rows = judge_rows(verdicts, FaithfulnessEvaluator)
        >>> question, answer = rows.chats.examples[0].messages
        >>> "5 euros." in question["content"], answer["content"]
        (True, 'YES')
    """
    check_writing(answer, reasons, too_long)
    check_counts(context_window=context_window)
    evaluator = evaluator_of(form)
    data = judge_data_of(dataset, JudgeOptions(passing_score=passing_score))
    check_items(data, evaluator)
    writer = _Writer(
        evaluator, data.pairwise, passing_score, answer, reasons,
        LLMMetadata(context_window=context_window, is_chat_model=True, model_name="judge"),
    )  # fmt: skip
    numbers = [number for number, item in enumerate(dataset.judgments) if not item.invalid]
    rows, faults = writer.all_rows(numbers, data)
    if too_long == "error":
        faults += [f"judgment {dropped.number}: {dropped.reason}" for dropped in rows.left_out]
    if faults:
        name = type(evaluator).__name__
        raise DatasetError(f"dataset has verdicts that {name} could not come to:", faults)
    if not len(rows.chats):
        raise DatasetError(
            f"dataset: all {len(dataset)} verdicts are left out: {rows.left_out[0].reason}"
        )
    return rows


@dataclass(frozen=True)
class _Writer:
    """From verdicts to conversations."""

    evaluator: BaseEvaluator
    pairwise: bool
    passing_score: float | None
    answer: Answer | None
    reasons: bool
    metadata: LLMMetadata

    def all_rows(self, numbers: list[int], data: JudgeData) -> tuple[JudgeRows, list[str]]:
        """The conversations, and what is wrong with verdicts that have none."""
        conversations, owners, faults, left_out = [], list[int](), list[str](), list[Dropped]()
        labels = data.labels.tolist()
        for number, judgment, label in zip(numbers, data.items, labels, strict=True):
            try:
                written = list(self.rows(judgment, label))
            except _TooLongError as exc:
                left_out.append(Dropped(number, str(exc)))
            except ValueError as exc:
                faults.append(f"judgment {number}: {exc}")
            else:
                conversations += written
                owners += [number] * len(written)
        return JudgeRows(ChatDataset.from_messages(conversations), owners, left_out), faults

    def rows(self, judgment: Judgment, label: float) -> Iterator[list[dict[str, Any]]]:
        yield self._row(judgment, label)
        if self.pairwise:
            yield self._row(_mirrored(judgment), 1 - label)

    def _row(self, judgment: Judgment, label: float) -> list[dict[str, Any]]:
        said = self._answer(judgment, label)
        asked, outcome = asked_and_read(self.evaluator, judgment, said, self.metadata)
        if len(asked) > 1:
            raise _TooLongError(
                f"{len(asked)} requests are needed within a window of "
                f"{self.metadata.context_window} tokens, and only the last one's answer is known; "
                "a larger context_window, or shorter contexts"
            )
        if not asked:
            raise ValueError(f"the evaluator asks nothing about it: {outcome}")
        read = verdict_of(self.evaluator, outcome, self.pairwise, self.passing_score)
        if read != label:
            raise ValueError(f"its verdict is {label:g}, and the answer {said!r} is read as {read}")
        self._check_score(judgment, said, outcome)
        return [*_records(asked[0]), {"role": "assistant", "content": said}]

    def _answer(self, judgment: Judgment, label: float) -> str:
        if self.answer is None:
            return answer_of(self.evaluator, judgment, label, self.reasons)
        said = self.answer(judgment)
        if not isinstance(said, str) or not said.strip():
            raise ValueError(f"answer must give a text, got {said!r}")
        return said

    def _check_score(self, judgment: Judgment, said: str, outcome: Any) -> None:
        if not reads_scores(self.evaluator) or judgment.score is None:
            return
        if not math.isclose(outcome.score, judgment.score, abs_tol=1e-6):
            raise ValueError(
                f"its score is {judgment.score:g}, and the answer {said!r} is read as "
                f"{outcome.score:g}"
            )


def _mirrored(judgment: Judgment) -> Judgment:
    """The pair in its other order, with the verdict that is then right."""
    score = None if judgment.score is None else 1 - judgment.score
    passing = None if judgment.passing is None else not judgment.passing
    return replace(turned(judgment), score=score, passing=passing)


def _records(messages: Messages) -> list[dict[str, Any]]:
    return [message_record(message) for message in messages]


def check_writing(answer: Any, reasons: Any, too_long: Any) -> None:
    """The arguments that say how answers are written are of their kinds."""
    if too_long not in get_args(TooLong):
        raise ValueError(f"unknown too_long {too_long!r}; choose one of: error, drop")
    if answer is not None and not callable(answer):
        raise TypeError(f"answer must be a function from a judgment to a text, got {answer!r}")
    if not isinstance(reasons, bool):
        raise TypeError(f"reasons must be True or False, got {reasons!r}")


def check_items(data: JudgeData, evaluator: BaseEvaluator) -> None:
    """Each item has what the evaluator asks about, and counts as much as the others.

    Raises:
        DatasetError: naming each that does not.
    """
    kind, items = kind_of(evaluator), data.items
    if data.pairwise and kind not in (None, PAIRWISE):
        raise DatasetError(
            f"{type(evaluator).__name__} judges single responses, and the verdicts are on pairs: "
            f"the form for these is {PAIRWISE}"
        )
    check_samples(items, evaluator)
    other = [n for n, item in enumerate(items) if item.weight != items[0].weight]
    if other:
        raise DatasetError(
            "an LLM learns from all verdicts alike: give all the same weight, and repeat one that "
            "is to count more",
            [f"judgment {n} has weight {items[n].weight:g}" for n in other],
        )
