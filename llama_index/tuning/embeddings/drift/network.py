"""A drift map that bends: the closed form, and a network for what it leaves (arXiv 2509.23471).

Over all texts, no bent map of a query predicts the new model's similarities better than the linear
regression: for each query the best one is linear in it. The network is trained on the nearest texts
instead: for texts taken as queries, the softmax of `map(q) · d_old` should be that of `q · d_new`.
It starts at zero, so the closed form is where it begins.
"""

from __future__ import annotations

import numpy as np
import torch

from llama_index.tuning.embeddings.adapter.fit import AdamW
from llama_index.tuning.embeddings.adapter.maps import LinearMap, ResidualMap
from llama_index.tuning.embeddings.drift.fit import Texts

HIDDEN = 256
STEPS = 500
BATCH = 64
RATE = 1e-3
DECAY = 0.01
SCALE = 20.0
"""Of similarities before the softmax."""
NOISE = 0.5
"""Length of the random step by which a text is moved to stand in for a query near it."""


def fit_network(texts: Texts, start: LinearMap, seed: int) -> ResidualMap:
    """The closed form `start` with a residual network on top; deterministic for a seed."""
    generator = torch.Generator().manual_seed(seed)
    new, old = (torch.from_numpy(np.ascontiguousarray(part)) for part in (texts.new, texts.old))
    linear = torch.from_numpy(start.weight)
    dim, out = new.shape[1], old.shape[1]
    first = torch.randn(HIDDEN, dim, generator=generator) / dim**0.5
    bias, second = torch.zeros(HIDDEN), torch.zeros(out, HIDDEN)
    trained = [part.requires_grad_() for part in (first, bias, second)]
    optimiser = AdamW(trained, RATE, DECAY)
    for _ in range(STEPS):
        rows = torch.randint(len(new), (BATCH,), generator=generator)
        step = torch.randn(BATCH, dim, generator=generator) / dim**0.5
        asked = torch.nn.functional.normalize(new[rows] + NOISE * step, dim=1)
        mapped = asked @ linear.T + torch.tanh(asked @ first.T + bias) @ second.T
        wanted = (SCALE * asked @ new.T).softmax(1)
        loss = -(wanted * (SCALE * mapped @ old.T).log_softmax(1)).sum(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    weights = [part.detach().numpy() for part in trained]
    return ResidualMap(start.weight, *weights)
