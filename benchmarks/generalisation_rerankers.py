"""Re-rankers on sets that nothing was tuned to: untuned, and deployed from few questions.

Each set's line says what the retriever has, what the untuned `TunedRetriever` has, and what the
engine deploys, gate and all, from so many training questions: the mean over draws of its
difference to untuned, the worst draw, and how many draws were accepted. nDCG@10 on test questions.
"""

from __future__ import annotations

import logging

import numpy as np
from _code import code_questions
from _data import arguments, dataset, lyft_and_uber, model
from _retrievers import retriever_for
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import LightRerankerFinetuneEngine, RetrievalDataset, TunedRetriever
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.rerankers.data import FeatureMaker
from llama_index.tuning.rerankers.light.features import LinearRanker, retriever_order
from llama_index.tuning.rerankers.light.fit import FeatureList, ndcg
from llama_index.tuning.rerankers.light.model import default_ranker

SETS = ("llamaindex_10k", "chunking_eval", "williams_family", "xquad_en", "cranfield", "code")
SIZES = (10, 30, 100)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # each refusal
    embed = model()
    for name in args.sets:
        if name == "llamaindex_10k":
            train, test = lyft_and_uber(args.data)
        elif name == "code":
            train, test = code_questions()
        else:
            train, test = (dataset(args.data, name, split) for split in ("train", "test"))
        learn, retriever = candidates(train, embed, args.cache)
        measured, searched = candidates(test, embed, args.cache)
        lists = FeatureMaker(searched.index.analyzer, searched.index).lists(measured)
        untuned = score(lists, default_ranker())
        print(f"{name}: retriever {score(lists, retriever_order()):.3f}, untuned {untuned:.3f}")
        for size in (*(s for s in SIZES if s < len(learn)), len(learn)):
            draws = args.draws if size < len(learn) else 1
            found = [deployed(learn, retriever, size, seed) for seed in range(draws)]
            gains = [score(lists, ranker) - untuned for ranker, _ in found]
            print(
                f"  {size:4} questions: {np.mean(gains):+.4f}, worst {min(gains):+.3f}, "
                f"accepted {sum(accepted for _, accepted in found)} of {draws}",
                flush=True,
            )


def candidates(
    data: RetrievalDataset, embed: BaseEmbedding, cache: object
) -> tuple[RelevanceDataset, TunedRetriever]:
    """The fused first thirty, and the untuned retriever that found them."""
    base = retriever_for(data, embed, cache, 100)
    fused = TunedRetriever(base, base.nodes)
    return RelevanceDataset.from_retriever(data, fused), fused


def deployed(
    learn: RelevanceDataset, retriever: TunedRetriever, size: int, seed: int
) -> tuple[LinearRanker, bool]:
    """What the engine hands out after a draw of the training questions, and its verdict."""
    ids = np.random.default_rng(seed).permutation([item.query_id for item in learn.lists])
    engine = LightRerankerFinetuneEngine(learn.subset(ids[:size].tolist()), retriever)
    report = engine.finetune()
    return engine.get_finetuned_model().ranker, report.accepted


def score(lists: list[FeatureList], ranker: LinearRanker) -> float:
    """Mean nDCG@10."""
    return float(ndcg(lists, [ranker.scores(item.features) for item in lists]).mean())


if __name__ == "__main__":
    main()
