"""Routing sets with their vectors, for the router benchmarks."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_index.tuning.base import Clock
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.demo import minilm
from llama_index.tuning.routers.data import RouterData, embed
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.run import Run, train
from llama_index.tuning.vectors.embedder import Embedder


@dataclass
class Sets:
    """Train and test of one routing set, embedded."""

    train: RouterData
    test: RouterData


def arguments(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/router_vectors.sqlite"))
    return parser


def load(args: argparse.Namespace, name: str) -> Sets:
    embedder = Embedder(minilm(), cache=args.cache, show_progress=True)
    parts = []
    for split in ("train", "test"):
        data = RoutingDataset.from_jsonl(args.data / name / f"{split}.jsonl")
        parts.append(RouterData.of(data, *embed(data, embedder)))
    return Sets(*parts)


def shots(data: RouterData, count: int, seed: int) -> RouterData:
    """So many examples of each choice; all where `count` is 0."""
    if not count:
        return data
    draw = np.random.default_rng(seed)
    rows = [
        draw.permutation(np.flatnonzero(data.labels == choice))[:count]
        for choice in range(data.choices)
    ]
    return data.subset(np.sort(np.concatenate(rows)))


def semantic_router(
    train: RouterData, asked: RouterData, *, described: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """semantic-router's answers and confidences on the same vectors, with its defaults.

    With `described` each description is one more utterance of its route.
    """
    from semantic_router import Route
    from semantic_router.encoders import DenseEncoder
    from semantic_router.routers import IndexedRouter

    items = list(train.dataset.choices.items())
    names = [name for name, _ in items]
    known = dict(zip([text for _, text in items], train.described.tolist(), strict=True))
    for part in (asked, train):
        known.update(zip(part.dataset.queries, part.vectors.tolist(), strict=True))

    class Known(DenseEncoder):
        name: str = "known"

        def __call__(self, docs: list[str]) -> list[list[float]]:
            return [known[text] for text in docs]

    texts: dict[str, list[str]] = {name: [text] if described else [] for name, text in items}
    for label, owner in zip(train.labels, train.owner, strict=True):
        texts[names[label]].append(train.dataset.examples[owner].query)
    routes = [Route(name=name, utterances=found) for name, found in texts.items() if found]
    router = IndexedRouter(Known(), routes)
    found = [router(text) for text in asked.dataset.queries]
    return (
        np.array([names.index(choice.name) for choice in found]),
        np.array([choice.confidence for choice in found]),
    )


def tuned(data: RouterData, options: RouterOptions | None = None) -> tuple[Run, Clock]:
    clock = Clock()
    return train(data, options or RouterOptions(), clock), clock


def only(data: RouterData, choices: np.ndarray) -> RouterData:
    """The examples of some choices, and no other choice."""
    names = list(data.dataset.choices)
    kept = {names[row]: data.dataset.choices[names[row]] for row in choices}
    rows = np.flatnonzero(np.isin(data.labels, choices))
    dataset = RoutingDataset(kept, [data.dataset.examples[row] for row in data.owner[rows]])
    return RouterData.of(dataset, data.vectors[data.owner[rows]], data.described[choices])
