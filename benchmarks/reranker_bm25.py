"""BM25 over a million short documents: build, memory, search, insert, delete; against bm25s.

Documents are 20 words each, drawn by Zipf's law from a vocabulary of 200,000.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.text.words import Analyzer


def documents(number: int, words: int = 20, vocabulary: int = 200_000) -> list[str]:
    """Random texts with word frequencies as in language."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(10, vocabulary + 10)
    drawn = rng.choice(vocabulary, size=(number, words), p=chances / chances.sum())
    names = [f"w{i:x}z" for i in range(vocabulary)]
    return [" ".join(names[i] for i in row) for row in drawn.tolist()]


def memory() -> float:
    """Peak memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Timer:
    """Seconds of wall clock and of this thread's CPU."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return (
            f"{time.perf_counter() - self.wall:.2f} s "
            f"({time.process_time() - self.cpu:.2f} s of CPU)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--bm25s", action="store_true", help="build bm25s' index instead")
    args = parser.parse_args()
    texts = documents(args.documents + 1000)
    corpus, new = texts[: args.documents], texts[args.documents :]
    queries = [" ".join(text.split()[:6]) for text in texts[::5000][:200]]
    before = memory()
    analyzer = Analyzer("none")
    timer = Timer()
    if args.bm25s:
        theirs(analyzer, corpus, queries, before, timer)
        return
    index = BM25Index(analyzer)
    index.add({f"d{i}": text for i, text in enumerate(corpus)})
    print(f"{len(index):,} documents: built in {timer}")
    arrays = index.to_arrays()
    held = sum(array.nbytes for array in arrays.values()) / 1e6
    print(f"arrays {held:.0f} MB; peak memory of the process grew by {memory() - before:.0f} MB")
    search(index, queries)
    timer = Timer()
    index.add({f"new{i}": text for i, text in enumerate(new)})
    print(f"1,000 documents inserted in {timer}")
    assert index.search(new[0], 1)[0][0] == "new0"
    timer = Timer()
    index.delete([f"d{i}" for i in range(1000)])
    print(f"1,000 documents deleted in {timer}")
    search(index, queries)


def search(index: BM25Index, queries: list[str]) -> None:
    """Six words, 100 documents."""
    timer = time.process_time()
    for query in queries:
        index.search(query, 100)
    spent = time.process_time() - timer
    print(f"search: {spent / len(queries) * 1000:.1f} ms of CPU a query")


def theirs(
    analyzer: Analyzer, corpus: list[str], queries: list[str], before: float, timer: Timer
) -> None:
    """The same with bm25s, whose index cannot take documents in."""
    import bm25s

    index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    index.index([analyzer.words(text) for text in corpus], show_progress=False)
    print(f"bm25s: built in {timer}; peak memory grew by {memory() - before:.0f} MB")
    start = time.process_time()
    for query in queries:
        index.retrieve([analyzer.query(query)], k=100, show_progress=False)
    print(f"search: {(time.process_time() - start) / len(queries) * 1000:.1f} ms of CPU a query")


if __name__ == "__main__":
    main()
