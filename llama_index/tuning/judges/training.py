"""What a judge is fitted on, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.tuning._arrays import Float64
from llama_index.tuning.judges.records import Predictions

if TYPE_CHECKING:
    from llama_index.tuning.judges.data import JudgeData
    from llama_index.tuning.judges.light.features import FeatureMaker
    from llama_index.tuning.judges.light.model import LightJudge
    from llama_index.tuning.judges.options import JudgeOptions
    from llama_index.tuning.judges.records import Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """What a judge is fitted on.

    Attributes:
        data: the verdicts to learn from, checked.
        held_out: verdicts on other queries to predict; without them rows of `data` are predicted,
            by judges that saw none of their queries.
        options: how judges are trained.
        rows: the features of `data` with labels, weights and folds; one query, one fold.
        as_new: makes the features of `data`, each by statistics that lack its own words.
        other: the features of `held_out`, shape `(m, columns)`.
        maker: makes the features.
        base_model: name of the embedding model; empty without.
    """

    data: JudgeData
    held_out: JudgeData | None
    options: JudgeOptions
    rows: Rows
    as_new: Callable[[], Float64]
    other: Float64 | None
    maker: FeatureMaker
    base_model: str = ""

    @property
    def measured(self) -> JudgeData:
        """The verdicts that predictions are on."""
        return self.data if self.held_out is None else self.held_out


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """What was learnt.

    Attributes:
        model: what will serve.
        predictions: on the verdicts that are measured on.
        method: how the predictions came to be held out, for the report.
        flip_rate: share of the pairs whose verdict changes with their order; None: no pairs.
        settings: what was chosen, for the report's `data`; plain JSON values.
    """

    model: LightJudge
    predictions: Predictions
    method: str
    flip_rate: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
