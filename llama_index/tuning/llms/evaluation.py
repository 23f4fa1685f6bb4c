"""Base against tuned LLM by a score of the user's own, item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.report import Gains

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Scores = Sequence[float] | Mapping[str, Sequence[float]]
Evaluate = Callable[["LLM"], Scores]
"""An LLM → one score from 0 to 1 for each held-out item, always in the same order; or metric →
such scores, the first metric the one that the gate looks at."""

Arrays = dict[str, NDArray[np.float64]]


def measured(evaluate: Evaluate, llm: LLM, argument: str) -> Arrays:
    """The scores that a user's callable gives an LLM.

    Args:
        evaluate: the callable.
        llm: base or tuned.
        argument: its name, for messages.

    Raises:
        ValueError: no score, or one outside 0 to 1.
        TypeError: something else than numbers.
    """
    given: Any = evaluate(llm)
    named = dict(given) if isinstance(given, Mapping) else {"score": given}
    if not named:
        raise ValueError(f"{argument} returned no metric")
    return {str(name): _array(values, f"{argument} ({name})") for name, values in named.items()}


def compared(base: Arrays, tuned: Arrays, argument: str, seed: int = 0) -> Gains:
    """The paired gains of the same items.

    Raises:
        ValueError: the callable did not score the same items both times.
    """
    sizes = [{name: len(values) for name, values in side.items()} for side in (base, tuned)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{argument} must score the same items each time: {sizes[0]} for the base, "
            f"{sizes[1]} for the tuned LLM"
        )
    return {name: paired_gain(base[name], tuned[name], seed=seed) for name in base}


def _array(values: Any, what: str) -> NDArray[np.float64]:
    try:
        scores = np.asarray([float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise TypeError(
            f"{what} must return a list of numbers, one for each item, got "
            f"{type(values).__name__}: {exc}"
        ) from exc
    if not scores.size:
        raise ValueError(f"{what} returned no scores")
    wrong = scores[~((scores >= 0) & (scores <= 1))]
    if wrong.size:
        raise ValueError(f"{what}: scores must be from 0 to 1, got {wrong[0]}")
    return scores
