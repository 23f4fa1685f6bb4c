"""Answers, and what judges and people thought of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from llama_index.tuning.datasets._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """One verdict on one answer.

    Attributes:
        query: the question.
        response: the answer that was judged; of a pair, the first.
        contexts: the passages that the answer was made from.
        reference: the right answer, where one was given.
        second_response: of a pair, the second answer.
        score: the verdict as a number, on the judge's own scale.
        passing: the verdict as yes or no.
        feedback: the judge's reasons.
        source: `"human"`, or the model that judged.
        judge: the evaluator's class.
        weight: how much the verdict counts, above 0.
    """

    query: str | None = None
    response: str | None = None
    contexts: Sequence[str] | None = None
    reference: str | None = None
    second_response: str | None = None
    score: float | None = None
    passing: bool | None = None
    feedback: str | None = None
    source: str = ""
    judge: str | None = None
    weight: float = 1.0


@dataclass
class JudgmentDataset:
    """Verdicts to tune a judge on; several on one answer stay apart.

    Args:
        judgments: the verdicts.

    Raises:
        DatasetError: naming every fault by its row.

    Example:
        >>> dataset = JudgmentDataset([
        ...     Judgment(query="Fee?", response="5 euros.", contexts=["Fee: 5 €"], passing=True),
        ... ])
        >>> len(dataset)
        1
    """

    judgments: list[Judgment]

    def __post_init__(self) -> None:
        faults = [
            f"judgment {number}: {fault}"
            for number, judgment in enumerate(self.judgments)
            for fault in _faults(judgment)
        ]
        if faults:
            raise DatasetError("the judgment dataset has faults:", faults)

    def __len__(self) -> int:
        """The number of verdicts."""
        return len(self.judgments)

    @classmethod
    def from_records(cls, rows: Iterable[Mapping[str, Any]]) -> JudgmentDataset:
        """From plain objects with a judgment's fields.

        Raises:
            DatasetError: a row has a field that no judgment has.
        """
        known = {field.name for field in fields(Judgment)}
        judgments = []
        for number, row in enumerate(rows):
            unknown = sorted(map(str, set(row) - known))
            if unknown:
                raise DatasetError(f"judgment {number} has unknown fields: {', '.join(unknown)}")
            judgments.append(Judgment(**row))
        return cls(judgments)

    def fingerprint(self) -> str:
        """A short hash of the content, written into reports and artifacts."""
        return hashlib.sha256("\n".join(self._lines()).encode()).hexdigest()[:16]

    def save_jsonl(self, path: PathLike) -> None:
        """Write one verdict a line, atomically."""
        write_text_atomic(path, "".join(f"{line}\n" for line in self._lines()))

    @classmethod
    def from_jsonl(cls, path: PathLike) -> JudgmentDataset:
        """Load what `save_jsonl` wrote."""
        return cls.from_records(row for _, row in read_json_lines(path))

    def _lines(self) -> list[str]:
        rows = (asdict(judgment) for judgment in self.judgments)
        return [
            json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False)
            for row in rows
        ]


def _faults(judgment: Judgment) -> Iterable[str]:
    if not isinstance(judgment.response, str):
        yield f"response must be a text, got {judgment.response!r}"
    if judgment.score is None and judgment.passing is None:
        yield "it has neither score nor passing: there is no verdict"
    if judgment.score is not None and judgment.score != judgment.score:
        yield "score must be a number, got nan"
    if judgment.passing not in (None, True, False):
        yield f"passing must be true or false, got {judgment.passing!r}"
    for name in ("query", "reference", "second_response", "feedback"):
        value = getattr(judgment, name)
        if value is not None and not isinstance(value, str):
            yield f"{name} must be a text, got {type(value).__name__}"
    contexts = judgment.contexts
    if contexts is not None and (
        isinstance(contexts, str) or not all(isinstance(text, str) for text in contexts)
    ):
        yield "contexts must be a list of texts"
    if not judgment.weight > 0:
        yield f"weight must be above 0, got {judgment.weight}"
