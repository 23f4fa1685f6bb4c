"""Three ways to tune for Lyft → Uber: an adapter, the query side, the whole model.

MiniLM; learnt from Lyft's questions, measured on Uber's 790 over Uber's chunks, none of which was
seen. The query side learns against the stored vectors of both companies' chunks, which no question
of its own may touch; the adapter likewise. `--sets` measures in-corpus sets instead: learnt from
train, measured on test, all three over the same corpus. CPU seconds are of `finetune()` with all
base vectors known already.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

from _data import arguments, dataset, lyft_and_uber, model

from llama_index.tuning import (
    EmbeddingAdapterFinetuneEngine,
    QueryEncoderFinetuneEngine,
    SentenceTransformersFinetuneEngine,
)
from llama_index.tuning.demo import minilm_folder
from llama_index.tuning.embeddings import QueryEncoderOptions, SentenceTransformersOptions
from llama_index.tuning.vectors.embedder import Embedder

SHOWN = ("hit_rate@10", "ndcg@10")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sets", nargs="*", default=["Lyft → Uber"])
    parser.add_argument("--only", nargs="*", default=["adapter", "query", "full"])
    parser.add_argument("--rates", nargs="*", type=float, default=None)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="folder for the tuned models")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in args.sets:
        if name == "Lyft → Uber":
            train, test = lyft_and_uber(args.data)
        else:
            train, test = (dataset(args.data, name, split) for split in ("train", "test"))
        texts = {**train.corpus, **test.corpus}
        embedder = Embedder(model(), cache=args.cache)
        stored = dict(zip(texts, embedder.documents([*texts.values()]), strict=True))
        for way in args.only:
            with tempfile.TemporaryDirectory() as folder:
                engine = engine_for(
                    way, args, train, test, stored, (args.keep or Path(folder)) / way
                )
                started = time.process_time()
                report = engine.finetune()
                used = time.process_time() - started
            for metric in SHOWN:
                gain = report.gains[metric]
                print(
                    f"{name + ', ' + way + ', ' + metric:<42}{gain.base:>6.3f}{gain.tuned:>7.3f}  "
                    f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}, n={gain.n})",
                    flush=True,
                )
            print(f"    {used:.0f} CPU s; {report.seconds}; {report.notes[:2]}", flush=True)


def engine_for(way: str, args, train, test, stored, out: Path):
    """An engine that measures on the test questions alone."""
    common = {"val_dataset": test, "accept": "always", "model_output_path": out}
    cached = {"vector_cache": args.cache, **common}
    if way == "adapter":
        return EmbeddingAdapterFinetuneEngine(train, model(), vectors=stored, **cached)
    if way == "query":
        given = {} if args.rates is None else {"learning_rates": tuple(args.rates)}
        epochs = {} if args.epochs is None else {"epochs": args.epochs}
        return QueryEncoderFinetuneEngine(
            train,
            str(minilm_folder()),
            vectors=stored,
            device="cpu",
            options=QueryEncoderOptions(lora_rank=args.rank, **given),
            **epochs,
            **cached,
        )
    return SentenceTransformersFinetuneEngine(
        train,
        str(minilm_folder()),
        batch_size=16,
        epochs=1,
        device="cpu",
        options=SentenceTransformersOptions(max_length=128),
        **cached,
    )


if __name__ == "__main__":
    main()
