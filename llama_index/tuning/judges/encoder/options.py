"""The encoder student: its options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from llama_index.tuning.judges.data import JudgeData
    from llama_index.tuning.judges.student import TrainingData, TrainingResult


@dataclass(frozen=True)
class EncoderStudent:
    """A local cross-encoder that reads query, contexts or reference, and response together.

    For `JudgeFinetuneEngine(student=...)`. Slower to train (minutes) and to serve (tens of
    milliseconds on a CPU) than the light student: take it if the report shows that it is
    better. Long contexts are read in several windows, and the best supporting one counts; pairs
    are read in both orders and averaged, so that their order cannot matter. Scores on a scale pass
    from `JudgeOptions.passing_score` on, as for the light student.

    A share of the queries is held out once, for calibration, threshold, and the weight of the
    average; without `val_dataset` the report is on these queries, everything chosen there being
    chosen without the fold it is measured on. The trained encoder is not fitted again on them.

    Needs `pip install 'llama-index-tuning[sentence-transformers]'`.

    Example:
        >>> EncoderStudent("cross-encoder/ms-marco-MiniLM-L6-v2", with_light=True).held_out
        0.25
    """

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

    name: ClassVar[str] = "encoder"
    libraries: ClassVar[tuple[str, ...]] = (
        *("sentence-transformers", "transformers", "torch"),
        *("numpy", "scipy", "scikit-learn"),
    )

    def __post_init__(self) -> None:
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

    @property
    def embeds(self) -> bool:
        """With the light student beside it, which looks at vectors."""
        return self.with_light

    def check(self, data: JudgeData, held_out: JudgeData | None) -> None:
        """The verdicts can be split, and the model loads.

        Raises:
            DatasetError: too few verdicts of a kind on either side of the split.
            ArtifactError: the model does not load.
            MissingExtraError: sentence-transformers is not installed.
        """
        from llama_index.tuning.judges.encoder.train import check

        check(data, self)

    def learn(self, training: TrainingData) -> TrainingResult:
        """Train on the one part, choose on the other."""
        from llama_index.tuning.judges.encoder.train import learn

        return learn(training, self)
