"""The candidates that a solved map is chosen from, and the choice.

A candidate is a mean of the strong and the cautious map at one strength of the prior, with or
without the memory of single questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64

STRENGTHS = (0.8, 0.4, 0.2, 0.1)
"""Of the prior, the most careful first: each is solved from the one before."""
PULLS = (0.0, 0.3, 1.0)
"""How much the memory moves a question, beside a map of unit length."""
CAUTIOUS = (1.0, 0.5, 0.0)
"""Shares of the cautious map in the mean."""
NEAR = 0.5
"""Standard errors below the best that a more careful candidate may be."""
LEAST_UNSEEN = 20
"""Questions on unseen documents from which on these may not lose."""
K = 10
"""Held-out questions choose by nDCG@10."""


class Choice(NamedTuple):
    """One of the candidates."""

    strength: int
    """Which of `STRENGTHS`."""
    cautious: float
    """Share of the cautious map in the mean."""
    pull: float = 0.0
    """Of the memory."""


CHOICES = [
    Choice(strength, share, pull)
    for strength in range(len(STRENGTHS))
    for pull in PULLS
    for share in CAUTIOUS
]
LINEAR = [choice for choice in CHOICES if not choice.pull]
"""Those that are linear maps."""


def choose(
    scores: Float64, base: Float64, seen: NDArray[np.bool_], choices: Sequence[Choice] = CHOICES
) -> Choice:
    """The most careful candidate that is within half a standard error of the best one.

    After the one-standard-error rule (Breiman et al. 1984): with few questions the best is mostly
    luck. Half of it, since what is learnt should carry over to other documents too. What rank
    unseen documents worse than the base does is left out: these must not pay for the others.

    Args:
        scores: nDCG@10 of each held-out question under each of the choices, `(choices, n)`.
        base: the same without a map, shape `(n,)`.
        seen: whether a relevant document of the question has training questions, shape `(n,)`.
        choices: the most careful first.
    """
    allowed = np.arange(len(scores))
    if (~seen).sum() >= LEAST_UNSEEN:
        unseen = scores[:, ~seen].mean(1)
        allowed = np.flatnonzero(unseen >= min(base[~seen].mean(), unseen.max()))
    scores = scores[allowed]
    apart = scores[scores.mean(1).argmax()] - scores
    errors = apart.std(1) / np.sqrt(len(seen))
    best = int((apart.mean(1) <= NEAR * errors).argmax())
    return choices[int(allowed[best])]
