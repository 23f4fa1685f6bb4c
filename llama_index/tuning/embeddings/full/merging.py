"""Averages of base and tuned weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

State = Mapping[str, Any]


def merge_best(
    model: Any, base: State, shares: Sequence[float], score: Callable[[Any], float]
) -> tuple[float, dict[float, float]]:
    """Set the model to the average of base and tuned that scores best (Wortsman et al. 2022).

    Args:
        model: the tuned model; changed in place.
        base: the untuned model's state.
        shares: of the tuned weights, each above 0 and at most 1.
        score: how good a model is, on queries that are neither trained on nor reported.

    Returns:
        The share that was taken – of equal ones the largest – and share → score.
    """
    tuned = cloned(model)
    found: dict[float, float] = {}
    for share in sorted(set(shares), reverse=True):
        _set(model, base, tuned, share)
        found[share] = score(model)
    best = max(found, key=lambda share: (found[share], share))
    _set(model, base, tuned, best)
    return best, found


def merge_at(model: Any, base: State, share: float) -> None:
    """Set the model to the average with this share of its own weights."""
    _set(model, base, cloned(model), share)


def cloned(model: Any) -> dict[str, Any]:
    """A copy of the model's state, which further training leaves alone."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _set(model: Any, base: State, tuned: State, share: float) -> None:
    model.load_state_dict(
        {
            name: base[name].to(tensor.device) * (1 - share) + tensor * share
            if tensor.is_floating_point()
            else tensor
            for name, tensor in tuned.items()
        }
    )
