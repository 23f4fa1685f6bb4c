"""The light judge: a logistic regression on a few features, served by NumPy alone.

Answers unlike any that a judge learned from: it should not judge them.

The distance is Mahalanobis' on the features (Lee et al. 2018, there of a network's layers), with a
shrunken covariance (Ledoit and Wolf 2004); how far is too far is read off answers that were held
out, as in conformal anomaly detection (Laxhammar and Falkman 2010).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Bools, Float64
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.judges.light.features import FeatureMaker, Topics, vectors_for
from llama_index.tuning.judges.records import DecisionRule
from llama_index.tuning.text.statistics import WordStatistics
from llama_index.tuning.text.words import Analyzer

if TYPE_CHECKING:
    from llama_index.tuning.judges.records import Rows
    from llama_index.tuning.vectors.embedder import Embedder


MIN_ROWS = 100
"""With fewer nothing is told apart."""
FARTHEST = 0.995
"""Share of the held-out answers within the distance that counts as usual."""
ROOM = 1.5
"""An answer within this multiple of that distance is judged: only what is far off is refused."""
LEAST = 0.05
"""Least variance of a direction, beside 1 of a feature: thinner ones are chance."""
NARROW = 0.02
"""Least spread of a feature that changes: what hardly does cannot say how far is far."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """The region of the features that a judge learned from.

    Attributes:
        centre: their mean, shape `(columns,)`.
        whitening: turns differences from it into distances, shape `(columns, columns)`.
        limit: an answer farther away is refused.
    """

    centre: Float64
    whitening: Float64
    limit: float

    def distances(self, table: Float64) -> Float64:
        """Of features of shape `(n, columns)`, shape `(n,)`."""
        found: Float64 = np.linalg.norm((table - self.centre) @ self.whitening, axis=1)
        return found


def novelty_of(rows: Rows, as_new: Callable[[], Float64]) -> Novelty | None:
    """From the training's rows; the limit from each fold's distances to the others'.

    None for pairs, whose features are differences, and with fewer than `MIN_ROWS`.

    Args:
        rows: features by statistics of all words, as those of questions that come again.
        as_new: makes the same rows' by statistics that lack their own words, as those of new ones.
    """
    if rows.pairwise or len(rows.table) < MIN_ROWS:
        return None
    table, fold = np.concatenate([rows.table, as_new()]), np.tile(rows.fold, 2)
    held_out = [
        _fitted(table[fold != part]).distances(table[fold == part]) for part in np.unique(fold)
    ]
    usual = float(np.quantile(np.concatenate(held_out), FARTHEST, method="higher"))
    found = _fitted(table)
    return Novelty(found.centre, found.whitening, ROOM * usual)


def _fitted(table: Float64) -> Novelty:
    from sklearn.covariance import LedoitWolf

    centre, spread = table.mean(axis=0), table.std(axis=0)
    # How far a change is in what never changed, the sample cannot tell: it counts for nothing. (The
    # spread of one value is not quite 0 where its mean is rounded.)
    scale = np.where(spread > 1e-9, 1 / np.maximum(spread, NARROW), 0.0)
    shrunk = LedoitWolf(assume_centered=True).fit((table - centre) * scale)
    values, vectors = np.linalg.eigh(shrunk.covariance_)
    whitening = scale[:, None] * (vectors / np.sqrt(np.maximum(values, LEAST)))
    return Novelty(centre, whitening, np.inf)


KIND = "judge"

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

    weight: Float64
    bias: float
    centre: Float64
    scale: Float64
    reach: Float64

    def logits(self, table: Float64) -> Float64:
        """Shape `(n,)` from features of shape `(n, columns)`."""
        standard = (table - self.centre) / self.scale
        found: Float64 = np.clip(standard, -self.reach, self.reach) @ self.weight + self.bias
        return found


@dataclass(frozen=True, eq=False)
class LightJudge:
    """A trained light judge, apart from the app's embedding model.

    Attributes:
        maker: what it looks at.
        linear: the logistic regression.
        rule: calibration and threshold.
        pairwise: whether it compares two responses.
        query: whether every answer it learned from came with a query.
        base_model: name of the embedding model; empty without.
        training_keys: hashes of the items it was trained on.
        details: how it came about, for people.
        novelty: the region of the features that it learned from; None: nothing is refused as unlike
            them.
    """

    maker: FeatureMaker
    linear: Linear
    rule: DecisionRule
    pairwise: bool = False
    query: bool = True
    base_model: str = ""
    training_keys: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    novelty: Novelty | None = None

    def probabilities(self, items: Sequence[Any], embedder: Embedder | None) -> Float64:
        """Probability of a pass (pairwise: that the first is better), shape `(n,)`."""
        return self.rule.chances(self.logits(items, embedder))

    def judged(self, items: Sequence[Any], embedder: Embedder | None) -> tuple[Float64, Bools]:
        """Probabilities, and which items are unlike all that it learned from; shape `(n,)`."""
        logits, novel = self.weighed(items, embedder)
        return self.rule.chances(logits), novel

    def weighed(self, items: Sequence[Any], embedder: Embedder | None) -> tuple[Float64, Bools]:
        """As `judged`, before calibration."""
        table = self._table(items, embedder)
        novel = np.zeros(len(table), dtype=bool)
        if self.novelty is not None:
            novel = self.novelty.distances(table) > self.novelty.limit
        return self.linear.logits(table), novel

    def logits(self, items: Sequence[Any], embedder: Embedder | None) -> Float64:
        """Before calibration, shape `(n,)`."""
        return self.linear.logits(self._table(items, embedder))

    def _table(self, items: Sequence[Any], embedder: Embedder | None) -> Float64:
        vectors = None
        if self.maker.embedded:
            assert embedder is not None
            vectors = vectors_for(self.maker, items, embedder)
        return self.maker.table(items, vectors)

    def save(self, path: artifacts.PathLike) -> None:
        """Write the judge's folder, atomically."""
        with artifacts.replacing_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write the judge into a folder that exists."""
        write_judge(self, folder)


def write_judge(judge: LightJudge, folder: Path) -> None:
    """Write the judge into a folder that exists."""
    maker, linear = judge.maker, judge.linear
    config = {
        **maker_config(maker),
        "columns": list(maker.columns),
        "bias": linear.bias,
        "rule": vars(judge.rule),
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
    if judge.novelty is not None:
        config["novelty_limit"] = judge.novelty.limit
        arrays["novelty_centre"] = judge.novelty.centre
        arrays["novelty_whitening"] = judge.novelty.whitening
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
    if not (judge.linear.scale > 0).all() or judge.rule.slope <= 0:
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
        rule_from(config["rule"]),
        pairwise=bool(config["pairwise"]),
        query=bool(config["query"]),
        base_model=str(config["base_model"]),
        training_keys=tuple(map(str, config["training_keys"])),
        details=dict(config["details"]),
        novelty=_novelty(config, arrays),
    )


def _novelty(config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Novelty | None:
    if "novelty_limit" not in config:
        return None
    centre, whitening = arrays["novelty_centre"], arrays["novelty_whitening"]
    columns = len(config["columns"])
    if centre.shape != (columns,) or whitening.shape != (columns, columns):
        raise ValueError(f"novelty_centre and novelty_whitening must have {columns} columns")
    return Novelty(centre, whitening, float(config["novelty_limit"]))


def rule_from(config: Mapping[str, Any]) -> DecisionRule:
    """The rule whose `vars` these are."""
    band = config["band"]
    plain = {n: float(config[n]) for n in ("slope", "offset", "threshold", "margin")}
    return DecisionRule(**plain, band=None if band is None else float(band))


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
