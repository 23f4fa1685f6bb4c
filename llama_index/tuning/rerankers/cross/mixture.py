"""How a cross-encoder's score is mixed with another, and how the mixture does against baselines.

The mixture is chosen on queries that neither score learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.datasets.folds import fold_numbers
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.rerankers.cross.model import fuse, list_logits
from llama_index.tuning.rerankers.cross.options import CrossEncoderOptions
from llama_index.tuning.rerankers.data import (
    FeatureMaker,
    feature_list,
    learned_lists,
    retrieval_scores,
)
from llama_index.tuning.rerankers.light.features import LinearRanker
from llama_index.tuning.rerankers.light.fit import (
    FeatureList,
    calibrate,
    fit_freely,
    ndcg,
    standardised,
    usual_loss,
)
from llama_index.tuning.rerankers.light.model import default_ranker
from llama_index.tuning.rerankers.measure import Baseline, Comparison, compare

WEIGHTS = tuple(round(1 - 0.1 * i, 1) for i in range(11))
"""Shares of the other score."""
LIGHT_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Mixture:
    """What was decided.

    Attributes:
        weight: share of the other score.
        light: the light re-ranker of the same queries, calibrated.
        by_light: whether the other score is its, and not the retriever's.
        calibration: of the mixed score.
    """

    weight: float
    light: LinearRanker
    by_light: bool
    calibration: LinearRanker

    @property
    def uses_light(self) -> bool:
        """Whether the light re-ranker has a share at all."""
        return self.by_light and self.weight > 0

    def scores(
        self,
        logits: Sequence[Float64],
        dataset: RelevanceDataset,
        lists: Sequence[FeatureList],
    ) -> list[Float64]:
        """The mixed scores of a dataset's candidates; `logits` may be of longer lists."""
        others = other_scores(self.light if self.by_light else None, dataset, lists)
        return [fuse(s[: len(o)], o, self.weight) for s, o in zip(logits, others, strict=True)]


def light_ranker(
    dataset: RelevanceDataset, maker: FeatureMaker, options: CrossEncoderOptions
) -> LinearRanker:
    """A light re-ranker of the same queries: a partner, and what has to be beaten."""
    lists = maker.lists(dataset, options.depth)
    prior = standardised(lists, default_ranker())
    fold = fold_numbers(dataset.groups(), LIGHT_FOLDS, options.seed)
    ranker, _ = fit_freely(lists, fold, prior, usual_loss(lists))
    name = "light re-ranker of the same queries"
    return replace(ranker, details={"name": name, "questions": learned_lists(dataset)})


def decided(
    model: Any,
    light: LinearRanker,
    dataset: RelevanceDataset,
    maker: FeatureMaker,
    options: CrossEncoderOptions,
    highest: float,
) -> Mixture:
    """The fusion weight by nDCG@10, and both calibrations.

    Args:
        model: the trained cross-encoder.
        light: the partner.
        dataset: the deciding queries.
        maker: of features, as deployed.
        options: how the cross-encoder was trained.
        highest: the whole dataset's highest grade.
    """
    cut = dataset.top(options.depth)
    lists = maker.lists(dataset, options.depth)
    by_light = options.partner == "light"
    logits = list_logits(model, cut.lists, 32)
    others = other_scores(light if by_light else None, cut, lists)

    def fused(weight: float) -> list[Float64]:
        return [fuse(s, o, weight) for s, o in zip(logits, others, strict=True)]

    def calibrated(ranker: LinearRanker, scores: Sequence[Float64]) -> LinearRanker:
        relevance = [item.relevance for item in lists]
        return calibrate(ranker, list(zip(scores, relevance, strict=True)), highest=highest)

    weight = cautious_weight({w: ndcg(lists, fused(w)) for w in WEIGHTS})
    return Mixture(
        weight,
        calibrated(light, other_scores(light, cut, lists)),
        by_light,
        calibrated(LinearRanker.fixed("calibration"), fused(weight)),
    )


def other_scores(
    light: LinearRanker | None, dataset: RelevanceDataset, lists: Sequence[FeatureList]
) -> list[Float64]:
    """What the transformer's scores are mixed with: a light re-ranker's, or the retriever's."""
    if light is None:
        return retrieval_scores(dataset)
    return [light.scores(item.features) for item in lists]


def cautious_weight(scores: Mapping[float, Float64]) -> float:
    """The largest weight that is within one standard error of the best (Breiman et al. 1984).

    The best of eleven on some dozens of queries flatters the transformer; the other score costs
    nothing.

    Args:
        scores: weight → a metric of each query, in the same order.
    """
    best = max(scores.values(), key=lambda values: float(values.mean()))

    def close(values: Float64) -> bool:
        lost = best - values
        return bool(lost.mean() <= lost.std() / np.sqrt(len(lost)))

    return max(weight for weight, values in scores.items() if close(values))


def compared(
    model: Any,
    mixture: Mixture,
    dataset: RelevanceDataset,
    maker: FeatureMaker,
    baselines: Sequence[Baseline],
    options: CrossEncoderOptions,
) -> Comparison:
    """Measure on queries that decided nothing; the light re-ranker has to be beaten too."""
    longest = max(len(item.candidates) for item in dataset.lists)
    depths = sorted({min(depth, longest) for depth in (options.depth, *options.depths)})
    whole = dataset.top(depths[-1])
    logits = list_logits(model, whole.lists, 32)

    def scores(cut: RelevanceDataset, lists: Sequence[FeatureList]) -> list[Float64]:
        return mixture.scores(logits, cut, lists)

    light = Baseline(str(mixture.light.details["name"]), mixture.light)
    # First: what a transformer adds nothing to is served without it.
    found = compare(whole, maker, scores, [light, *baselines], options)
    alone = ", ".join(f"{transformer_alone(whole, logits, d):.3f} at {d}" for d in depths)
    note = (
        f"the transformer alone has nDCG@10 of {alone} candidates; its share of the score is "
        f"{1 - mixture.weight:.1f}"
    )
    return replace(found, notes=[*found.notes, note])


def transformer_alone(dataset: RelevanceDataset, logits: Sequence[Float64], depth: int) -> float:
    """nDCG@10 by the transformer's scores for the first `depth` candidates."""
    lists = [feature_list(item) for item in dataset.top(depth).lists]
    return float(ndcg(lists, [s[:depth] for s in logits]).mean())
