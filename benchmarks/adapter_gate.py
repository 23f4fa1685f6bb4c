"""The gate: how often it accepts an adapter that learnt from shuffled labels, and a real one.

Shuffled: each of Lyft's questions gets another question's passage, so there is nothing to learn.
Each run is the whole engine with its defaults; only the vectors are shared.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
from _data import arguments, lyft_and_uber, model

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset
from llama_index.tuning.embeddings import AdapterOptions


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=200)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base = model()
    train, _ = lyft_and_uber(args.data)
    answers = list(train.relevant_docs.values())
    accepted, gains = 0, []
    for seed in range(args.runs):
        order = np.random.default_rng(seed).permutation(len(answers))
        shuffled = {id_: answers[i] for id_, i in zip(train.queries, order, strict=True)}
        dataset = RetrievalDataset(train.queries, train.corpus, shuffled)
        report = finetune(dataset, base, args.cache, seed)
        accepted += report.accepted
        gains.append(report.gains["ndcg@10"].mean)
        if (seed + 1) % 20 == 0:
            print(f"shuffled labels: {accepted} of {seed + 1} accepted", flush=True)
    share = accepted / args.runs
    print(f"shuffled labels: accepted {share:.1%} of {args.runs} runs; mean {np.mean(gains):+.4f}")
    print(f"real labels: {finetune(train, base, args.cache, 0).reason}")


def finetune(dataset, base, cache, seed):
    with tempfile.TemporaryDirectory() as folder:
        return EmbeddingAdapterFinetuneEngine(
            dataset,
            base,
            options=AdapterOptions(seed=seed),
            vector_cache=cache,
            model_output_path=Path(folder) / "adapter",
        ).finetune()


if __name__ == "__main__":
    main()
