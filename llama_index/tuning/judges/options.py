"""How a judge is trained and deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning._checks import number, plain_fields, share, whole_number
from llama_index.tuning.datasets.checks import is_number

Target = Literal["balanced accuracy", "accuracy", "precision"]


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """How a judge is trained, when an answer passes, and when the judge defers.

    Example:
        >>> JudgeOptions(target="precision", target_precision=0.95).folds
        5
    """

    target: Target = "balanced accuracy"
    """What `threshold` is chosen for, on verdicts that were not trained on; a pairwise judge
    always chooses its band of ties for accuracy."""
    target_precision: float = 0.9
    """With `target="precision"`: share of passed answers that must be right to pass."""
    passing_score: float | None = None
    """A verdict with a score and no `passing` passes from this score on, such as 4.0 of 1 to 5."""
    language: str = "english"
    """Whose stemmer and stop words to use; `"none"` leaves words as they are."""
    folds: int = 5
    """Parts of the data in cross-fitting, at least 2; a query's verdicts stay in one."""
    defer_share: float = 0.2
    """Share of the answers, the least certain, that goes to `defer_to`, from 0 to 1."""
    confidence: float = 0.9
    """Level of the report's intervals, between 0 and 1."""
    seed: int = 0
    """The same seed gives the same judge."""

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.target not in get_args(Target):
            known = ", ".join(get_args(Target))
            raise ValueError(f"unknown target {self.target!r}; choose one of: {known}")
        if not number("target_precision", self.target_precision, 0, 1) > 0:
            raise ValueError(
                f"target_precision must be above 0 and at most 1, got {self.target_precision}"
            )
        if self.passing_score is not None and not is_number(self.passing_score):
            raise ValueError(f"passing_score must be a finite number, got {self.passing_score!r}")
        whole_number("folds", self.folds, 2)
        number("defer_share", self.defer_share, 0, 1)
        share("confidence", self.confidence)
        whole_number("seed", self.seed, 0)
