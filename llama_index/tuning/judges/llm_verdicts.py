"""What an evaluator's results say, for judges that give verdicts and nothing beside them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.datasets.judgments import Judgment
from llama_index.tuning.judges.features import Floats
from llama_index.tuning.judges.llm_answers import reads_scores, reads_words
from llama_index.tuning.judges.llm_asking import Outcome, RequestFailedError, evaluate_all, with_llm
from llama_index.tuning.judges.measuring import NO_VERDICT
from llama_index.tuning.judges.teacher import NEITHER, source_of, turned

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM

_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Verdicts on some items, a row for each.

    Attributes:
        values: 1, 0, 0.5 for a tie, or `NO_VERDICT`; shape `(n,)`.
        scores: the evaluator's, where its verdicts are scores, NaN where there is none; else None.
        faults: why there was no verdict → how often.
        flips: of pairs, whether the verdict changed with the order, shape `(n,)`; else None.
    """

    values: Floats
    scores: Floats | None = None
    faults: Counter[str] = field(default_factory=Counter)
    flips: NDArray[np.bool_] | None = None

    @property
    def missing(self) -> float:
        """Share of the items without a verdict."""
        return float((self.values == NO_VERDICT).mean())


def verdicts_of(
    evaluator: BaseEvaluator,
    items: Sequence[Judgment],
    llm: LLM,
    *,
    pairwise: bool,
    passing_score: float | None = None,
    workers: int = 4,
    show_progress: bool = False,
) -> Verdicts:
    """Verdicts of an evaluator with an LLM.

    Args:
        evaluator: any that keeps its LLM as `_llm`.
        items: what is judged; verdicts in them are not read.
        llm: a chat model.
        pairwise: whether pairs are judged; then each is judged in both orders too.
        passing_score: a result with a score and no `passing` passes from here on.
        workers: requests at a time, where the LLM has no `chat_batch`.
        show_progress: show bars.
    """
    replies: dict[str, str | Exception] = {}

    def judged(double: BaseEvaluator, shown: Sequence[Judgment]) -> Verdicts:
        outcomes = evaluate_all(
            double, shown, llm, replies=replies, workers=workers, show_progress=show_progress
        )
        return _read(double, outcomes, pairwise, passing_score)

    found = judged(evaluator, items)
    if not pairwise:
        return found
    once = one_order(evaluator)
    first, second = (judged(once, shown).values for shown in (items, [turned(i) for i in items]))
    mirrored = np.where(second == NO_VERDICT, NO_VERDICT, 1 - second)
    return replace(found, flips=first != mirrored)


def one_order(evaluator: BaseEvaluator) -> BaseEvaluator:
    """The evaluator, asking about a pair in the order given only."""
    llm: LLM = evaluator._llm  # type: ignore[attr-defined]
    return with_llm(evaluator, llm, _enforce_consensus=False)


def verdict_of(
    evaluator: BaseEvaluator, outcome: Outcome, pairwise: bool, passing_score: float | None
) -> float | str:
    """1, 0, or 0.5 for a tie; or why there is no verdict."""
    if isinstance(outcome, RequestFailedError):
        return str(outcome)[:200]
    if isinstance(outcome, Exception):
        return f"{type(outcome).__name__}: {str(outcome)[:200]}"
    if outcome.invalid_result:
        return outcome.invalid_reason or "an invalid result"
    if source_of(outcome) == NEITHER:
        return "the verdict turned with the order"
    reply = outcome.feedback or ""
    if reads_words(evaluator) and not _WORD.search(reply):
        return "a reply without yes or no"
    if pairwise:
        return "no score" if outcome.score is None else float(outcome.score)
    if outcome.passing is not None:
        return float(outcome.passing)
    if outcome.score is None:
        return "neither a score nor passing"
    if passing_score is None:
        raise ValueError(
            f"{type(evaluator).__name__} gives scores and no passing: set "
            "JudgeOptions(passing_score=...)"
        )
    return float(outcome.score >= passing_score)


def _read(
    evaluator: BaseEvaluator,
    outcomes: Sequence[Outcome],
    pairwise: bool,
    passing_score: float | None,
) -> Verdicts:
    said = [verdict_of(evaluator, outcome, pairwise, passing_score) for outcome in outcomes]
    scores = None
    if reads_scores(evaluator):
        scores = np.array([_score(outcome) for outcome in outcomes])
    return Verdicts(
        np.array([NO_VERDICT if isinstance(value, str) else value for value in said]),
        scores,
        Counter(value for value in said if isinstance(value, str)),
    )


def _score(outcome: Outcome) -> float:
    score = None if isinstance(outcome, Exception) else outcome.score
    return float("nan") if score is None else float(score)
