"""How a sentence-transformers model is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning._checks import plain_fields
from llama_index.tuning.embeddings.adapter.options import _between, _one_of, _whole

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class SentenceTransformersOptions:
    """How a sentence-transformers model is tuned, beyond the engine's own arguments.

    Example:
        >>> SentenceTransformersOptions(lora_rank=16, matryoshka_dims=(384, 96)).precision
        'auto'
    """

    learning_rate: float = 5e-5
    """Peak of the linear schedule; low-rank updates want about ten times as much."""
    hard_negatives: int | None = None
    """Documents that the base ranks high and that are not relevant, for each query; by default
    none, or the hardest one of a `MinedDataset`."""
    max_unlabelled: int = 1000
    """At most this many sentences of `unlabelled` are trained on, drawn at random."""
    matryoshka_dims: tuple[int, ...] = ()
    """Leading dimensions to train as vectors of their own, such as `(384, 192, 96)`."""
    mini_batch_size: int = 32
    """Pairs that a cached loss keeps in memory at once; `batch_size` may be much larger."""
    guide: str | None = None
    """Model that decides for a GIST loss what is no negative; the untuned model by default."""
    lora_rank: int = 0
    """Train low-rank updates of this rank instead of all weights; they are merged at the end."""
    freeze: tuple[str, ...] = ()
    """Regular expressions; parameters whose name matches stay as they are."""
    merge: tuple[float, ...] = ()
    """Shares of the tuned weights in an average with the base's; the best on deciding queries is
    kept. `(0.5, 1.0)` tries the mean of both (Wortsman et al. 2022)."""
    precision: Precision = "auto"
    """Of the arithmetic while training; `"auto"` takes bf16 if the device has it."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, more time."""
    max_length: int | None = None
    """Tokens of a text while training, the model's own limit by default. Half of it takes half the
    time; the model goes on reading texts of its own length."""
    query_prompt: str | None = None
    """Put before each query; the model's own, or what LlamaIndex knows for it, by default."""
    document_prompt: str | None = None
    """Put before each document; likewise."""
    held_out: float = 0.1
    """Share of the queries, kept apart by relevant document, that decide which checkpoint is
    kept; and, without `val_dataset`, twice that share again to measure on."""
    tolerance: float = 0.01
    """An earlier checkpoint takes the last one's place only if its nDCG@10 on the deciding
    queries is better by more than this: smaller differences between few queries are noise."""
    refit: bool | None = None
    """When all is decided, train once more from the base on all pairs, those held out too, as far
    as was decided. By default only without `val_dataset`, where three tenths of the queries are
    held out and would teach nothing; training then takes about two and a half times as long."""
    max_steps: int = -1
    """Stop after this many steps; no limit by default. With `refit`, each training does."""
    seed: int = 0
    """The same seed on the same machine gives the same weights."""

    def __post_init__(self) -> None:
        plain_fields(self)
        _one_of("precision", self.precision, get_args(Precision))
        _between("learning_rate", self.learning_rate, 0, float("inf"), "above 0", open_low=True)
        _between("tolerance", self.tolerance, 0, 1, "from 0 to 1")
        _between("held_out", self.held_out, 0, 0.3, "above 0 and at most 0.3", open_low=True)
        if self.hard_negatives is not None:
            _whole("hard_negatives", self.hard_negatives, 0)
        for name in ("lora_rank", "seed"):
            _whole(name, getattr(self, name), 0)
        for name in ("max_unlabelled", "mini_batch_size"):
            _whole(name, getattr(self, name), 1)
        if self.max_length is not None:
            _whole("max_length", self.max_length, 8)
        if self.max_steps != -1:
            _whole("max_steps", self.max_steps, 1)
        for name in ("matryoshka_dims", "freeze", "merge"):
            _sequence(name, getattr(self, name))
        for size in self.matryoshka_dims:
            _whole("each of matryoshka_dims", size, 1)
        for share in self.merge:
            _between("each of merge", share, 0, 1, "above 0 and at most 1", open_low=True)


def _sequence(name: str, value: object) -> None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a tuple, got {value!r}")
