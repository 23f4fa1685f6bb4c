"""Verdicts of LlamaIndex's evaluators: the words that they are read from, and what results say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.judges.llm.asking import Outcome, RequestFailedError, evaluate_all
from llama_index.tuning.judges.llm.model import with_llm
from llama_index.tuning.judges.records import NO_VERDICT, TIE
from llama_index.tuning.judges.teacher import NEITHER, PAIRWISE, source_of, turned

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM


Answer = Callable[[Judgment], str]
"""A judgment → what an LLM has to say for the evaluator to come to its verdict."""


NO_REASONS = "(no reasons)"
"""Stands where the evaluator's parser wants reasons, and none were recorded or wanted."""


_LETTERS = {1.0: "[[A]]", 0.0: "[[B]]", TIE: "[[C]]"}


_MARK = "[RESULT]"


def answer_of(evaluator: BaseEvaluator, judgment: Judgment, label: float, reasons: bool) -> str:
    """The answer from which an evaluator of LlamaIndex reads the verdict.

    Args:
        evaluator: one of LlamaIndex's seven that ask an LLM, or of a class below.
        judgment: its score decides if the evaluator reads scores.
        label: 1 for pass (or the first), 0 for fail (or the second), 0.5 for a tie.
        reasons: whether the recorded feedback becomes part of it.

    Raises:
        TypeError: an evaluator of another kind.
        ValueError: the judgment lacks what the evaluator reads.

    Example:
        >>> from llama_index.core.evaluation import CorrectnessEvaluator
        >>> from llama_index.core.llms import MockLLM
        >>> judgment = Judgment(response="5 euros.", score=4, feedback="Short, and right.")
        >>> answer_of(CorrectnessEvaluator(MockLLM()), judgment, 1.0, reasons=True)
        '4.0\\nShort, and right.'
    """
    kind = kind_of(evaluator)
    if kind is None:
        raise TypeError(
            f"how {type(evaluator).__name__} reads its LLM's answers is not known: pass answer=, a "
            "function from a judgment to the answer"
        )
    said = (judgment.feedback or "").strip() if reasons else ""
    answer: str = _WRITERS[kind](evaluator, judgment, label, said)
    return answer


def kind_of(evaluator: BaseEvaluator) -> str | None:
    """Which of LlamaIndex's evaluators it is, or is derived from."""
    names = (kind.__name__ for kind in type(evaluator).__mro__)
    return next((name for name in names if name in _WRITERS), None)


def reads_words(evaluator: BaseEvaluator) -> bool:
    """Whether it takes any reply without a yes for a no."""
    return kind_of(evaluator) in ("FaithfulnessEvaluator", "RelevancyEvaluator")


def reads_scores(evaluator: BaseEvaluator) -> bool:
    """Whether a score is what it reads."""
    return kind_of(evaluator) in _SCORED


def _word(evaluator: Any, judgment: Judgment, label: float, said: str) -> str:
    return "YES" if label == 1 else "NO"  # reasons could hold the word that decides


def _score_first(evaluator: Any, judgment: Judgment, label: float, said: str) -> str:
    return f"{_score(evaluator, judgment)}\n{said or NO_REASONS}"


def _score_last(evaluator: Any, judgment: Judgment, label: float, said: str) -> str:
    # The recorded feedback is the teacher's whole answer, and scores are shares of the highest.
    score = _score(evaluator, judgment) * evaluator.score_threshold
    before = said.rpartition(_MARK)[0].strip() if _MARK in said else said
    return f"{before or NO_REASONS}\n{_MARK} {round(score, 6):g}"


def _object(evaluator: Any, judgment: Judgment, label: float, said: str) -> str:
    found = {"passing": label == 1, "feedback": said or NO_REASONS}
    return json.dumps(found, ensure_ascii=False)


def _letter(evaluator: Any, judgment: Judgment, label: float, said: str) -> str:
    return _LETTERS[label]  # recorded reasons speak of one order, and both are learnt


def _score(evaluator: Any, judgment: Judgment) -> float:
    if judgment.score is None:
        raise ValueError(f"it has no score, and {type(evaluator).__name__} reads one")
    return float(judgment.score)


_WRITERS: dict[str, Callable[[Any, Judgment, float, str], str]] = {
    "AnswerRelevancyEvaluator": _score_last,
    "ContextRelevancyEvaluator": _score_last,
    "CorrectnessEvaluator": _score_first,
    "FaithfulnessEvaluator": _word,
    "GuidelineEvaluator": _object,
    PAIRWISE: _letter,
    "RelevancyEvaluator": _word,
}


_SCORED = ("AnswerRelevancyEvaluator", "ContextRelevancyEvaluator", "CorrectnessEvaluator")


_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Verdicts on some items, a row for each.

    Attributes:
        values: 1, 0, 0.5 for a tie, or `NO_VERDICT`; shape `(n,)`.
        scores: the evaluator's, if its verdicts are scores, NaN if there is none; else None.
        faults: why there was no verdict → how often.
        flips: of pairs, whether the verdict changed with the order, shape `(n,)`; else None.
    """

    values: Float64
    scores: Float64 | None = None
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
        workers: requests at a time, if the LLM has no `chat_batch`.
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
        scores = np.array([_outcome_score(outcome) for outcome in outcomes])
    return Verdicts(
        np.array([NO_VERDICT if isinstance(value, str) else value for value in said]),
        scores,
        Counter(value for value in said if isinstance(value, str)),
    )


def _outcome_score(outcome: Outcome) -> float:
    score = None if isinstance(outcome, Exception) else outcome.score
    return float("nan") if score is None else float(score)
