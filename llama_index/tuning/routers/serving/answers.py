"""What a selector answers: scores of the offered choices as a prediction or a selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from llama_index.core.base.base_selector import SingleSelection

from llama_index.tuning._arrays import Float32
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
