"""A tuned re-ranker against the best of the baselines, at several depths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.metrics import RetrievalScores
from llama_index.tuning.report import Gains
from llama_index.tuning.rerankers.baselines import Baseline
from llama_index.tuning.rerankers.candidates import FeatureMaker, has_distances
from llama_index.tuning.rerankers.crossfit import ranking_scores
from llama_index.tuning.rerankers.distances import TURNED
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList, calibrate

PRIMARY = "ndcg@10"
SHOWN = (PRIMARY, "mrr@10", "hit_rate@1", "hit_rate@5", "recall@10")

Scorer = Callable[[RelevanceDataset, Sequence[FeatureList]], list[FloatArray]]
"""Scores the candidates of a dataset, given also as numbers."""


class _Options(Protocol):
    @property
    def depth(self) -> int | None: ...
    @property
    def depths(self) -> tuple[int, ...]: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        base: the best baseline.
        gains: over it, at the deployed depth.
        slices: against each baseline, and over the best one at other depths.
        notes: for the report.
    """

    base: Baseline
    gains: Gains
    slices: dict[str, Gains]
    notes: list[str] = field(default_factory=list)


def compare(
    dataset: RelevanceDataset,
    maker: FeatureMaker,
    scorer: Scorer,
    baselines: Sequence[Baseline],
    options: _Options,
    *,
    lists: Sequence[FeatureList] | None = None,
) -> Comparison:
    """Measure on lists that `scorer` never saw.

    Args:
        dataset: what to measure on.
        maker: of features.
        scorer: the tuned re-ranker's scores.
        baselines: what it has to beat.
        options: depths, and the seed of the intervals.
        lists: the features at the deployed depth, where they were made before.
    """
    longest = max(len(item.candidates) for item in dataset.lists)
    deployed = min(options.depth or longest, longest)

    def at(
        depth: int, lists: Sequence[FeatureList]
    ) -> tuple[RetrievalScores, list[RetrievalScores]]:
        cut = dataset.top(depth)
        theirs = [ranking_scores(lists, line.scores(cut, lists)) for line in baselines]
        return ranking_scores(lists, scorer(cut, lists)), theirs

    if lists is None:
        lists = maker.lists(dataset, deployed)
    ours, theirs = at(deployed, lists)
    slices = {
        f"against {line.name}": gains(scores, ours, options.seed)
        for line, scores in zip(baselines, theirs, strict=True)
    }
    for depth in sorted({d for d in options.depths if d <= longest} - {deployed}):
        now, others = at(depth, maker.lists(dataset, depth))
        place = _best(others)
        name = f"{depth} candidates, against {baselines[place].name}"
        slices[name] = gains(others[place], now, options.seed)
    best = _best(theirs)
    return Comparison(
        _calibrated(baselines[best], dataset.top(deployed), lists),
        gains(theirs[best], ours, options.seed),
        slices,
        notes_on(dataset, lists, deployed),
    )


def gains(base: RetrievalScores, tuned: RetrievalScores, seed: int) -> Gains:
    """The gain in each shown metric, with 90 % intervals."""
    return {name: paired_gain(base.values[name], tuned.values[name], seed=seed) for name in SHOWN}


def _best(scores: Sequence[RetrievalScores]) -> int:
    means = [float(item.values[PRIMARY].mean()) for item in scores]
    return means.index(max(means))


def _calibrated(
    line: Baseline, dataset: RelevanceDataset, lists: Sequence[FeatureList]
) -> Baseline:
    """The baseline with probabilities, so that `min_score` works where it is kept."""
    if line.reranker is not None or line.ranker.calibration.size:
        return line
    scored = list(zip(line.scores(dataset, lists), [item.relevance for item in lists], strict=True))
    return replace(line, ranker=calibrate(line.ranker, scored, highest=dataset.highest_grade))


def notes_on(dataset: RelevanceDataset, lists: Sequence[FeatureList], deployed: int) -> list[str]:
    """What a reader of the report should know of the measured queries."""
    found = sum(bool((item.relevance > 0).any()) for item in lists)
    notes = [
        f"{found} of {len(lists)} queries have a relevant node among their {deployed} candidates; "
        "no re-ranker can find the others"
    ]
    if all((item.relevance > 0).all() for item in lists):
        notes.append(
            "every candidate has a score above 0, so only nDCG@10, which sees how high, tells one "
            "order from another"
        )
    unmeasured = sum(not item.relevant for item in dataset.lists)
    if unmeasured:
        notes.append(f"{unmeasured} queries without any relevant node are not measured")
    if has_distances(dataset):
        notes.append(TURNED)
    return notes
