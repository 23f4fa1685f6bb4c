"""Hard negatives for 1,000 queries over a million documents: seconds, memory, against brute force.

Clustered random vectors lie in a memory-mapped file; documents' texts are all different. The same
rules written plainly over the whole row of cosines say what is right, for 50 of the queries.

    python benchmarks/generate_negatives.py [--documents 1000000] [--queries 1000] [--dim 384]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from llama_index.tuning import RetrievalDataset, mine_hard_negatives
from llama_index.tuning.generate import MinedDataset

MARGIN, NEAR, COUNT, RANKS = 0.05, 0.95, 5, (1, 100)


def main() -> None:
    """Mine with both backends, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=384)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset, queries, documents = problem(Path(folder), args)
        print(f"{args.documents:,} documents, {args.queries:,} queries, {args.dim} dimensions")
        found = {}
        for backend in ("faiss", "exact"):
            before, started = _peak(), time.perf_counter()
            found[backend] = mine_hard_negatives(
                dataset, vectors=documents, query_vectors=queries, num_negatives=COUNT,
                rank_range=RANKS, relative_margin=MARGIN, near_duplicate=NEAR, backend=backend,
            )  # fmt: skip
            print(
                f"{backend:<6}{time.perf_counter() - started:8.1f} s, peak memory "
                f"{before:.2f} GB before, {_peak():.2f} GB after: {found[backend].counts}"
            )
        same = sum(
            found["faiss"].negatives[id_] == found["exact"].negatives[id_]
            for id_ in dataset.queries
        )
        print(f"both backends give the same negatives for {same} of {len(dataset)} queries")
        print(f"equal to brute force: {check(found['faiss'], queries, documents)} of 50 queries")


def problem(
    folder: Path, args: argparse.Namespace
) -> tuple[RetrievalDataset, np.ndarray, np.ndarray]:
    """Documents in clusters of about 100, queries near one document, some documents copied."""
    rng = np.random.default_rng(0)
    shape = (args.documents, args.dim)
    documents = np.lib.format.open_memmap(folder / "documents.npy", "w+", np.float32, shape)
    centres = rng.standard_normal((max(1, args.documents // 100), args.dim), dtype=np.float32)
    for start in range(0, args.documents, 50_000):
        part = documents[start : start + 50_000]
        part[:] = centres[rng.integers(len(centres), size=len(part))]
        part += 0.7 * rng.standard_normal(part.shape, dtype=np.float32)
    right = rng.choice(args.documents - 1, args.queries, replace=False)
    documents[right + 1] = documents[right] * 1.01 + 0.001
    noise = rng.standard_normal((args.queries, args.dim), dtype=np.float32)
    queries = documents[right] + 0.5 * noise
    dataset = RetrievalDataset(
        {f"q{i}": f"query {i}" for i in range(args.queries)},
        {f"d{i}": f"text {i} on {i * 7919}" for i in range(args.documents)},
        {f"q{i}": [f"d{row}"] for i, row in enumerate(right.tolist())},
    )
    return dataset, queries, documents


def check(mined: MinedDataset, queries: np.ndarray, documents: np.ndarray) -> int:
    """For how many of the first 50 queries the plain way finds the same documents."""
    unit = queries[:50] / np.linalg.norm(queries[:50], axis=1, keepdims=True)
    blocks = []
    for start in range(0, len(documents), 100_000):
        block = documents[start : start + 100_000]
        blocks.append(unit @ (block / np.linalg.norm(block, axis=1, keepdims=True)).T)
    cosines = np.hstack(blocks)
    equal = 0
    for number, scores in enumerate(cosines):
        right = int(mined.relevant_docs[f"q{number}"][0][1:])
        best, answer = scores[right], documents[right] / np.linalg.norm(documents[right])
        wanted = []
        for row in np.argsort(-scores, kind="stable")[: RANKS[1]]:
            text = documents[row] / np.linalg.norm(documents[row])
            if row != right and scores[row] <= best - MARGIN * abs(best) and text @ answer < NEAR:
                wanted.append(f"d{row}")
        equal += mined.negatives[f"q{number}"] == wanted[:COUNT]
    return equal


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
