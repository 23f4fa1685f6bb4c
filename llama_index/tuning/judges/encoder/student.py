"""The encoder student: a local cross-encoder that learns to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from llama_index.tuning.judges.encoder.options import EncoderOptions

if TYPE_CHECKING:
    from llama_index.tuning.judges.data import JudgeData
    from llama_index.tuning.judges.student import TrainingData, TrainingResult


@dataclass(frozen=True)
class EncoderStudent(EncoderOptions):
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

    name: ClassVar[str] = "encoder"
    libraries: ClassVar[tuple[str, ...]] = (
        *("sentence-transformers", "transformers", "torch"),
        *("numpy", "scipy", "scikit-learn"),
    )

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
