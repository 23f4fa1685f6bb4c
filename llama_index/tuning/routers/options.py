"""How a router is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


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
        if self.tau != "auto":
            _positive("tau", self.tau)
        if self.words != "auto" and not isinstance(self.words, bool):
            raise ValueError(f"words must be True, False or 'auto', got {self.words!r}")
        for name, flag in (("balanced", self.balanced), ("robust", self.robust)):
            if not isinstance(flag, bool):
                raise ValueError(f"{name} must be True or False, got {flag!r}")
        _whole("folds", self.folds, 2)
        _whole("keep_examples", self.keep_examples, 0)
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number >= 0, got {self.seed!r}")
        if not 0.5 <= self.in_scope_recall < 1:
            raise ValueError(f"in_scope_recall must be from 0.5 to 1, got {self.in_scope_recall}")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise ValueError(f"target_accuracy must be from 0 to 1, got {self.target_accuracy}")


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0 or 'auto', got {value!r}")


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
