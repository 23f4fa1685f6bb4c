"""Base against tuned LLM by scores of the caller's own, item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Evaluate = Callable[["LLM"], Sequence[float]]
"""An LLM → one score from 0 to 1 for each held-out item, always in the same order."""

Scores = dict[str, NDArray[np.float64]]

SCORE = "score"


def check_callables(evaluate: Evaluate | None, protect: Mapping[str, Evaluate]) -> None:
    """Both are functions, and no name of `protect` is taken."""
    if not isinstance(protect, Mapping):
        raise TypeError(f"protect must map names to functions, got {type(protect).__name__}")
    given = {} if evaluate is None else {"evaluate": evaluate}
    for name, call in {**given, **{f"protect[{name!r}]": c for name, c in protect.items()}}.items():
        if not callable(call):
            raise TypeError(f"{name} must be a function of an LLM, got {call!r}")
    if SCORE in protect:
        raise ValueError(f"protect: the name {SCORE!r} is taken by evaluate's own scores")


def caller_scores(llm: LLM, evaluate: Evaluate | None, protect: Mapping[str, Evaluate]) -> Scores:
    """What the caller's functions give one LLM: `evaluate`'s under `score`, others by name.

    Raises:
        ValueError: no score, or one outside 0 to 1.
        TypeError: something else than numbers.
    """
    found = {} if evaluate is None else {SCORE: _scores("evaluate", evaluate, llm)}
    return found | {
        name: _scores(f"protect[{name!r}]", call, llm) for name, call in protect.items()
    }


def check_same_items(base: Scores, tuned: Scores) -> None:
    """Raise where a function did not score as many items both times."""
    for name, before in base.items():
        if len(before) != len(tuned[name]):
            raise ValueError(
                f"{name}: the same items must be scored each time, got {len(before)} scores for "
                f"the base and {len(tuned[name])} for the tuned LLM"
            )


def _scores(name: str, evaluate: Evaluate, llm: LLM) -> NDArray[np.float64]:
    given = evaluate(llm)
    try:
        scores = np.asarray([float(value) for value in given], dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"{name} must return a list of numbers, one for each item: {exc}") from exc
    if not scores.size:
        raise ValueError(f"{name} must return one score for each item, got none")
    wrong = scores[~((scores >= 0) & (scores <= 1))]
    if wrong.size:
        raise ValueError(f"{name} must return scores between 0 and 1, got {wrong[0]}")
    return scores
