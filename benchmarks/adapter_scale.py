"""A million stored vectors: time, and peak memory beside the vectors' own size.

Vectors lie in Parquet shards, as `embed_corpus` writes them, of which `vectors_to_array` makes a
memory-mapped `.npy` file; each of 10,000 queries is its document's vector, turned by a hidden map,
plus noise. Each size runs in a process of its own.

    python benchmarks/adapter_scale.py --sizes 1000000 --queries 1000 --epochs 2 --both
    python benchmarks/adapter_scale.py --sizes 20000 --queries 500 --noise 6 --full
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--noise", type=float, default=3.5, help="of a query; its vector has 1")
    parser.add_argument("--epochs", type=int, help="at most; fewer show what the size costs")
    parser.add_argument(
        "--both", action="store_true", help="also from an array in memory, and compare the weights"
    )
    parser.add_argument(
        "--full", action="store_true", help="also trained against all documents: full softmax"
    )
    args = parser.parse_args()
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            make = multiprocessing.get_context("spawn").Process(
                target=write_vectors, args=(Path(folder), size, args.queries, args.dim, args.noise)
            )
            make.start()
            make.join()
            ways = [(False, True)] + [(False, False)] * args.both + [(True, True)] * args.full
            for full, mapped in ways:
                given = (Path(folder), size, args.queries, args.dim, args.epochs, full, mapped)
                run = multiprocessing.get_context("spawn").Process(target=tune, args=given)
                run.start()
                run.join()
                if run.exitcode:
                    raise SystemExit(f"{size} documents: exit code {run.exitcode}")


def write_vectors(folder: Path, size: int, queries: int, dim: int, noise: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from llama_index.tuning.scale import vectors_to_array

    rng = np.random.default_rng(0)
    (folder / "shards").mkdir()
    written = hashlib.sha256()
    for number, start in enumerate(range(0, size, 50_000)):
        block = rng.standard_normal((min(50_000, size - start), dim), dtype=np.float32)
        written.update(block.tobytes())
        ids = [f"d{i}" for i in range(start, start + len(block))]
        ends = np.arange(len(block) + 1, dtype=np.int32) * dim
        vectors = pa.ListArray.from_arrays(ends, pa.array(block.ravel()))
        table = pa.table({"id": ids, "vector": vectors})
        pq.write_table(table, folder / "shards" / f"part-{number:05d}.parquet")
    vectors_to_array(folder / "shards", folder / "d.npy")
    shutil.rmtree(folder / "shards")
    documents = np.load(folder / "d.npy", mmap_mode="r")
    read = hashlib.sha256()
    for start in range(0, size, 50_000):
        read.update(documents[start : start + 50_000].tobytes())
    if read.digest() != written.digest():
        raise SystemExit("the array is not what the shards hold")
    rows = rng.choice(size, queries, replace=False)
    turn = np.eye(dim) + 0.04 * rng.standard_normal((dim, dim))
    asked = documents[np.sort(rows)] @ turn + noise * rng.standard_normal((queries, dim))
    np.save(folder / "q.npy", asked.astype(np.float32))
    np.save(folder / "rows.npy", np.sort(rows))


class Stored(BaseEmbedding):
    """Gives the vector of `question 17`; any other text only tells this model from others."""

    matrix: object = None

    def _get_query_embedding(self, query: str) -> list[float]:
        name, _, number = query.partition(" ")
        row = int(number) if name == "question" else len(query)
        return self.matrix[row].tolist()  # type: ignore[index]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_query_embedding(text)


def tune(
    folder: Path,
    size: int,
    queries: int,
    dim: int,
    epochs: int | None,
    full: bool,
    mapped: bool,
) -> None:
    from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset
    from llama_index.tuning.embeddings import AdapterOptions

    rows = np.load(folder / "rows.npy")
    dataset = RetrievalDataset(
        {f"q{i}": f"question {i}" for i in range(queries)},
        {f"d{i}": f"document {i}" for i in range(size)},
        {f"q{i}": [f"d{row}"] for i, row in enumerate(rows)},
    )
    started = time.perf_counter()
    engine = EmbeddingAdapterFinetuneEngine(
        dataset,
        Stored(matrix=np.load(folder / "q.npy")),
        epochs=epochs,
        options=AdapterOptions(max_documents=size, documents_per_step=size) if full else None,
        vectors=folder / "d.npy" if mapped else np.load(folder / "d.npy"),
        model_output_path=folder / "adapter",
    )
    report = engine.finetune()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    vectors = size * dim * 4
    print(
        f"{size:>9,} documents, {queries:,} queries: {seconds:.0f} s {report.seconds}, peak memory "
        f"{peak / 2**30:.2f} GiB = {peak / vectors:.2f} × the vectors; {report.reason}",
        flush=True,
    )
    weights = hashlib.sha256((folder / "adapter" / "model.safetensors").read_bytes()).hexdigest()
    where = "memory-mapped" if mapped else "in memory"
    gains = {name: (gain.mean, gain.low, gain.high) for name, gain in report.gains.items()}
    where += ", trained against all documents" if full else ""
    print(f"{where}: weights {weights[:16]}, gains {gains}", flush=True)


if __name__ == "__main__":
    main()
