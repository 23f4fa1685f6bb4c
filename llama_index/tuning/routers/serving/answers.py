"""What a selector answers: scores of the offered choices as a prediction or a selection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from llama_index.core.base.base_selector import SelectorResult, SingleSelection

from llama_index.tuning._arrays import Float32
from llama_index.tuning.errors import OutOfScopeError
from llama_index.tuning.routers.serving.choice_matching import OfferedChoices
from llama_index.tuning.routers.serving.model import RouterModel, probabilities, top_two


@dataclass(frozen=True)
class Prediction:
    """Where a query belongs.

    Attributes:
        names: all choices, the best first.
        probabilities: calibrated, in the same order.
        out_of_scope: whether it belongs to none of them.
        margin: difference of the two largest probabilities.
        score: the best choice's logit, which decides `out_of_scope`.
        nearest: the best choice's training query nearest to it, if one is kept.
    """

    names: list[str]
    probabilities: list[float]
    out_of_scope: bool
    margin: float
    score: float
    nearest: str | None


def selection(
    model: RouterModel,
    offer: OfferedChoices,
    position: int,
    chance: float,
    margin: float,
    vector: Float32,
) -> SingleSelection:
    """One choice with the reason that an app shows.

    Args:
        model: the router.
        offer: the choices.
        position: which of them.
        chance: its probability.
        margin: difference of the two largest probabilities.
        vector: the query's, unit length.
    """
    reason = f"{offer.names[position]}: probability {chance:.2f}, margin {margin:.2f}"
    nearest = nearest_query(model, offer, position, vector)
    if nearest is not None:
        reason += f", nearest training query {nearest[:120]!r}"
    elif offer.rows[position] < 0:
        reason += ", by its description"
    return SingleSelection(index=position, reason=reason)


def prediction(model: RouterModel, offer: OfferedChoices, vector: Float32, text: str) -> Prediction:
    """The offered choices in the order of their scores for a query."""
    scores = offer.scores(model, vector, text)
    chances = probabilities(scores, model.sharpness)
    order = np.argsort(-scores, kind="stable")
    best = int(order[0])
    return Prediction(
        [offer.names[row] for row in order],
        [float(chances[row]) for row in order],
        bool(scores[best] < model.threshold),
        top_two(scores, model.sharpness)[2],
        float(scores[best]),
        nearest_query(model, offer, best, vector),
    )


def nearest_query(
    model: RouterModel, offer: OfferedChoices, position: int, vector: Float32
) -> str | None:
    """The choice's training query nearest to the query; `None` if none is kept."""
    row = int(offer.rows[position])
    return None if row < 0 else model.kept.nearest(row, vector)


def likely_choices(
    model: RouterModel,
    offer: OfferedChoices,
    scores: Float32,
    parts: Iterable[tuple[str, Float32]],
) -> list[tuple[int, float]]:
    """Positions and probabilities of all choices that are likely enough, the best first.

    Args:
        model: the trained part.
        offer: the choices.
        scores: of the whole query, shape `(choices,)`.
        parts: the query's clauses with their vectors; a clause may make a choice likely.
    """
    chances = probabilities(scores, model.sharpness)
    for part, vector in parts:
        apart = offer.scores(model, vector, part)
        if apart.max() >= model.threshold:
            chances = np.maximum(chances, probabilities(apart, model.sharpness))
    order = np.argsort(-chances, kind="stable")
    return [(int(row), float(chances[row])) for row in order if chances[row] >= model.several]


def out_of_scope(
    model: RouterModel, offer: OfferedChoices, score: float, fallback: str | None
) -> SelectorResult:
    """What `fallback` selects for a query that belongs nowhere.

    Raises:
        OutOfScopeError: `fallback` is `"error"`.
        ValueError: `fallback` is none of the choices.
    """
    reason = f"out of scope: score {score:.2f} is below {model.threshold:.2f}"
    if fallback in offer.names:
        chosen = [offer.names.index(fallback)]
    elif fallback == "all":
        chosen = list(range(len(offer.names)))
    elif fallback == "error":
        raise OutOfScopeError(f"the query is {reason}; fallback= would answer it")
    else:
        raise ValueError(
            f"fallback {fallback!r} is not one of the choices: {', '.join(offer.names)}"
        )
    return SelectorResult(
        selections=[
            SingleSelection(index=row, reason=f"{reason}; fallback {fallback!r}") for row in chosen
        ]
    )
