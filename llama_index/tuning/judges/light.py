"""The light judge: a logistic regression on a few features, served by NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from llama_index.tuning import artifacts
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.judges.familiar import Familiar
from llama_index.tuning.judges.features import FeatureMaker, Floats, vectors_for
from llama_index.tuning.judges.topics import Topics
from llama_index.tuning.rerankers.statistics import WordStatistics
from llama_index.tuning.rerankers.words import Analyzer

if TYPE_CHECKING:
    from llama_index.tuning.embeddings.vectors import Embedder

KIND = "judge"
TIE = 0.5

Strange = NDArray[np.bool_]
FLAGS = ("contexts", "reference", "embedded", "style")


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear model on standardised features, each held within what the training saw.

    Attributes:
        weight: shape `(columns,)`.
        bias: 0 for a pairwise judge, so that the order of a pair cannot matter.
        centre: subtracted from the features, shape `(columns,)`; 0 for a pairwise judge.
        scale: what they are divided by, shape `(columns,)`.
        reach: largest absolute standardised value of each in training, shape `(columns,)`.
    """

    weight: Floats
    bias: float
    centre: Floats
    scale: Floats
    reach: Floats

    def logits(self, table: Floats) -> Floats:
        """Shape `(n,)` from features of shape `(n, columns)`."""
        standard = (table - self.centre) / self.scale
        found: Floats = np.clip(standard, -self.reach, self.reach) @ self.weight + self.bias
        return found


@dataclass(frozen=True)
class Line:
    """Where a probability becomes a verdict.

    Attributes:
        slope: of the calibration (Platt 1999), above 0.
        offset: its intercept; 0 for a pairwise judge.
        threshold: an answer passes from this probability on; 0.5 for a pairwise judge.
        band: a pair is a tie up to this distance from 0.5; None for single responses.
        margin: an answer is uncertain below this distance from the line.
    """

    slope: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5
    band: float | None = None
    margin: float = 0.0

    def chances(self, logits: Floats) -> Floats:
        """Calibrated probabilities, shape `(n,)`."""
        found: Floats = expit(self.slope * logits + self.offset)
        return found

    def verdicts(self, chances: Floats) -> Floats:
        """1 for pass (or the first), 0 for fail (or the second), 0.5 for a tie; shape `(n,)`."""
        found = (chances >= self.threshold).astype(np.float64)
        if self.band is not None:
            found[np.abs(chances - self.threshold) <= self.band] = TIE
        return found

    def certainties(self, chances: Floats) -> Floats:
        """Distance of each probability from the nearest line, shape `(n,)`."""
        found: Floats = np.abs(np.abs(chances - self.threshold) - (self.band or 0.0))
        return found


@dataclass(frozen=True, eq=False)
class LightJudge:
    """A trained light judge, apart from the app's embedding model.

    Attributes:
        maker: what it looks at.
        linear: the logistic regression.
        line: calibration and threshold.
        pairwise: whether it compares two responses.
        query: whether every answer it learned from came with a query.
        base_model: name of the embedding model; empty without.
        training_keys: hashes of the items it was trained on.
        details: how it came about, for people.
        familiar: where the features lie that it learned from; None: nothing is refused as unlike
            them.
    """

    maker: FeatureMaker
    linear: Linear
    line: Line
    pairwise: bool = False
    query: bool = True
    base_model: str = ""
    training_keys: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    familiar: Familiar | None = None

    def probabilities(self, items: Sequence[Any], embedder: Embedder | None) -> Floats:
        """Probability of a pass (pairwise: that the first is better), shape `(n,)`."""
        return self.line.chances(self.logits(items, embedder))

    def judged(self, items: Sequence[Any], embedder: Embedder | None) -> tuple[Floats, Strange]:
        """Probabilities, and which items are unlike all that it learned from; shape `(n,)`."""
        logits, strange = self.weighed(items, embedder)
        return self.line.chances(logits), strange

    def weighed(self, items: Sequence[Any], embedder: Embedder | None) -> tuple[Floats, Strange]:
        """As `judged`, before calibration."""
        table = self._table(items, embedder)
        strange = np.zeros(len(table), dtype=bool)
        if self.familiar is not None:
            strange = self.familiar.distances(table) > self.familiar.limit
        return self.linear.logits(table), strange

    def logits(self, items: Sequence[Any], embedder: Embedder | None) -> Floats:
        """Before calibration, shape `(n,)`."""
        return self.linear.logits(self._table(items, embedder))

    def _table(self, items: Sequence[Any], embedder: Embedder | None) -> Floats:
        vectors = None
        if self.maker.embedded:
            assert embedder is not None
            vectors = vectors_for(self.maker, items, embedder)
        return self.maker.table(items, vectors)

    def save(self, path: artifacts.PathLike) -> None:
        """Write the judge's folder, atomically."""
        save_judge(self, path)


def save_judge(judge: LightJudge, path: artifacts.PathLike) -> None:
    """Write the judge's folder, atomically."""
    maker, linear = judge.maker, judge.linear
    config = {
        **maker_config(maker),
        "columns": list(maker.columns),
        "bias": linear.bias,
        "line": vars(judge.line),
        "pairwise": judge.pairwise,
        "query": judge.query,
        "base_model": judge.base_model,
        "training_keys": list(judge.training_keys),
        "details": dict(judge.details),
    }
    arrays: dict[str, NDArray[Any]] = {
        name: getattr(linear, name) for name in ("weight", "centre", "scale", "reach")
    }
    arrays |= maker_arrays(maker)
    if judge.familiar is not None:
        config["familiar_limit"] = judge.familiar.limit
        arrays["familiar_centre"] = judge.familiar.centre
        arrays["familiar_whitening"] = judge.familiar.whitening
    with artifacts.replacing_folder(path) as folder:
        artifacts.write_component(folder, KIND, config, arrays, _card(judge))


def maker_config(maker: FeatureMaker) -> dict[str, Any]:
    """What `maker_from` needs beside the arrays."""
    return {
        "analyzer": maker.analyzer.to_dict(),
        "documents": maker.statistics.documents,
        "mean_length": maker.statistics.mean_length,
        **{name: getattr(maker, name) for name in FLAGS},
    }


def maker_arrays(maker: FeatureMaker) -> dict[str, NDArray[Any]]:
    """The maker's arrays by name."""
    arrays = maker.statistics.to_arrays()
    if maker.topics is not None:
        arrays |= {f"topic_{name}": array for name, array in vars(maker.topics).items()}
    return arrays


def maker_from(config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FeatureMaker:
    """The maker that these were written for."""
    topics = None
    if "topic_responses" in arrays:
        topics = Topics(arrays["topic_queries"], arrays["topic_responses"])
    return FeatureMaker(
        Analyzer(**config["analyzer"]),
        WordStatistics.from_arrays(config, arrays),
        **{name: bool(config[name]) for name in FLAGS},
        topics=topics,
    )


def load_judge(path: artifacts.PathLike) -> LightJudge:
    """The judge of a folder.

    Raises:
        ArtifactError: no judge, or a damaged one.
    """
    config = artifacts.read_config(path, KIND)
    arrays = artifacts.read_arrays(path)
    try:
        judge = _judge(config, arrays)
        columns = tuple(config["columns"])
    except (KeyError, TypeError, ValueError) as exc:
        if isinstance(exc, ArtifactError):
            raise
        raise ArtifactError(f"{path}: {artifacts.CONFIG} is damaged: {exc!r}") from exc
    if columns != judge.maker.columns:
        raise ArtifactError(f"{path} was made by another version: its features differ")
    for name in ("weight", "centre", "scale", "reach"):
        array = getattr(judge.linear, name)
        if array.shape != (len(columns),) or array.dtype != np.float64:
            raise ArtifactError(
                f"{path} is damaged: {name} must have shape ({len(columns)},) and float64, got "
                f"{array.shape} and {array.dtype}"
            )
    if not (judge.linear.scale > 0).all() or judge.line.slope <= 0:
        raise ArtifactError(f"{path} is damaged: scale and slope must be above 0")
    artifacts.check_intact(path)
    return judge


def _judge(config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> LightJudge:
    return LightJudge(
        maker_from(config, arrays),
        Linear(
            arrays["weight"],
            float(config["bias"]),
            arrays["centre"],
            arrays["scale"],
            arrays["reach"],
        ),
        line_from(config["line"]),
        pairwise=bool(config["pairwise"]),
        query=bool(config["query"]),
        base_model=str(config["base_model"]),
        training_keys=tuple(map(str, config["training_keys"])),
        details=dict(config["details"]),
        familiar=_familiar(config, arrays),
    )


def _familiar(config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Familiar | None:
    if "familiar_limit" not in config:
        return None
    centre, whitening = arrays["familiar_centre"], arrays["familiar_whitening"]
    columns = len(config["columns"])
    if centre.shape != (columns,) or whitening.shape != (columns, columns):
        raise ValueError(f"familiar_centre and familiar_whitening must have {columns} columns")
    return Familiar(centre, whitening, float(config["familiar_limit"]))


def line_from(config: Mapping[str, Any]) -> Line:
    """The line whose `vars` these are."""
    band = config["band"]
    plain = {n: float(config[n]) for n in ("slope", "offset", "threshold", "margin")}
    return Line(**plain, band=None if band is None else float(band))


def _card(judge: LightJudge) -> str:
    what = "compares two responses" if judge.pairwise else "says whether a response passes"
    model = ", embed_model" if judge.maker.embedded else ""
    return f"""# Tuned judge

A light judge for LlamaIndex: it {what}, from {len(judge.maker.columns)} features{
        f" and vectors of `{judge.base_model}`" if judge.maker.embedded else ""
    }.

{judge.details.get("reason", "")}

```python
from llama_index.tuning import TunedJudge

judge = TunedJudge.load("this/folder"{model})
```

Written by llama-index-tuning; `tuning.json` holds options, data fingerprint and scores.
"""
