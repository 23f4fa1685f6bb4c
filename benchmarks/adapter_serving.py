"""What an adapter adds to a query, ours and the stock one, and calls while indexing.

The base model answers from memory, so that only the adapter's own work is timed: the median over
rounds that alternate base, ours and stock.
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
from llama_index.tuning.embeddings.adapters import Adapter
from llama_index.tuning.embeddings.maps import LinearMap


class Ready(BaseEmbedding):
    """Answers at once and counts its calls."""

    dim: int = 384
    calls: int = 0
    answer: list[float] = []  # noqa: RUF012

    def _get_query_embedding(self, query: str) -> list[float]:
        self.calls += 1
        return self.answer

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_query_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        return [self.answer] * len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=2000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    base = Ready(dim=args.dim, answer=rng.standard_normal(args.dim).tolist())
    weight = np.eye(args.dim) + 0.01 * rng.standard_normal((args.dim, args.dim))
    with tempfile.TemporaryDirectory() as folder:
        Adapter(LinearMap(weight.astype(np.float32))).save(Path(folder) / "a")
        models = {
            "base": base,
            "ours": AdapterEmbeddingModel(base, Path(folder) / "a"),
            "stock": StockModel(base, str(Path(folder) / "a"), device="cpu"),
        }
        times: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(args.queries):
            for name, embed_model in models.items():
                started = time.perf_counter()
                embed_model.get_query_embedding("a question")
                times[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) * 1e6 for name, values in times.items()}
        for name in ("ours", "stock"):
            print(f"{name}: {medians[name] - medians['base']:.0f} µs a query over the base model")
        for name, embed_model in models.items():
            base.calls = 0
            embed_model.get_text_embedding_batch([f"text {i}" for i in range(100)])
            print(f"{name}: {base.calls} calls of the base model for 100 texts")


if __name__ == "__main__":
    main()
