"""The light re-ranker that comes with the package: how it is made, and what it gains untuned.

Made of what every machine has: Python's language reference with this project's own questions about
it (those of the split `train`), in two chunk sizes, and 200 questions over the standard library's
functions (`_code.py`); for the retriever's candidates and for those fused with BM25.
Nothing that it is measured on taught it. `--write` replaces the package's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from _code import code_questions
from _data import arguments, dataset, lyft_and_uber, model
from _retrievers import retriever_for
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import RetrievalDataset, artifacts
from llama_index.tuning.datasets.folds import fold_numbers
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.demo import questions_about, reference_nodes
from llama_index.tuning.evaluate import paired_gain
from llama_index.tuning.rerankers.data import FeatureMaker
from llama_index.tuning.rerankers.light.features import (
    FEATURES,
    LinearRanker,
    rank_fusion,
    retriever_order,
    score_fusion,
)
from llama_index.tuning.rerankers.light.fit import (
    FeatureList,
    calibrate,
    fit,
    held_out_scores,
    ndcg,
    standardised,
)
from llama_index.tuning.rerankers.light.model import _CARD, DEFAULT, KIND
from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever

# What depends on one embedding model's scale, or on one corpus' habits, is left to tuning.
LEFT_TO_TUNING = ("score", "score_gap", "length")
DATA = "pydoc_data.topics and the standard library's functions"
FREEDOM = 0.03
"""Pulls hard to no weight at all; settled, as the share of code, over sets that taught nothing."""


def candidates(
    data: RetrievalDataset, embed_model: BaseEmbedding, cache: Path, k: int = 30
) -> Iterator[tuple[RelevanceDataset, list[FeatureList]]]:
    """Lists of the retriever's candidates, and of the fused ones."""
    retriever = retriever_for(data, embed_model, cache, max(k, 100))
    fused = TunedRetriever(retriever, retriever.nodes, reranker=None, depth=k)
    for source, depth in ((retriever, k), (fused, k)):
        lists = RelevanceDataset.from_retriever(data, source, depth=depth)
        yield lists, FeatureMaker(fused.index.analyzer, fused.index).lists(lists)


def general(item: FeatureList) -> FeatureList:
    """The list without what is left to tuning."""
    features = item.features.copy()
    features[:, [FEATURES.index(name) for name in LEFT_TO_TUNING]] = 0.0
    return replace(item, features=features)


def train(embed_model: BaseEmbedding, cache: Path) -> LinearRanker:
    """The ranker of the questions that nothing is measured on."""
    lists, groups, seen = [], [], {}
    taught = [questions_about(reference_nodes(size), "train") for size in (256, 512)]
    for questions in (*taught, code_questions(questions=400)[0]):
        for found, made in candidates(questions, embed_model, cache):
            for item, features in zip(found.lists, made, strict=True):
                if features.trainable:
                    topic = (item.relevant or [item.query_id])[0].rpartition("-")[0] or item.query
                    groups.append(seen.setdefault(topic, len(seen)))
                    lists.append(general(features))
    members = [[row for row, g in enumerate(groups) if g == group] for group in range(len(seen))]
    prior = standardised(lists, LinearRanker.fixed("default light re-ranker"))
    fold = fold_numbers(members, 5, 0)
    ranker = fit(lists, prior, freedom=FREEDOM)
    scores = held_out_scores(lists, fold, prior, "listwise", FREEDOM)
    scored = [(s, item.relevance) for s, item in zip(scores, lists, strict=True)]
    held_out = np.mean(ndcg(lists, [s for s, _ in scored]))
    print(f"{len(lists)} lists, out of fold {held_out:.3f}")
    details = {"name": "default light re-ranker", "lists": len(lists), "data": DATA}
    return replace(calibrate(ranker, scored), details=details)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the package's default")
    parser.add_argument("--split", default="test", help="split to measure on")
    args = parser.parse_args()
    embed_model = model()
    ranker = train(embed_model, args.cache)
    print(
        {name: round(float(w), 2) for name, w in zip(ranker.features, ranker.weights, strict=True)}
    )
    if args.write:
        config = {
            "features": list(ranker.features),
            "analyzer": {"language": "english", "stop_words": None},
            "statistics": None,
            "details": dict(ranker.details),
        }
        with artifacts.replacing_folder(DEFAULT) as folder:
            artifacts.write_component(Path(folder), KIND, config, ranker.tensors(), _CARD)
    names = ("llamaindex_10k", "chunking_eval", "williams_family", "xquad_en", "cranfield", "code")
    for name in names:
        lyft, uber = lyft_and_uber(args.data) if name == names[0] else (None, None)
        data = lyft if args.split == "train" else uber
        if name == "code":
            data = code_questions()[1]
        data = data or dataset(args.data, name, args.split)
        for way, (_, lists) in zip(
            ("retriever", "fused"), candidates(data, embed_model, args.cache), strict=True
        ):
            ours = ndcg(lists, [ranker.scores(item.features) for item in lists])
            shown = []
            for base in (retriever_order(), rank_fusion(), score_fusion()):
                gain = paired_gain(
                    ndcg(lists, [base.scores(i.features) for i in lists]), ours, confidence=0.95
                )
                shown.append(
                    f"{base.details['name']} {gain.base:.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
                )
            print(
                f"{name:16} {way:9} default {ours.mean():.3f}  against  {', '.join(shown)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
