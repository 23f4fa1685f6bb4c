"""A million stored vectors: time, and peak memory beside the vectors' own size.

Vectors lie in a memory-mapped `.npy` file; each of 10,000 queries is its document's vector,
turned by a hidden map, plus noise. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--epochs", type=int, help="at most; fewer show what the size costs")
    parser.add_argument(
        "--both", action="store_true", help="also from an array in memory, and compare the weights"
    )
    args = parser.parse_args()
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            make = multiprocessing.get_context("spawn").Process(
                target=write_vectors, args=(Path(folder), size, args.queries, args.dim)
            )
            make.start()
            make.join()
            for mapped in (True, False) if args.both else (True,):
                given = (Path(folder), size, args.queries, args.dim, args.epochs, mapped)
                run = multiprocessing.get_context("spawn").Process(target=tune, args=given)
                run.start()
                run.join()
                if run.exitcode:
                    raise SystemExit(f"{size} documents: exit code {run.exitcode}")


def write_vectors(folder: Path, size: int, queries: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    documents = np.lib.format.open_memmap(folder / "d.npy", "w+", np.float32, (size, dim))
    for start in range(0, size, 50_000):
        block = rng.standard_normal((min(50_000, size - start), dim), dtype=np.float32)
        documents[start : start + 50_000] = block
    rows = rng.choice(size, queries, replace=False)
    turn = np.eye(dim) + 0.04 * rng.standard_normal((dim, dim))
    noise = 3.5 * rng.standard_normal((queries, dim))
    asked = documents[np.sort(rows)] @ turn + noise
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


def tune(folder: Path, size: int, queries: int, dim: int, epochs: int | None, mapped: bool) -> None:
    from llama_index.tuning import EmbeddingAdapterFinetuneEngine, RetrievalDataset

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
    print(f"{where}: weights {weights[:16]}, gains {gains}", flush=True)


if __name__ == "__main__":
    main()
