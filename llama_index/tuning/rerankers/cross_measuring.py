"""A tuned cross-encoder, mixed as it will be served, against the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.rerankers.baselines import Baseline
from llama_index.tuning.rerankers.candidates import FeatureMaker, feature_list
from llama_index.tuning.rerankers.cross_mixture import Mixture
from llama_index.tuning.rerankers.cross_options import CrossEncoderOptions
from llama_index.tuning.rerankers.crossfit import ndcg
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList
from llama_index.tuning.rerankers.measuring import Comparison, compare
from llama_index.tuning.rerankers.tuned import list_logits


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

    def scores(cut: RelevanceDataset, lists: Sequence[FeatureList]) -> list[FloatArray]:
        return mixture.scores(logits, cut, lists)

    light = Baseline(str(mixture.light.details["name"]), mixture.light)
    found = compare(whole, maker, scores, [*baselines, light], options)
    alone = ", ".join(f"{transformer_alone(whole, logits, d):.3f} at {d}" for d in depths)
    note = (
        f"the transformer alone has nDCG@10 of {alone} candidates; its share of the score is "
        f"{1 - mixture.weight:.1f}"
    )
    return replace(found, notes=[*found.notes, note])


def transformer_alone(dataset: RelevanceDataset, logits: Sequence[FloatArray], depth: int) -> float:
    """nDCG@10 by the transformer's scores for the first `depth` candidates."""
    lists = [feature_list(item) for item in dataset.top(depth).lists]
    return float(ndcg(lists, [s[:depth] for s in logits]).mean())
