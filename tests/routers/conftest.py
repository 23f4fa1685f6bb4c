"""A router's world in eight numbers: four choices, each a direction, queries around them."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index.tuning import RouterFinetuneEngine, RoutingDataset
from llama_index.tuning.routers import RouterOptions
from tests.conftest import TableEmbedding

NAMES = ["orders", "refunds", "accounts", "outages"]


def world(per_choice=12, noise=0.8, seed=0, names=NAMES, dim=8):
    """A dataset whose descriptions point elsewhere than its queries, and its embedding model."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.standard_normal((max(dim, len(names)), dim)))[0]
    table, pairs, choices = {}, [], {}
    for number, name in enumerate(names):
        choices[name] = f"all about {name}"
        table[choices[name]] = centres[number] + 1.5 * centres[(number + 1) % len(names)]
        for row in range(per_choice):
            query = f"{name} question {row}"
            table[query] = centres[number] + noise * rng.standard_normal(dim) / np.sqrt(dim)
            pairs.append((query, name))
    return RoutingDataset.from_pairs(pairs, choices=choices), TableEmbedding(table, dim=dim)


@pytest.fixture(scope="session")
def tuned_world():
    dataset, model = world()
    engine = RouterFinetuneEngine(dataset, model, options=RouterOptions(words=False))
    return dataset, model, engine, engine.finetune()


@pytest.fixture
def selector(tuned_world):
    return tuned_world[2].get_finetuned_model()
