"""Embedding adapter and light re-ranker, each alone and together: train on Lyft, test on Uber.

The re-ranker is trained on the candidates of the retriever that it is used with. 95 % intervals.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from _data import arguments, lyft_and_uber, model
from _retrievers import retriever_for
from llama_index.core.base.embeddings.base import BaseEmbedding
from reranker_quality import engine_for, problem

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset, evaluate_retriever
from llama_index.tuning.evaluate import RetrievalScores, paired_gain
from llama_index.tuning.rerankers.light.fit import ranking_scores


def main() -> None:
    args = arguments(__doc__.splitlines()[0]).parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base = model()
    train, test = lyft_and_uber(args.data)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, RetrievalScores] = {}
        adapters = {
            "retriever": base,
            "adapter": adapter(train, base, args.cache, Path(folder) / "labels"),
            "adapter without labels": adapter(
                None,
                base,
                args.cache,
                Path(folder) / "sentences",
                unlabelled={**train.corpus, **test.corpus},
            ),
        }
        for name, embed in adapters.items():
            found[name] = evaluate_retriever(retriever_for(test, embed, args.cache, 30), test)
            shown(f"{name}, against the retriever", found["retriever"], found[name])
            for fused in (False, True):
                what = f" + light{' + BM25' if fused else ''}"
                found[name + what] = reranked(train, test, embed, args.cache, fused)
                shown(f"{name}{what}, against {name}", found[name], found[name + what])
                shown(
                    f"{name}{what}, without {name}", found["retriever" + what], found[name + what]
                )
        one, other = train.split(0.5, by="document")
        # Else the re-ranker trusts the adapter as it is on queries that it learnt from.
        half = adapter(one, base, args.cache, Path(folder) / "half")
        halves = reranked(other, test, half, args.cache, fused=True)
    whole = found["retriever + light + BM25"]
    shown("adapter of a half + light of the other + BM25", whole, halves)


def adapter(
    train: RetrievalDataset | None,
    base: BaseEmbedding,
    cache: Path,
    folder: Path,
    **arguments: Any,
) -> BaseEmbedding:
    """The base model with a tuned adapter, whatever the gate says."""
    engine = EmbeddingAdapterFinetuneEngine(
        train,
        base,
        model_output_path=str(folder),
        vector_cache=cache,
        accept="always",
        **arguments,
    )
    engine.finetune()
    return engine.get_finetuned_model()


def reranked(
    train: RetrievalDataset, test: RetrievalDataset, embed: BaseEmbedding, cache: Path, fused: bool
) -> RetrievalScores:
    """A light re-ranker of the training queries, on the test queries."""
    given = problem(train, test, embed, cache, fused)
    engine = engine_for(given)
    engine.finetune()
    ranker = engine.get_finetuned_model().ranker
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
