"""How a cross-encoder's score is mixed with another: chosen on queries that neither learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.rerankers.candidates import FeatureMaker, retrieval_scores
from llama_index.tuning.rerankers.cross_options import CrossEncoderOptions
from llama_index.tuning.rerankers.crossfit import fit_freely, fold_numbers, ndcg
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList, calibrate, standardised, usual_loss
from llama_index.tuning.rerankers.light import default_ranker
from llama_index.tuning.rerankers.ranker import LightRanker
from llama_index.tuning.rerankers.tuned import fuse, list_logits

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
    light: LightRanker
    by_light: bool
    calibration: LightRanker

    @property
    def uses_light(self) -> bool:
        """Whether the light re-ranker has a share at all."""
        return self.by_light and self.weight > 0

    def scores(
        self,
        logits: Sequence[FloatArray],
        dataset: RelevanceDataset,
        lists: Sequence[FeatureList],
    ) -> list[FloatArray]:
        """The mixed scores of a dataset's candidates; `logits` may be of longer lists."""
        others = other_scores(self.light if self.by_light else None, dataset, lists)
        return [fuse(s[: len(o)], o, self.weight) for s, o in zip(logits, others, strict=True)]


def light_ranker(
    dataset: RelevanceDataset, maker: FeatureMaker, options: CrossEncoderOptions
) -> LightRanker:
    """A light re-ranker of the same queries: a partner, and what has to be beaten."""
    lists = maker.lists(dataset, options.depth)
    prior = standardised(lists, default_ranker())
    fold = fold_numbers(dataset.groups(), LIGHT_FOLDS, options.seed)
    ranker, _ = fit_freely(lists, fold, prior, usual_loss(lists))
    return replace(ranker, details={"name": "light re-ranker of the same queries"})


def decided(
    model: Any,
    light: LightRanker,
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

    def fused(weight: float) -> list[FloatArray]:
        return [fuse(s, o, weight) for s, o in zip(logits, others, strict=True)]

    def calibrated(ranker: LightRanker, scores: Sequence[FloatArray]) -> LightRanker:
        relevance = [item.relevance for item in lists]
        return calibrate(ranker, list(zip(scores, relevance, strict=True)), highest=highest)

    weight = cautious_weight({w: ndcg(lists, fused(w)) for w in WEIGHTS})
    return Mixture(
        weight,
        calibrated(light, other_scores(light, cut, lists)),
        by_light,
        calibrated(LightRanker.fixed("calibration"), fused(weight)),
    )


def other_scores(
    light: LightRanker | None, dataset: RelevanceDataset, lists: Sequence[FeatureList]
) -> list[FloatArray]:
    """What the transformer's scores are mixed with: a light re-ranker's, or the retriever's."""
    if light is None:
        return retrieval_scores(dataset)
    return [light.scores(item.features) for item in lists]


def cautious_weight(scores: Mapping[float, FloatArray]) -> float:
    """The largest weight that is within one standard error of the best (Breiman et al. 1984).

    The best of eleven on some dozens of queries flatters the transformer; the other score costs
    nothing.

    Args:
        scores: weight → a metric of each query, in the same order.
    """
    best = max(scores.values(), key=lambda values: float(values.mean()))

    def close(values: FloatArray) -> bool:
        lost = best - values
        return bool(lost.mean() <= lost.std() / np.sqrt(len(lost)))

    return max(weight for weight, values in scores.items() if close(values))
