"""How a cross-encoder is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning._checks import (
    number,
    plain_fields,
    positive,
    set_plain,
    whole_number,
    whole_numbers,
)
from llama_index.tuning.text.words import ENGLISH, Analyzer

CrossLoss = Literal["bce", "lambda", "listnet", "ranknet", "margin_mse", "adr_mse"]

Partner = Literal["light", "retriever"]


@dataclass(frozen=True, kw_only=True)
class CrossEncoderOptions:
    """How a cross-encoder is trained."""

    loss: CrossLoss = "bce"
    """`"bce"`, weighted by negatives per positive; `"lambda"`, `"listnet"`, `"ranknet"` on
    lists; `"margin_mse"`, `"adr_mse"` to follow a teacher's scores or rankings."""

    learning_rate: float = 2e-5
    """Peak of the schedule."""

    hard_negatives: int = 6
    """The retriever's first irrelevant candidates, for each query."""

    random_negatives: int = 2
    """Other queries' candidates, for each query: a re-ranker must know easy ones too."""

    lora_rank: int = 0
    """Train low-rank updates of this rank instead of all weights; merged when saved."""

    held_out: float = 0.2
    """Share of the queries for stopping, fusion weight and calibration; and, without
    `val_dataset`, the same share again to measure on."""

    language: str = ENGLISH
    """Whose stemmer and stop words the baselines with BM25 use; a `TunedRetriever` has its own."""

    partner: Partner = "light"
    """Whose score is mixed with the transformer's: a light re-ranker's, or the `"retriever"`'s."""

    depth: int = 30
    """Candidates to re-rank."""

    depths: tuple[int, ...] = (10, 30)
    """Depths to report."""

    max_length: int | None = None
    """Tokens of a pair; the model's own limit by default."""

    max_steps: int = -1
    """Stop after this many steps; no limit by default."""

    resume: bool = False
    """Go on from the last checkpoint beside the output folder, if there is one."""

    device: str | None = None
    """What to train on; a GPU by default, if there is one."""

    bf16: bool = False
    """Compute in bfloat16 while training: faster on newer GPUs, and on CPUs with AMX or AVX-512."""

    trust_remote_code: bool = False
    """Run code that a model brings along."""

    seed: int = 0
    """Decides initial weights, splits, order and random negatives."""

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, choices in (("loss", get_args(CrossLoss)), ("partner", get_args(Partner))):
            if getattr(self, name) not in choices:
                value, known = getattr(self, name), ", ".join(choices)
                raise ValueError(f"unknown {name} {value!r}; choose one of: {known}")
        number("held_out", self.held_out, 0.01, 0.4)
        positive("learning_rate", self.learning_rate)
        for name, least in (
            ("hard_negatives", 0),
            ("random_negatives", 0),
            ("lora_rank", 0),
            ("depth", 2),
            ("seed", 0),
        ):
            set_plain(self, name, whole_number(name, getattr(self, name), least))
        for name, no_limit in (("max_steps", -1), ("max_length", None)):
            if (value := getattr(self, name)) != no_limit:
                set_plain(self, name, whole_number(name, value, 1))
        set_plain(self, "depths", whole_numbers("depths", self.depths, 1))
        if self.hard_negatives + self.random_negatives < 1:
            raise ValueError("hard_negatives and random_negatives must not both be 0")
        Analyzer(self.language)  # names what is wrong with it
