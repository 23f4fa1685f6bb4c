"""How a query encoder is tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from llama_index.tuning.embeddings.adapter.options import AdapterOptions, _between, _one_of, _whole
from llama_index.tuning.embeddings.full.options import (
    Precision,
    SentenceTransformersOptions,
    _sequence,
)


@dataclass(frozen=True, kw_only=True)
class QueryEncoderOptions:
    """How a query encoder is tuned, beyond the engine's own arguments.

    Example:
        >>> QueryEncoderOptions(lora_rank=0, learning_rates=(2e-5, 5e-5)).folds
        3
    """

    learning_rates: tuple[float, ...] = (5e-4,)
    """Peaks of the linear schedule; of several, held-out questions choose. All weights
    (`lora_rank=0`) want about a tenth."""
    lora_rank: int = 16
    """Rank of the low-rank updates, which are merged into the weights at the end (Hu et al. 2021);
    0 trains all weights."""
    merge: tuple[float, ...] = (0.5, 1.0)
    """Shares of the tuned weights in an average with the base's; held-out questions choose
    (Wortsman et al. 2022)."""
    folds: int = 3
    """Of the cross-fitting; each is a training, and one on all questions follows."""
    inner_share: float = 0.2
    """Share of the questions that a training learns from, at most 0.5, that decides instead: when
    to stop, which learning rate, which merge."""
    tolerance: float = 0.005
    """An earlier checkpoint takes the last one's place only if its nDCG@10 on the deciding
    questions is better by more than this."""
    scale: float | None = None
    """Factor of the softmax over cosines; 20, or more if the model's cosines lie close together,
    by default."""
    max_documents: int = 50_000
    """Above this, a softmax is over the relevant, the mined and some random documents only."""
    mined_negatives: int = 20
    """Nearest documents of a question that are mined where not all documents are used."""
    max_unlabelled: int = 1000
    """At most this many sentences of `unlabelled` are trained on, drawn at random."""
    unlabelled_weight: float = 0.5
    """Weight, from 0 to 1, of a sentence in the loss beside a labelled question."""
    max_length: int | None = None
    """Tokens of a question while training; the model's own limit by default."""
    query_prompt: str | None = None
    """Put before each question; the model's own, or what LlamaIndex knows for it, by default."""
    document_prompt: str | None = None
    """What the stored vectors' documents had before them; likewise."""
    precision: Precision = "auto"
    """Of the arithmetic while training; `"auto"` takes bf16 if the device has it."""
    max_steps: int = -1
    """Stop each training after this many steps; no limit by default."""
    seed: int = 0
    """The same seed on the same machine gives the same weights."""

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, get_args(Precision))
        for name in ("learning_rates", "merge"):
            _sequence(name, getattr(self, name))
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one number")
        _whole("folds", self.folds, 2)
        _between("unlabelled_weight", self.unlabelled_weight, 0, 1, "from 0 to 1")
        for rate in self.learning_rates:
            self._training(rate)  # checks what the model's trainer takes
        self.on_vectors()  # and what concerns the vectors

    def _training(self, learning_rate: float) -> SentenceTransformersOptions:
        return SentenceTransformersOptions(
            learning_rate=learning_rate,
            lora_rank=self.lora_rank,
            merge=self.merge,
            tolerance=self.tolerance,
            max_unlabelled=self.max_unlabelled,
            max_length=self.max_length,
            query_prompt=self.query_prompt,
            document_prompt=self.document_prompt,
            precision=self.precision,
            max_steps=self.max_steps,
            seed=self.seed,
        )

    def trainings(self) -> list[SentenceTransformersOptions]:
        """For sentence-transformers' trainer, one for each learning rate."""
        return [self._training(rate) for rate in self.learning_rates]

    def on_vectors(self) -> AdapterOptions:
        """What is the same as for an adapter: who decides, which documents, which softmax."""
        return AdapterOptions(
            folds=self.folds,
            inner_share=self.inner_share,
            scale=self.scale,
            max_documents=self.max_documents,
            mined_negatives=self.mined_negatives,
            seed=self.seed,
        )
