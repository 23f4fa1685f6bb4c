"""What a router costs: the fit, a query, and a large fit.

python benchmarks/router_cost.py --data ../shared/data [--large]
"""

from __future__ import annotations

import resource
import time
import timeit
import warnings

import numpy as np
from _routing import arguments, load, tuned
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import QueryBundle
from llama_index.core.selectors import EmbeddingSingleSelector
from llama_index.core.tools import ToolMetadata

from llama_index.tuning import TunedSelector
from llama_index.tuning.base import Clock
from llama_index.tuning.demo import minilm
from llama_index.tuning.routers.fit import Setting, fit_all, one_thread
from llama_index.tuning.routers.linear import Rows, fit
from llama_index.tuning.routers.options import RouterOptions


class Ready(MockEmbedding):
    """Gives the same vector at once, so that what is left is the selector's own time."""

    vector: list[float]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.vector


def best(call, number: int, repeat: int = 60) -> float:
    """CPU seconds of a call, the best of many short series: a busy machine disturbs the others."""
    return min(timeit.repeat(call, number=number, repeat=repeat, timer=time.process_time)) / number


def large(rows: int, choices: int) -> None:
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((choices, 384), dtype=np.float32)
    labels = draw.integers(0, choices, rows)
    vectors = np.empty((rows, 384), dtype=np.float32)
    for start in range(0, rows, 50_000):
        part = slice(start, start + 50_000)
        noise = draw.standard_normal(vectors[part].shape, dtype=np.float32)
        vectors[part] = centres[labels[part]] + 3 * noise
        vectors[part] /= np.linalg.norm(vectors[part], axis=1, keepdims=True)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began, cpu = time.perf_counter(), time.process_time()
    found = fit(Rows(vectors, labels, np.ones(rows, np.float32)), choices, 20.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{rows:,} examples, {choices:,} choices: {time.perf_counter() - began:.0f} s "
        f"({time.process_time() - cpu:.0f} s CPU), {found.steps} steps, peak {peak:.2f} GB "
        f"({held:.2f} GB before the fit)"
    )


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.large:
        with one_thread():
            large(args.rows, 1000)
        return
    sets = load(args, "banking77")
    with one_thread():
        for setting in (Setting(20.0), Setting(20.0, 0.5)):
            began = time.process_time()
            fit_all(sets.train, RouterOptions(), setting)
            spent = time.process_time() - began
            print(f"fit of all banking77, words {setting.words}: {spent:.2f} s CPU, one thread")
        began = time.process_time()
        run, clock = tuned(sets.train)
        spent = time.process_time() - began
        print(f"with cross-fitting and calibration: {spent:.1f} s CPU; wall {clock.seconds}")
    assert isinstance(clock, Clock)
    choices = [ToolMetadata(name=n, description=d) for n, d in sets.train.dataset.choices.items()]
    query = sets.test.dataset.queries[0]
    ready = Ready(embed_dim=384, vector=sets.test.vectors[0].tolist())
    with one_thread():
        selector = TunedSelector(run.model, ready)
        bundle = QueryBundle(query)
        inner = type(selector)._select.__wrapped__  # without LlamaIndex's own tracing of a call
        embedding = best(lambda: ready.get_query_embedding(query), 50)
        own = best(lambda: inner(selector, choices, bundle), 50) - embedding
        traced = best(lambda: selector.select(choices, query), 50) - embedding
        print(
            f"on top of the embedding, {len(choices)} choices: {own * 1e6:.0f} µs CPU; with "
            f"LlamaIndex's tracing of select() {traced * 1e6:.0f} µs"
        )
        model = minilm()
        real = TunedSelector(run.model, model)
        one = best(lambda: model.get_query_embedding(query), 5, 7)
        ours = best(lambda: real.select(choices, query), 5, 7)
        stock = best(lambda: EmbeddingSingleSelector(model).select(choices, query), 1, 2)
        print(f"in embeddings of a query: tuned {ours / one:.3f}, stock {stock / one:.1f}")


if __name__ == "__main__":
    main()
