"""What tuning costs beside embedding, ours and the old engine's loop, in one process.

Time to embed each distinct text of Lyft's training set once, in batches; time of `finetune()`;
time of the old engine's own loop for one epoch – one query and one passage a call, every pair in
every epoch – measured on a sample of the pairs and scaled to all of them.

    python benchmarks/adapter_cost.py --dims 1536 3072   # the fit alone, and its map
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from _data import arguments, lyft_and_uber, model

from llama_index.tuning import EmbeddingAdapterFinetuneEngine
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.fit import make_adapter
from llama_index.tuning.embeddings.adapter.measure import positive_rows
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.search import unit_rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=60, help="pairs for the old loop")
    parser.add_argument("--dims", type=int, nargs="*", help="wide vectors, made of MiniLM's")
    parser.add_argument("--questions", type=int, nargs="*", default=[60, 210])
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base = model()
    train, test = lyft_and_uber(args.data)
    if args.dims:
        return wide(train, base, args)
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


def wide(train, base, args) -> None:
    """CPU seconds of the fit on vectors of many dimensions, each a fixed function of MiniLM's."""
    embedder = Embedder(base, cache=args.cache)
    ids = list(train.queries)
    for dim in args.dims:
        make = np.random.default_rng(0).standard_normal((384, dim), dtype=np.float32)
        documents, queries = (
            unit_rows(np.tanh(vectors @ make))
            for vectors in (
                embedder.documents(list(train.corpus.values())),
                embedder.queries(list(train.queries.values())),
            )
        )
        for count in args.questions:
            part = train.subset(ids[:count])
            rows = {id_: row for row, id_ in enumerate(train.corpus)}
            pairs = Pairs(queries[:count], positive_rows(part, rows))
            options = AdapterOptions()
            began = time.process_time()
            done = cross_fit(lambda: make_adapter(dim, options), pairs, documents, options)  # noqa: B023
            spent = time.process_time() - began
            size = sum(p.numel() for p in done.adapter.parameters()) * 4 / 1e6
            print(f"{count} questions, {dim} dimensions: {spent:.1f} CPU s, map {size:.1f} MB")


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
