"""What generation gives back: a retrieval dataset with answers, failures and counts beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets._files import PathLike, write_text_atomic
from llama_index.tuning.generate.failures import Failure


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
        answers: query id → answer, where answers were asked for.
        styles: query id → the style it was written in, where styles were asked for.
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
