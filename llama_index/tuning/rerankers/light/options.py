"""How a light re-ranker is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning._checks import listed, plain_fields, set_plain, whole_number, whole_numbers
from llama_index.tuning.rerankers.light.fit import Loss
from llama_index.tuning.text.words import ENGLISH, Analyzer

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
        plain_fields(self)
        for name, value, choices in (
            ("loss", self.loss, (None, *get_args(Loss))),
            ("start", self.start, get_args(Start)),
        ):
            if value not in choices:
                known = ", ".join(filter(None, choices))
                raise ValueError(f"unknown {name} {value!r}; choose one of: {known}")
        for name, least in (("depth", 2), ("folds", 2), ("seed", 0)):
            value = getattr(self, name)
            if value is not None or name != "depth":
                set_plain(self, name, whole_number(name, value, least))
        set_plain(self, "depths", whole_numbers("depths", self.depths, 1))
        keys = listed("metadata_keys", self.metadata_keys, "keys")
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise TypeError(f"metadata_keys must be different keys, got {self.metadata_keys!r}")
        set_plain(self, "metadata_keys", keys)
        Analyzer(self.language, stop_words=self.stop_words)  # names what is wrong with them
