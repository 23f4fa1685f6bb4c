"""The light re-ranker on five data sets: as a postprocessor, and with candidates widened by BM25.

Training on `train`, measured on `test` (Lyft's 10-K, then Uber's). 95 % intervals. Against the
best untrained fusion too, and LlamaIndex's own fusion retriever; the gate's decision is made on the
training queries alone.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _data import arguments, dataset, lyft_and_uber, model
from _retrievers import WordRetriever, retriever_for
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES

from llama_index.tuning import LightRerankerFinetuneEngine, RetrievalDataset, evaluate_retriever
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.evaluate import paired_gain
from llama_index.tuning.rerankers.data import FeatureMaker
from llama_index.tuning.rerankers.light.features import (
    LinearRanker,
    rank_fusion,
    retriever_order,
    score_fusion,
)
from llama_index.tuning.rerankers.light.fit import FeatureList, ranking_scores, ratio_error
from llama_index.tuning.rerankers.light.model import LightReranker, default_ranker
from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever

SETS = ("llamaindex_10k", "chunking_eval", "williams_family", "xquad_en", "cranfield")
DEPTH = 30


@dataclass
class EmbeddedDataset:
    """Training candidates, and the test queries' candidates as features."""

    train: RelevanceDataset
    corpus: RetrievalDataset
    test: RelevanceDataset
    lists: list[FeatureList]
    retriever: TunedRetriever


def problem(
    train: RetrievalDataset, test: RetrievalDataset, embed: BaseEmbedding, cache: Path, fused: bool
) -> EmbeddedDataset:
    """Both sides' candidates: the retriever's own 30, or the fused 30."""
    found = []
    for data in (train, test):
        base = retriever_for(data, embed, cache, 100)
        tuned = TunedRetriever(base, base.nodes, reranker=None, depth=DEPTH)
        source = tuned if fused else base
        found.append((tuned, RelevanceDataset.from_retriever(data, source, depth=DEPTH)))
    (_, learn), (tuned, measured) = found
    lists = FeatureMaker(tuned.index.analyzer, tuned.index).lists(measured)
    return EmbeddedDataset(learn, train, measured, lists, tuned)


def engine_for(
    given: EmbeddedDataset, train: RelevanceDataset | None = None
) -> LightRerankerFinetuneEngine:
    """Trained on candidates that were collected before."""
    return LightRerankerFinetuneEngine(train or given.train, accept="always")


def shown(
    name: str, given: EmbeddedDataset, ranker: LinearRanker, bases: list[LinearRanker]
) -> None:
    """One line: the ranker's metrics and its gains over the bases."""
    ours = ranking_scores(given.lists, [ranker.scores(item.features) for item in given.lists])
    line = (
        f"  {name:26} ndcg@10 {ours.mean()['ndcg@10']:.3f}  hit@5 {ours.mean()['hit_rate@5']:.3f}"
    )
    for base in bases:
        theirs = ranking_scores(given.lists, [base.scores(i.features) for i in given.lists])
        gain = paired_gain(theirs.values["ndcg@10"], ours.values["ndcg@10"], confidence=0.95)
        line += f"  | {base.details['name']} {gain.base:.3f}: {gain.mean:+.3f} "
        line += f"({gain.low:+.3f} to {gain.high:+.3f})"
    print(line, flush=True)


def peer(given: EmbeddedDataset, test: RetrievalDataset) -> str:
    """LlamaIndex's own fusion of the same retriever and the same BM25."""
    base, index = copy.copy(given.retriever.retriever), given.retriever.index
    # It takes nodes with the same text and metadata for one: set them apart.
    base.nodes = [n.model_copy(update={"metadata": {"id": n.node_id}}) for n in base.nodes]
    fusion = QueryFusionRetriever(
        [base, WordRetriever(base.nodes, index, base.k)],
        llm=MockLLM(),
        mode=FUSION_MODES.RECIPROCAL_RANK,
        similarity_top_k=DEPTH,
        num_queries=1,
        use_async=False,
    )
    means = evaluate_retriever(fusion, test, ks=[5, 10]).mean()
    return (
        f"  {'QueryFusionRetriever':26} ndcg@10 {means['ndcg@10']:.3f}  "
        f"hit@5 {means['hit_rate@5']:.3f}"
    )


def calibration(given: EmbeddedDataset, ranker: LinearRanker) -> str:
    """Expected calibration error (10 bins); precision at the promised thresholds, and its error."""
    scores = [ranker.scores(item.features) for item in given.lists]
    p = np.concatenate([ranker.probabilities(s) for s in scores])
    y = np.concatenate([item.relevance > 0 for item in given.lists])
    owner = np.repeat(np.arange(len(scores)), [len(s) for s in scores])
    bins = np.minimum((p * 10).astype(int), 9)
    error = sum(
        abs(p[bins == b].mean() - y[bins == b].mean()) * np.mean(bins == b) for b in np.unique(bins)
    )
    parts = [f"ECE {error:.4f}"]
    for wanted in (0.7, 0.8, 0.9):
        for confidence in (0.5, 0.8):
            name = f"precision {wanted} at confidence {confidence}"
            try:
                limit = ranker.min_score_for(wanted, confidence=confidence)
            except ValueError:
                parts.append(f"{name}: not reached in training")
                continue
            kept = p >= limit
            sure = ratio_error(y[kept].astype(float), owner[kept])
            parts.append(f"{name}: {y[kept].mean():.3f} ± {sure:.3f} of {kept.sum()}")
    return "  " + "\n  ".join(parts)


def curve(given: EmbeddedDataset) -> None:
    """Quality by the number of training queries."""
    rng = np.random.default_rng(0)
    everything = [item.query_id for item in given.train.lists]
    for size in (10, 30, 100, 300, len(everything)):
        means = []
        for _ in range(3 if size < len(everything) else 1):
            part = given.train.subset(rng.permutation(everything)[:size].tolist())
            engine = engine_for(given, part)
            engine.finetune()
            ranker = engine.get_finetuned_model().ranker
            scores = [ranker.scores(item.features) for item in given.lists]
            means.append(ranking_scores(given.lists, scores).mean()["ndcg@10"])
        print(f"  {size:4} training queries: ndcg@10 {np.mean(means):.3f}", flush=True)


def speed(given: EmbeddedDataset, reranker: LightReranker, queries: dict[str, str]) -> None:
    """CPU milliseconds a query on this thread, beside the retriever."""
    texts = list(queries.values())[:200]
    pools = [given.retriever.retriever.retrieve(text)[:DEPTH] for text in texts]
    given.retriever.index.analyzer.codes([item.text for pool in pools for item in pool])
    for label in ("texts never seen", "texts seen before"):
        start = time.process_time()
        for text, nodes in zip(texts, pools, strict=True):
            if label == "texts never seen":
                # A new one forgets texts; the analyzer knows the words.
                reranker = LightReranker(reranker.ranker, reranker.analyzer, top_n=10)
            reranker.rank(text, nodes, statistics=given.retriever.index)
        spent = time.process_time() - start
        print(f"  re-ranking {DEPTH}, {label}: {spent / len(texts) * 1000:.1f} ms a query")
    start = time.process_time()
    for text in texts:
        given.retriever.index.search(text, 100)
    print(f"  BM25 search: {(time.process_time() - start) / len(texts) * 1000:.1f} ms a query")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=SETS)
    args = parser.parse_args()
    embed = model()
    for name in args.sets:
        if name == "llamaindex_10k":
            train, test = lyft_and_uber(args.data)
        else:
            train, test = (dataset(args.data, name, split) for split in ("train", "test"))
        for fused in (False, True):
            given = problem(train, test, embed, args.cache, fused)
            print(f"{name}, {'fused with BM25' if fused else 'postprocessor'}", flush=True)
            engine = engine_for(given)
            report = engine.finetune()
            tuned = engine.get_finetuned_model()
            refused = "would have kept" in report.reason
            print(f"  the gate, on the training queries: {'refused' if refused else 'accepted'}")
            print(f"  {report.reason}")
            print(f"  out of fold {report.gains['ndcg@10'].tuned:.3f}, seconds {report.seconds}")
            bases = [retriever_order(), rank_fusion(), score_fusion()]
            shown("tuned", given, tuned.ranker, bases)
            shown("default, untuned", given, default_ranker(), bases)
            if fused:
                print(peer(given, test))
            print(calibration(given, tuned.ranker), flush=True)
            if name == "llamaindex_10k":
                speed(given, tuned, test.queries)
                curve(given)


if __name__ == "__main__":
    main()
