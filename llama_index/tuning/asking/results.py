"""What generation gives back: a retrieval dataset with answers, failures and counts beside it.

What became of each item of a run: a result, a failure kept as data, or not asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from llama_index.tuning._checks import items_of, of_type, plain_arguments
from llama_index.tuning._files import PathLike, write_text_atomic
from llama_index.tuning.datasets import RetrievalDataset

R = TypeVar("R")

_SECRET = re.compile(r"(?i)\b(sk-|key-|bearer\s+)[\w.*-]{6,}")


@dataclass(frozen=True)
class Failure:
    """One item that failed.

    Args:
        id: of the node, query or pair.
        step: what was asked for it: questions, verify, …
        error: the type of the last error.
        message: its message, without API keys.
        attempts: how often it was tried.
    """

    id: str
    step: str
    error: str
    message: str
    attempts: int = 1

    @classmethod
    @plain_arguments
    def of(cls, id_: str, step: str, error: BaseException, attempts: int) -> Failure:
        """From the error that ended it."""
        message = _SECRET.sub(r"\1…", str(error) or "no message")[:1000]
        return cls(id_, step, type(error).__name__, message, attempts)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass
class Outcomes(Generic[R]):
    """Results by item id, in the items' order; failures; the ids that a budget left out; the
    number of requests that were sent."""

    results: dict[str, R] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    requests: int = 0


@dataclass(frozen=True)
class QuestionAnswer:
    """A question with its answer and the passage that it comes from."""

    query_id: str
    question: str
    answer: str
    node_id: str
    context: str


@dataclass(repr=False)
class GeneratedDataset(RetrievalDataset):
    """A `RetrievalDataset` that also says how it came about; engines take it as it is.

    Args:
        answers: query id → answer, if answers were asked for.
        styles: query id → the style it was written in, if styles were asked for.
        failures: the items that gave nothing, with their errors.
        counts: what was asked, kept and dropped, for people and reports.

    Example:
        >>> dataset = GeneratedDataset(
        ...     {"q": "Fee?"}, {"d": "It is 5 euros."}, {"q": ["d"]}, answers={"q": "5 euros"}
        ... )
        >>> dataset.question_answers()[0].answer
        '5 euros'
    """

    answers: dict[str, str] = field(default_factory=dict)
    styles: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("answers", "styles", "counts"):
            of_type(name, getattr(self, name), Mapping, "a dictionary")
        items_of("failures", self.failures, "failures")

    def question_answers(self) -> list[QuestionAnswer]:
        """Question, answer and source, for LLM tuning and judges."""
        return [
            QuestionAnswer(id_, self.queries[id_], answer, node, self.corpus[node])
            for id_, answer in self.answers.items()
            for node in self.relevant_docs[id_][:1]
        ]

    def save_question_answers(self, path: PathLike) -> None:
        """`question_answers()` as JSON Lines."""
        rows = (json.dumps(asdict(row), ensure_ascii=False) for row in self.question_answers())
        write_text_atomic(path, "".join(f"{row}\n" for row in rows))


def query_id(*parts: str) -> str:
    """An id that depends on the content alone: the same in every run and process."""
    return f"q-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Dropped:
    """A row that was left out.

    Attributes:
        number: its place among the rows given, from 0.
        reason: what is wrong with it.
    """

    number: int
    reason: str
