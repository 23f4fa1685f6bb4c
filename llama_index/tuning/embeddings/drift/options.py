"""How a drift adapter is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning._checks import plain_fields, set_plain, whole_number

DriftKind = Literal["procrustes", "low_rank", "linear"]

MIN_TEXTS = 60
"""Texts that are needed to learn a map and to measure it."""


@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """How the map is learnt.

    Example:
        >>> DriftOptions(kind="linear").max_texts
        2000
    """

    kind: DriftKind | Literal["auto"] = "auto"
    """`"procrustes"`, `"low_rank"`, `"linear"`, or the best of them on texts not fitted to."""
    max_texts: int = 2000
    """The new model embeds at most this many texts, drawn at random."""
    seed: int = 0
    """The same seed gives the same map."""

    def __post_init__(self) -> None:
        plain_fields(self)
        kinds = ("auto", *get_args(DriftKind))
        if self.kind not in kinds:
            raise ValueError(f"unknown kind {self.kind!r}; choose one of: {', '.join(kinds)}")
        for name, least in (("max_texts", MIN_TEXTS), ("seed", 0)):
            set_plain(self, name, whole_number(name, getattr(self, name), least))
