"""Folders of many rows: time, and the driver's memory, here and on Ray.

Each size runs in a process of its own, with a cheap embedding (hashed words, 64 numbers) or MiniLM.
`steady` is the time of a shard once workers run: from the first part's writing to the last's,
divided by the parts between; `start` is what is before the first part. The driver's memory is its
peak (`ru_maxrss`), above what it had before the job.

    python benchmarks/scale.py --sizes 10000 100000 1000000
    python benchmarks/scale.py --sizes 10000 100000 1000000 --backend ray --workers 1
    python benchmarks/scale.py --sizes 4096 --rows 256 --model minilm --backend local ray
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from _hashed import HashedWords
from llama_index.core.base.embeddings.base import BaseEmbedding

FILE = 100_000  # rows
WORDS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--backend", nargs="+", default=["local"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", type=int, default=4096, help="of a shard")
    parser.add_argument("--model", default="hashed", choices=["hashed", "minilm"])
    parser.add_argument("--queries", type=int, default=0, help="to mine negatives for")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            call(context, write_corpus, Path(folder), size)
            for backend in args.backend:
                for workers in args.workers if backend == "ray" else [1]:
                    call(context, embed, Path(folder), size, backend, workers, args)


def call(context, function, *given: object):
    process = context.Process(target=function, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__}{given}: exit code {process.exitcode}")


def write_corpus(folder: Path, size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(20_000)])
    (folder / "corpus").mkdir()
    for start in range(0, size, FILE):
        ids = [f"d{i}" for i in range(start, min(size, start + FILE))]
        drawn = words[rng.zipf(1.3, (len(ids), WORDS)) % len(words)]
        table = pa.table({"id": ids, "text": [" ".join(row) for row in drawn]})
        path = folder / "corpus" / f"{start // FILE:04d}.parquet"
        pq.write_table(table, path, row_group_size=20_000)


def embed(folder: Path, size: int, backend: str, workers: int, args) -> None:
    from llama_index.tuning.scale import ScaleOptions, embed_corpus, vectors_to_array

    if args.model == "minilm":
        from llama_index.tuning.demo import minilm

        model: BaseEmbedding = minilm()
    else:
        model = HashedWords(embed_batch_size=512)
    model.get_text_embedding_batch(["warm up"] * 8)
    if backend == "ray":
        import ray

        here = str(Path(__file__).resolve().parent)  # where workers find the embedding
        os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
        ray.init(num_cpus=max(2, workers), log_to_driver=False, logging_level="ERROR")
    out = folder / f"{backend}-{workers}"
    options = ScaleOptions(workers=workers, rows_per_shard=args.rows)
    before, began = peak(), time.time()
    report = embed_corpus(folder / "corpus", out, model, backend=backend, options=options)
    took, after = time.time() - began, peak()
    if backend == "ray":
        ray.shutdown()
    written = sorted(part.stat().st_mtime for part in out.glob("part-*"))
    began_array = time.time()
    vectors_to_array(out, folder / f"{out.name}.npy")
    found = {
        "size": size,
        "backend": backend,
        "workers": workers,
        "rows_per_shard": args.rows,
        "model": args.model,
        "written": report.written,
        "failed": report.failed,
        "seconds": round(took, 1),
        "start": round(written[0] - began, 1),
        "steady": round((written[-1] - written[0]) / max(1, len(written) - 1), 3),
        "driver_mb": round(after),
        "driver_mb_more": round(after - before),
        "array_seconds": round(time.time() - began_array, 1),
        "driver_mb_after_array": round(peak()),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found), flush=True)
    if args.queries and backend == "local":
        mine(folder, out, args)


def mine(folder: Path, out: Path, args) -> None:
    """Negatives of texts that were made of documents by leaving out half of their words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from llama_index.tuning.scale import ScaleOptions, mine_hard_negatives

    documents = np.load(folder / f"{out.name}.npy", mmap_mode="r")
    rng = np.random.default_rng(1)
    rows = np.sort(rng.choice(len(documents), args.queries, replace=False))
    noisy = documents[rows] + 0.1 * rng.standard_normal((len(rows), documents.shape[1]))
    table = pa.table(
        {
            "id": [f"q{row}" for row in rows],
            "vector": list(noisy.astype(np.float32)),
            "relevant": [[f"d{row}"] for row in rows],
        }
    )
    pq.write_table(table, folder / "queries.parquet")
    options = ScaleOptions(rows_per_shard=args.rows)
    began = time.time()
    report = mine_hard_negatives(
        folder / "queries.parquet", folder / "n", folder / f"{out.name}.npy", options=options
    )
    found = pq.read_table(folder / "n").column("negatives").to_pylist()
    line = {
        "mined_over": len(documents),
        "queries": report.written,
        "negatives": sum(map(len, found)),
        "seconds": round(time.time() - began, 1),
    }
    print(json.dumps(line), flush=True)


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
