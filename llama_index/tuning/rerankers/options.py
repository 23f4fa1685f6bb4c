"""How a light re-ranker is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning.rerankers.fitting import Loss
from llama_index.tuning.rerankers.words import ENGLISH

Start = Literal["default", "zero"]


@dataclass(frozen=True, kw_only=True)
class LightRerankerOptions:
    """How a light re-ranker is trained."""

    language: str = ENGLISH
    """Whose stemmer and stop words: `"english"`, `"german"`, …, or `"none"`."""

    stop_words: tuple[str, ...] | None = None
    """Words to leave out of queries; by default the language's list."""

    metadata_keys: tuple[str, ...] = ()
    """Metadata whose shared words with the query are a feature each, such as `"title"`."""

    depth: int | None = None
    """Candidates to train on for each query, as many as will be re-ranked; all by default."""

    depths: tuple[int, ...] = (10, 30, 100)
    """Depths to report, where the lists are long enough."""

    loss: Loss | None = None
    """`"listwise"` (softmax cross-entropy) or `"pairwise"` (logistic). By default listwise, and
    pairwise where relevance has more than two grades, a teacher's say."""

    start: Start = "default"
    """Pull the weights towards those that come with the package, or towards `"zero"`."""

    folds: int = 5
    """Folds of cross-fitting, at least 2."""

    seed: int = 0
    """Decides the folds and the bootstrap."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("loss", self.loss, (None, *get_args(Loss))),
            ("start", self.start, get_args(Start)),
        ):
            if value not in choices:
                known = ", ".join(filter(None, choices))
                raise ValueError(f"unknown {name} {value!r}; choose one of: {known}")
        for name, number, least in (
            ("depth", self.depth, 2),
            ("folds", self.folds, 2),
            *(("depths", depth, 1) for depth in self.depths),
        ):
            if number is not None and (not isinstance(number, int) or number < least):
                raise ValueError(f"{name} must be a whole number >= {least}, got {number!r}")
        keys: object = self.metadata_keys
        if isinstance(keys, str):
            raise TypeError(f"metadata_keys must be a tuple of keys, got {keys!r}")
