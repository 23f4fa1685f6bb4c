"""What the engine asks of a student, and what it gets back.

The engine checks the verdicts, makes the features, fits the shortcuts, measures, decides and
saves; a student learns. A new one is a frozen dataclass of options with the members of `Student`,
and a model with the members of `JudgeModel`, whose folder's kind `loading.LOADERS` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from llama_index.tuning._arrays import Bools, Float64, Ints
from llama_index.tuning.judges.records import Predictions

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator

    from llama_index.tuning.judges.data import JudgeData
    from llama_index.tuning.judges.light.features import FeatureMaker
    from llama_index.tuning.judges.options import JudgeOptions
    from llama_index.tuning.judges.records import DecisionRule, Rows
    from llama_index.tuning.vectors.embedder import Embedder


class EvaluatorModel(Protocol):
    """What serves as an evaluator of its own, without `TunedJudge`: a frozen dataclass.

    Attributes:
        details: how it came about, for people.
    """

    @property
    def details(self) -> Mapping[str, Any]: ...

    def serve(self, **kwargs: Any) -> BaseEvaluator:
        """The evaluator; the arguments are those of `get_finetuned_model()`."""

    def write(self, folder: Path) -> None:
        """Write into a folder that exists."""


class JudgeModel(Protocol):
    """What `TunedJudge` serves: a frozen dataclass, since its `details` and `rule` are replaced.

    Attributes:
        maker: its flags say what the answers it learned from came with; finds weak sentences.
        rule: how a probability becomes a verdict, and which answers are uncertain.
        pairwise: whether it compares two responses.
        query: whether every answer it learned from came with a query.
        base_model: name of the embedding model, if `maker.embedded`.
        training_keys: hashes of the items it was trained on.
        details: how it came about, for people.
    """

    @property
    def maker(self) -> FeatureMaker: ...
    @property
    def rule(self) -> DecisionRule: ...
    @property
    def pairwise(self) -> bool: ...
    @property
    def query(self) -> bool: ...
    @property
    def base_model(self) -> str: ...
    @property
    def training_keys(self) -> tuple[str, ...]: ...
    @property
    def details(self) -> Mapping[str, Any]: ...

    def probabilities(self, items: Sequence[Any], embedder: Embedder | None) -> Float64:
        """That each item passes, or that the first response is better, shape `(n,)`.

        Args:
            items: of the form that it learned from.
            embedder: of the app's embedding model; there if `maker.embedded`.
        """

    def judged(self, items: Sequence[Any], embedder: Embedder | None) -> tuple[Float64, Bools]:
        """Probabilities, and which items are unlike all that it learned from; shape `(n,)`."""

    def save(self, path: Any) -> None:
        """Write its folder, atomically."""

    def write(self, folder: Path) -> None:
        """Write into a folder that exists, with a kind that `loading.LOADERS` knows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """What a student learns from.

    Attributes:
        data: the verdicts to learn from, checked.
        held_out: verdicts on other queries to predict; without them it predicts rows of `data`, by
            judges that saw none of their queries.
        options: how judges are trained, whoever the student is.
        rows: the light features of `data` with labels, weights and folds; one query, one fold.
        other: the light features of `held_out`, shape `(m, columns)`.
        maker: makes the light features; with vectors if the student has `embeds`.
        base_model: name of the embedding model; empty without.
        output: the folder that the judge will be saved to, if any; checkpoints go beside it.
        show_progress: show bars.
    """

    data: JudgeData
    held_out: JudgeData | None
    options: JudgeOptions
    rows: Rows
    other: Float64 | None
    maker: FeatureMaker
    base_model: str = ""
    output: Path | None = None
    show_progress: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """What a student learned.

    Attributes:
        model: what will serve: by `TunedJudge`, or an evaluator of its own.
        predictions: on `held_out`, if there is one, else on `measured` of the data.
        method: how the predictions came to be held out, for the report.
        measured: rows of the data that `predictions` are on; None: all.
        flip_rate: share of the pairs whose verdict changes with their order; None: no pairs.
        baselines: what the judge has to beat beside the shortcuts, on the same items.
        settings: what was chosen, for the report's `data`; plain JSON values.
        options: the student's own, for the report's `options`; plain JSON values.
        history: the training curve, if any.
        notes: sentences for the report.
    """

    model: JudgeModel | EvaluatorModel
    predictions: Predictions
    method: str
    measured: Ints | None = None
    flip_rate: float | None = None
    baselines: Mapping[str, Predictions] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    notes: Sequence[str] = ()


class Student(Protocol):
    """Learns to judge; `student=` of the engine. A frozen dataclass of options.

    Attributes:
        name: in the report's title.
        libraries: whose versions the report holds.
        embeds: whether it looks at vectors of the app's embedding model.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]

    @property
    def embeds(self) -> bool: ...

    def check(self, data: JudgeData, held_out: JudgeData | None) -> None:
        """Raise if it could not learn from these: before any work or cost."""

    def learn(self, training: TrainingData) -> TrainingResult:
        """Train, choose on verdicts not trained on, and give predictions on others."""
