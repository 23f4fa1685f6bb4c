"""How well a model knows conversations that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.llms.local.data import IGNORED, Row

LIKELIHOOD = "log-likelihood"
PREFERENCE = "preference"


def log_likelihoods(
    model: Any, rows: Sequence[Row], *, pad_id: int, batch_size: int = 8
) -> Float64:
    """Mean log-probability of a conversation's learnt tokens: the negative of its loss.

    Args:
        model: a causal language model.
        rows: the rows of the conversations.
        pad_id: the padding token.
        batch_size: rows at a time.

    Returns:
        One number for each conversation, in the order of the dataset, shape `(n,)`.
    """
    pairs = _summed(model, [(row.input_ids, row.labels) for row in rows], pad_id, batch_size)
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for row, (total, count) in zip(rows, pairs, strict=True):
        sums[row.example] = sums.get(row.example, 0.0) + total
        counts[row.example] = counts.get(row.example, 0) + count
    return np.array([sums[example] / counts[example] for example in sorted(sums)])


def preferences(model: Any, rows: Sequence[Row], *, pad_id: int, batch_size: int = 8) -> Float64:
    """How far the model prefers the better answer, from 0 to 1 and 0.5 for a draw.

    The logistic function of the difference of the answers' log-probabilities, each a mean over
    its tokens, so that length does not count.
    """
    better = [(row.input_ids, row.labels) for row in rows]
    worse = []
    for row in rows:
        prompt, answer = row.input_ids[: row.prompt_length], list(row.worse or [])
        worse.append(([*prompt, *answer], [*[IGNORED] * len(prompt), *answer]))
    means = [
        np.array([total / count for total, count in _summed(model, side, pad_id, batch_size)])
        for side in (better, worse)
    ]
    preferred: Float64 = 1 / (1 + np.exp(means[1] - means[0]))
    return preferred


def _summed(
    model: Any,
    sequences: Sequence[tuple[list[int], list[int]]],
    pad_id: int,
    batch_size: int,
) -> list[tuple[float, int]]:
    """(sum of the log-probabilities, number) of the learnt tokens of each sequence."""
    import torch
    from torch.nn.functional import cross_entropy

    order = sorted(range(len(sequences)), key=lambda place: len(sequences[place][0]))
    found: dict[int, tuple[float, int]] = {}
    training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        longest = max(len(sequences[place][0]) for place in places)
        ids, labels, mask = [], [], []
        for place in places:
            given, learnt = sequences[place]
            fill = longest - len(given)
            ids.append([*given, *[pad_id] * fill])
            labels.append([*learnt, *[IGNORED] * fill])
            mask.append([1] * len(given) + [0] * fill)
        target = torch.tensor(labels, device=model.device)[:, 1:]
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                use_cache=False,
            ).logits[:, :-1]
            losses = cross_entropy(
                logits.float().transpose(1, 2), target, ignore_index=IGNORED, reduction="none"
            )
        counts = (target != IGNORED).sum(1).tolist()
        for place, total, count in zip(places, (-losses.sum(1)).tolist(), counts, strict=True):
            found[place] = (total, count)
    model.train(training)
    return [found[place] for place in range(len(sequences))]
