"""How an encoder judge is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from llama_index.tuning.hf.tracking import named_trackers


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder judge is trained."""

    model: str | PathLike[str]
    """A cross-encoder or encoder, by Hugging Face name or folder."""

    with_light: bool = False
    """Average its calibrated logit with a light student's, which learns from the same verdicts;
    the weight is chosen on held-out ones. Only then `embed_model` is of use."""

    epochs: int = 3
    """Passes over the verdicts; the last weights are taken."""

    batch_size: int = 16
    """Windows a batch."""

    learning_rate: float = 5e-5
    """Peak of the schedule."""

    warmup: float = 0.1
    """Share of the steps spent warming up, from 0 to 1."""

    max_length: int | None = None
    """Tokens of a window with query and response, at least 32; the model's own by default."""

    held_out: float = 0.25
    """Share of the queries for calibration, threshold and average, from 0.05 to 0.5."""

    evaluation_steps: int = 100
    """Steps between two checkpoints, with the log loss of the held-out verdicts for the curve;
    nothing is chosen by it."""

    max_steps: int = -1
    """Stop after this many steps; no limit by default."""

    checkpoints: str | PathLike[str] | None = None
    """Folder of the checkpoints, emptied when training is over; a temporary one by default."""

    resume: bool = False
    """Go on from the last one in `checkpoints`, if there is one."""

    device: str | None = None
    """Where to train and serve; a GPU by default, if there is one."""

    bf16: bool = False
    """Compute in bfloat16 while training: faster on newer GPUs, and on CPUs with AMX or AVX-512."""

    trust_remote_code: bool = False
    """Run code that the model brings along."""

    callbacks: Sequence[Any] = ()
    """`TrainerCallback`s of transformers' trainer."""

    report_to: str | Sequence[str] = ()
    """Trackers of transformers that log the training, such as `"tensorboard"` (its files lie beside
    the judge's folder), `"mlflow"` or `"wandb"`."""

    def __post_init__(self) -> None:
        named_trackers(self.report_to)
        if not isinstance(self.model, (str, PathLike)) or not str(self.model):
            raise TypeError(f"model must be a name or a folder, got {self.model!r}")
        for name, least in (("epochs", 1), ("batch_size", 1), ("evaluation_steps", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        for name, low, high in (("warmup", 0.0, 1.0), ("held_out", 0.05, 0.5)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name} must be between {low} and {high}, got {getattr(self, name)}"
                )
        if self.max_length is not None and self.max_length < 32:
            raise ValueError(f"max_length must be at least 32, got {self.max_length}")
        if self.max_steps != -1 and self.max_steps < 1:
            raise ValueError(f"max_steps must be -1 (no limit) or >= 1, got {self.max_steps}")
        if self.resume and self.checkpoints is None:
            raise ValueError("resume needs checkpoints, the folder to go on from")
