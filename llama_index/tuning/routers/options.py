"""How a router is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llama_index.tuning._checks import number, plain_fields, whole_number


@dataclass(frozen=True, kw_only=True)
class RouterOptions:
    """How a router is trained and measured.

    Example:
        >>> RouterOptions(words=False, balanced=True).in_scope_recall
        0.95
    """

    tau: float | Literal["auto"] = "auto"
    """Variance of the weights' prior: larger fits closer; `"auto"` chooses by cross-fitting."""
    words: bool | Literal["auto"] = "auto"
    """Use the query's words beside its vector; `"auto"` if cross-fitting says that it helps."""
    balanced: bool = False
    """Weigh the choices equally, however many examples each has."""
    robust: bool = True
    """Count examples less whose label looks wrong to models that did not train on them, if
    cross-fitting says that it helps."""
    folds: int = 5
    """Parts of the data in cross-fitting, at least 2; no more than examples of a typical choice."""
    in_scope_recall: float = 0.95
    """Share of in-scope queries that must pass the out-of-scope threshold, between 0 and 1."""
    target_accuracy: float | None = None
    """Accuracy for which the deferral margin is chosen; none is deferred by default."""
    keep_examples: int = 50
    """Training queries kept for each choice, to name the nearest one; 0 keeps none."""
    seed: int = 0
    """The same seed gives the same router."""

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.tau != "auto":
            _positive("tau", self.tau)
        if self.words != "auto" and not isinstance(self.words, bool):
            raise ValueError(f"words must be True, False or 'auto', got {self.words!r}")
        whole_number("folds", self.folds, 2)
        whole_number("keep_examples", self.keep_examples, 0)
        whole_number("seed", self.seed, 0)
        if not number("in_scope_recall", self.in_scope_recall, 0.5, 1) < 1:
            raise ValueError(f"in_scope_recall must be from 0.5 to 1, got {self.in_scope_recall}")
        if self.target_accuracy is not None:
            number("target_accuracy", self.target_accuracy, 0, 1)


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0 or 'auto', got {value!r}")
