"""A tuned re-ranker against what the app has and other untuned ones, at several depths."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.datasets.records import RelevanceList
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import RetrievalScores
from llama_index.tuning.gate import decide
from llama_index.tuning.report import Gains, QueryGain, most_changed
from llama_index.tuning.rerankers.data import FeatureMaker, has_distances, word_index
from llama_index.tuning.rerankers.light.features import (
    LinearRanker,
    rank_fusion,
    retriever_order,
    score_fusion,
)
from llama_index.tuning.rerankers.light.fit import FEW, FeatureList, calibrate, ranking_scores
from llama_index.tuning.rerankers.light.model import LightReranker, default_ranker
from llama_index.tuning.rerankers.serving import TURNED, CalibratedReranker
from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.text.statistics import WordStatistics
from llama_index.tuning.text.words import Analyzer, normalise

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.postprocessor.types import BaseNodePostprocessor


@dataclass(frozen=True, eq=False)
class Baseline:
    """A way to order candidates that learns nothing from the dataset.

    Attributes:
        name: for the report.
        ranker: fixed weights; those of the retriever's order where `reranker` is used.
        reranker: the app's own re-ranker, instead.
        index: of a retriever that fuses, in which `reranker` is served.
    """

    name: str
    ranker: LinearRanker
    reranker: BaseNodePostprocessor | None = None
    index: BM25Index | None = None

    def scores(self, dataset: RelevanceDataset, lists: Sequence[FeatureList]) -> list[Float64]:
        """One score for each candidate of each list."""
        if self.reranker is None:
            return [self.ranker.scores(item.features) for item in lists]
        served = self.reranker
        if self.index is not None and isinstance(served, CalibratedReranker):
            served = served.with_index(self.index)
        return [reranked(served, item) for item in dataset.lists]

    def component(
        self, reason: str, analyzer: Analyzer, statistics: WordStatistics, **arguments: Any
    ) -> BaseNodePostprocessor:
        """What the app uses if the gate keeps this baseline.

        Args:
            reason: the gate's.
            analyzer, statistics, **arguments: the `LightReranker`'s, if it is one.
        """
        if self.reranker is not None:
            return self.reranker
        details = {**self.ranker.details, "accepted": False, "reason": reason}
        return LightReranker(
            replace(self.ranker, details=details), analyzer, statistics, **arguments
        )


def base_lines(
    reranker: BaseNodePostprocessor | None, retriever: BaseRetriever | None = None
) -> list[Baseline]:
    """What the app has first; then no re-ranker, the two fusions and the package's default.

    The app has `reranker`, or else what its `TunedRetriever` re-ranks with, or else no re-ranker.

    Args:
        reranker: the app's own.
        retriever: as deployed.
    """
    fixed = [retriever_order(), rank_fusion(), score_fusion(), default_ranker()]
    lines = {str(ranker.details["name"]): ranker for ranker in fixed}
    others = [Baseline(name, ranker) for name, ranker in lines.items()]
    index = word_index(retriever)
    if reranker is None and index is not None:  # a `TunedRetriever`
        reranker = getattr(retriever, "reranker", None)
        name = "reciprocal rank fusion"
        if isinstance(reranker, LightReranker):
            untuned = reranker.fingerprint == default_ranker().fingerprint
            name = "default light re-ranker" if untuned else ""
        if reranker is None or name == "default light re-ranker":
            return sorted(others, key=lambda line: line.name != name)
    if reranker is None:
        return others
    return [Baseline("base re-ranker", retriever_order(), reranker, index), *others]


def fallback(
    lines: Sequence[Baseline],
    scores: Sequence[RetrievalScores],
    asked: Sequence[Hashable],
    seed: int,
) -> int:
    """Which of the untuned lines is served unless tuning shows a gain: the first, what the app has.

    Another only by a gain over the first that the gate accepts, in intervals so wide that all
    others together are wrong no more often than one: whichever merely looks best on few queries
    is often the worse one.
    """
    confidence = 1 - 0.1 / max(1, len(lines) - 1)
    chosen, most = 0, 0.0
    for place in range(1, len(lines)):
        before, after = (scores[i].values[PRIMARY] for i in (0, place))
        gain = paired_gain(before, after, groups=asked, confidence=confidence, seed=seed)
        if gain.mean > most and gain.low > 0 and decide(PRIMARY, gain).accepted:
            chosen, most = place, gain.mean
    return chosen


def reranked(reranker: BaseNodePostprocessor, item: RelevanceList) -> Float64:
    """Scores that give a postprocessor's order; what it drops comes last, in the given order."""
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [
        NodeWithScore(
            node=TextNode(
                id_=c.node_id,
                text=c.text,
                metadata=dict(c.metadata),
                excluded_embed_metadata_keys=list(c.metadata),  # the text has them already
                excluded_llm_metadata_keys=list(c.metadata),
            ),
            score=c.retrieval_score,
        )
        for c in item.candidates
    ]
    answered = reranker.postprocess_nodes(nodes, query_str=item.query) if nodes else []
    place = {node.node.node_id: rank for rank, node in enumerate(answered)}
    last = len(nodes)
    return -np.array(
        [place.get(c.node_id, last + i) for i, c in enumerate(item.candidates)], dtype=np.float64
    )


PRIMARY = "ndcg@10"
SHOWN = (PRIMARY, "mrr@10", "hit_rate@1", "hit_rate@5", "recall@10")

Scorer = Callable[[RelevanceDataset, Sequence[FeatureList]], list[Float64]]
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
        base: the untuned line that is served unless tuning shows a gain; see `fallback`.
        gains: over it, at the deployed depth.
        slices: against each line, and over the base at other depths.
        notes: for the report.
        queries: those that changed most over the base.
        retriever: the primary metric of the retriever's own order.
    """

    base: Baseline
    gains: Gains
    slices: dict[str, Gains]
    notes: list[str] = field(default_factory=list)
    queries: list[QueryGain] = field(default_factory=list)
    retriever: float = 0.0

    @property
    def before(self) -> tuple[str, float]:
        """What a report's headline begins with."""
        return "your retriever", self.retriever


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
        baselines: untuned lines, what the app has first.
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
    asked = [(normalise(i.query), *(c.node_id for c in i.candidates)) for i in dataset.lists]
    kept = fallback(baselines, theirs, asked, options.seed)
    slices = {
        f"against {line.name}": gains(scores, ours, asked, options.seed)
        for line, scores in zip(baselines, theirs, strict=True)
    }
    for depth in sorted({d for d in options.depths if d <= longest} - {deployed}):
        now, others = at(depth, maker.lists(dataset, depth))
        name = f"{depth} candidates, against {baselines[kept].name}"
        slices[name] = gains(others[kept], now, asked, options.seed)
    own = str(retriever_order().details["name"])
    alone = next(scores for line, scores in zip(baselines, theirs, strict=True) if line.name == own)
    return Comparison(
        _calibrated(baselines[kept], dataset.top(deployed), lists),
        gains(theirs[kept], ours, asked, options.seed),
        slices,
        notes_on(dataset, lists, deployed),
        _changed(theirs[kept], ours, dataset),
        _mean(alone),
    )


def gains(
    base: RetrievalScores, tuned: RetrievalScores, asked: Sequence[Hashable], seed: int
) -> Gains:
    """The gain in each shown metric, with 90 % intervals; of fewer queries than `FEW` with 98 %.

    Of few draws some look good by chance, and what few queries teach is then far off: one in a
    hundred may pass, not one in twenty. A query that came up again with its candidates, as `asked`
    says, is no more.
    """
    confidence = 0.9 if len(set(asked)) >= FEW else 0.98
    how: dict[str, Any] = {"groups": asked, "confidence": confidence, "seed": seed}
    return {name: paired_gain(base.values[name], tuned.values[name], **how) for name in SHOWN}


def _changed(
    base: RetrievalScores, tuned: RetrievalScores, dataset: RelevanceDataset
) -> list[QueryGain]:
    """The queries that changed most, with the relevant candidates' texts."""

    def described(row: int) -> tuple[str, str, list[str]]:
        item = dataset.lists[int(base.query_ids[row])]
        best = sorted(item.candidates, key=lambda c: -c.score)[:2]
        return item.query_id, item.query, [c.text for c in best if c.score > 0]

    return most_changed(base.values[PRIMARY], tuned.values[PRIMARY], described)


def _mean(scores: RetrievalScores) -> float:
    return float(scores.values[PRIMARY].mean())


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
