"""Embedding adapter and light re-ranker, each alone and together: train on Lyft, test on Uber.

The re-ranker is trained on the candidates of the retriever that it is used with. 95 % intervals.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from _data import arguments, lyft_and_uber, model
from _retrievers import retriever_for
from llama_index.core.base.embeddings.base import BaseEmbedding
from reranker_quality import engine_for, problem

from llama_index.tuning import (
    EmbeddingAdapterFinetuneEngine,
    RetrievalDataset,
    evaluate_retriever,
    paired_gain,
)
from llama_index.tuning.evaluate import RetrievalScores
from llama_index.tuning.rerankers.crossfit import ranking_scores


def main() -> None:
    args = arguments(__doc__.splitlines()[0]).parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base = model()
    train, test = lyft_and_uber(args.data)
    with tempfile.TemporaryDirectory() as folder:
        engine = EmbeddingAdapterFinetuneEngine(
            train,
            base,
            model_output_path=str(Path(folder) / "adapter"),
            vector_cache=args.cache,
            accept="always",
        )
        engine.finetune()
        found: dict[str, RetrievalScores] = {}
        for adapted, embed in ((False, base), (True, engine.get_finetuned_model())):
            name = "adapter" if adapted else "retriever"
            found[name] = evaluate_retriever(retriever_for(test, embed, args.cache, 30), test)
            for fused in (False, True):
                given = problem(train, test, embed, args.cache, fused)
                reranking = engine_for(given)
                reranking.finetune()
                ranker = reranking.get_finetuned_model().ranker
                scores = [ranker.scores(item.features) for item in given.lists]
                what = f"{name} + light{' + BM25' if fused else ''}"
                found[what] = ranking_scores(given.lists, scores)
                shown(f"{what}, against {name}", found[name], found[what])
        found["halves"] = of_halves(train, test, base, args.cache, Path(folder) / "half")
    shown("adapter, against retriever", found["retriever"], found["adapter"])
    for words in ("", " + BM25"):
        together, alone = found[f"adapter + light{words}"], found[f"retriever + light{words}"]
        shown(f"adapter + light{words}, against no adapter", alone, together)
    whole = found["retriever + light + BM25"]
    shown("adapter of a half + light of the other + BM25", whole, found["halves"])


def of_halves(
    train: RetrievalDataset, test: RetrievalDataset, base: BaseEmbedding, cache: Path, folder: Path
) -> RetrievalScores:
    """The re-ranker learns from queries that the adapter did not: else it trusts it too much."""
    one, other = train.split(0.5, by="document")
    engine = EmbeddingAdapterFinetuneEngine(
        one, base, model_output_path=str(folder), vector_cache=cache, accept="always"
    )
    engine.finetune()
    given = problem(other, test, engine.get_finetuned_model(), cache, fused=True)
    reranking = engine_for(given)
    reranking.finetune()
    ranker = reranking.get_finetuned_model().ranker
    return ranking_scores(given.lists, [ranker.scores(item.features) for item in given.lists])


def shown(name: str, before: RetrievalScores, after: RetrievalScores) -> None:
    """One line with the gain."""
    gain = paired_gain(before.values["ndcg@10"], after.values["ndcg@10"], confidence=0.95)
    print(
        f"{name:46} {gain.base:.3f} → {gain.tuned:.3f}  {gain.mean:+.3f} "
        f"({gain.low:+.3f} to {gain.high:+.3f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
