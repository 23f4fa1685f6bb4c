"""Thresholds from scores of queries that the scoring model did not train on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.routers.data import RouterData, Targets
from llama_index.tuning.routers.new_choices import HeldOut
from llama_index.tuning.routers.serving.model import ScopeScores, probabilities

SINGLES = 2000
"""Queries, and pairs of queries, on which the number of choices is tried."""
GRID = np.round(np.arange(0.05, 0.96, 0.05), 2)


STEPS = 101
"""Values by which a distribution of scores is written down."""


def scope_threshold(scores: Float32, in_scope_recall: float) -> float:
    """The score that this share of in-scope queries reaches at least; scores of shape `(n,)`."""
    return float(np.quantile(scores, 1 - in_scope_recall, method="lower"))


def scope_reference(inside: Float32, held_out: HeldOut, in_scope_recall: float) -> ScopeScores:
    """The scores that an app's queries are compared with.

    Args:
        inside: of in-scope queries, shape `(n,)`.
        held_out: of routers that never saw some choices; on the scale of `inside` by mean and
            spread of what they knew.
        in_scope_recall: what the threshold is drawn for.
    """
    steps = (np.arange(STEPS) + 0.5) / STEPS
    found = ScopeScores(tuple(np.quantile(inside, steps).tolist()), (), in_scope_recall)
    if len(held_out.outside) < 2 or np.ptp(held_out.inside) == 0:
        return found
    spread = float(inside.std()) / float(held_out.inside.std())
    outside = inside.mean() + spread * (held_out.outside - held_out.inside.mean())
    return replace(found, outside=tuple(np.quantile(outside, steps).tolist()))


def margins(chances: Float32) -> Float32:
    """The difference of the two largest probabilities, shape `(n,)`."""
    if chances.shape[1] < 2:
        return np.ones(len(chances), dtype=np.float32)
    top = np.partition(chances, -2, axis=1)
    found: Float32 = top[:, -1] - top[:, -2]
    return found


def margin_for(
    certain: Float32,
    correct: NDArray[np.bool_],
    target: float | None,
    deferred_correct: NDArray[np.float64] | None = None,
) -> float:
    """The margin below which queries are handed over, so that the target is reached.

    Without the other selector's answers (`deferred_correct`, NaN if it was not asked) the
    target is for the queries kept; with them it is for all. If no share reaches the target,
    the margin is the one with the best accuracy.
    """
    if target is None:
        return 0.0
    order = np.argsort(certain, kind="stable")
    right = correct[order].astype(np.float64)
    count = len(right)
    after = np.concatenate([[0.0], np.cumsum(right[::-1])])[::-1]  # right among those kept
    if deferred_correct is None:
        accuracy = after[:-1] / (count - np.arange(count))
    else:
        other = deferred_correct[order]
        other = np.where(np.isnan(other), right, other)
        handed = np.concatenate([[0.0], np.cumsum(other)])
        accuracy = ((after + handed) / count)[:-1]
    enough = np.flatnonzero(accuracy >= target)
    cut = int(enough[0]) if enough.size else int(accuracy.argmax())
    return 0.0 if cut == 0 else float(certain[order[cut]])


def several_threshold(
    data: RouterData, examples: Ints, logits: Float32, sharpness: float, seed: int
) -> float:
    """The probability from which a second choice is selected too.

    Tried on single queries and on as many pairs of queries asked at once, whose vector is taken
    to be the unit sum of the two: the logits are then the sum divided by its length. Examples
    with several choices count as they are.
    """
    draw = np.random.default_rng(seed)
    pick = draw.permutation(len(examples))[:SINGLES]
    one, two = pick[: len(pick) // 2], pick[len(pick) // 2 :][: len(pick) // 2]
    wanted = np.zeros((len(examples), data.choices), dtype=bool)
    targets = Targets.of(data, examples)
    wanted[targets.owner, targets.labels] = True
    joint = data.vectors[examples[one]] + data.vectors[examples[two]]
    length = np.maximum(np.linalg.norm(joint, axis=1, keepdims=True), 1e-3)
    scores = np.concatenate([logits[pick], (logits[one] + logits[two]) / length])
    truth = np.concatenate([wanted[pick], wanted[one] | wanted[two]])
    chances = probabilities(scores.astype(np.float32), sharpness)
    weights = np.concatenate([np.full(len(pick), 1.0), np.full(len(one), 2.0)])
    best, threshold = -1.0, 0.3
    top = chances.argmax(axis=1)
    for level in GRID:
        chosen = chances >= level
        chosen[np.arange(len(top)), top] = True
        exact = float(np.average((chosen == truth).all(axis=1), weights=weights))
        if exact > best:
            best, threshold = exact, float(level)
    return threshold
