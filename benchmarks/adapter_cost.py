"""What tuning costs beside embedding, ours and the old engine's loop, in one process.

Time to embed each distinct text of Lyft's training set once, in batches; time of `finetune()`;
time of the old engine's own loop for one epoch – one query and one passage a call, every pair in
every epoch – measured on a sample of the pairs and scaled to all of them.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

from _data import arguments, lyft_and_uber, model

from llama_index.tuning import EmbeddingAdapterFinetuneEngine


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=60, help="pairs for the old loop")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base = model()
    train, test = lyft_and_uber(args.data)
    texts = list(dict.fromkeys([*train.corpus.values(), *train.queries.values()]))
    texts.sort(key=len, reverse=True)
    base.get_text_embedding_batch(texts[:64])  # warm
    for name, unlabelled in (("labels", None), ("labels + Uber's sentences", test.corpus)):
        for number in range(args.rounds):
            with tempfile.TemporaryDirectory() as folder:
                engine = EmbeddingAdapterFinetuneEngine(
                    train, base, unlabelled=unlabelled, model_output_path=Path(folder) / "a"
                )
                started = time.perf_counter()
                report = engine.finetune()
                ours = time.perf_counter() - started
            embed = report.seconds["embed"]
            if unlabelled is None:
                started = time.perf_counter()
                base.get_text_embedding_batch(texts)
                embed = time.perf_counter() - started
            print(
                f"{name}, round {number}: embedding {embed:.1f} s, finetune() {ours:.1f} s, "
                f"ratio {ours / embed:.2f}  {report.seconds}",
                flush=True,
            )
        if unlabelled is None:
            old = old_epoch(base, train, args.sample)
            print(f"old engine's loop: {old:.1f} s an epoch, ratio {old / embed:.2f}", flush=True)


def old_epoch(base, train, sample):
    """Seconds of the old engine's epoch: its `smart_batching_collate`, one text a call."""
    pairs = [(text, train.corpus[docs[0]]) for text, docs in train.query_docid_pairs]
    step = max(1, len(pairs) // sample)
    chosen = pairs[::step]
    started = time.perf_counter()
    for query, text in chosen:
        base.get_query_embedding(query)
        base.get_text_embedding(text)
    return (time.perf_counter() - started) * len(pairs) / len(chosen)


if __name__ == "__main__":
    main()
