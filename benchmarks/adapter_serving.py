"""What an adapter adds to a query, ours and the stock one, and calls while indexing.

The base model answers from memory, so that only the adapter's own work is timed: the median of
rounds that alternate the base model with one adapter; the stock one comes last, since torch's
threads go on spinning for a while after each call.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.embeddings.adapter import AdapterEmbeddingModel as StockModel

from llama_index.tuning import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.adapter.saved import Adapter


class Ready(BaseEmbedding):
    """Answers at once, with a new list each time as models do, and counts its calls."""

    dim: int = 384
    calls: int = 0
    answer: np.ndarray = None  # type: ignore[assignment]

    def _get_query_embedding(self, query: str) -> list[float]:
        self.calls += 1
        return self.answer.tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_query_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        return [self.answer.tolist() for _ in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=2000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    base = Ready(dim=args.dim, answer=rng.standard_normal(args.dim))
    weight = np.eye(args.dim) + 0.01 * rng.standard_normal((args.dim, args.dim))
    with tempfile.TemporaryDirectory() as folder:
        Adapter(LinearMap(weight.astype(np.float32))).save(Path(folder) / "a")
        models: dict[str, BaseEmbedding] = {"ours": AdapterEmbeddingModel(base, Path(folder) / "a")}
        overhead = {"ours": microseconds(base, models["ours"], args.queries)}
        models["stock"] = StockModel(base, str(Path(folder) / "a"), device="cpu")
        overhead["stock"] = microseconds(base, models["stock"], args.queries)
        for name, value in overhead.items():
            print(f"{name}: {value:.0f} µs a query over the base model")
        models["base"] = base
        for name, embed_model in models.items():
            base.calls = 0
            embed_model.get_text_embedding_batch([f"text {i}" for i in range(100)])
            print(f"{name}: {base.calls} calls of the base model for 100 texts")


def microseconds(base: BaseEmbedding, adapted: BaseEmbedding, rounds: int) -> float:
    """Median of the adapted model's queries less the base's, taken in turns."""
    for embed_model in (base, adapted) * 50:  # warm
        embed_model.get_query_embedding("a question")
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for taken, embed_model in zip(times, (base, adapted), strict=True):
            started = time.perf_counter()
            embed_model.get_query_embedding("a question")
            taken.append(time.perf_counter() - started)
    return (statistics.median(times[1]) - statistics.median(times[0])) * 1e6


if __name__ == "__main__":
    main()
