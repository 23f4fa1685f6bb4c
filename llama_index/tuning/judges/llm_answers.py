"""Verdicts as the words that LlamaIndex's own evaluators read them from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llama_index.tuning.datasets.judgments import Judgment
from llama_index.tuning.judges.light import TIE
from llama_index.tuning.judges.teacher import PAIRWISE

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator

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
        judgment: its score decides where the evaluator reads scores.
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
