"""Losses of sentence-transformers by name, as objects, or as functions of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions

LossName = Literal[
    "MultipleNegativesRankingLoss",
    "CachedMultipleNegativesRankingLoss",
    "GISTEmbedLoss",
    "CachedGISTEmbedLoss",
    "TripletLoss",
    "CoSENTLoss",
    "MarginMSELoss",
    "DistillKLDivLoss",
]
Loss = LossName | Callable[[Any], Any]
"""A name, a loss object, or a function that makes one of the model."""

DEFAULT: LossName = "MultipleNegativesRankingLoss"
FROM_SCORES = ("MarginMSELoss", "DistillKLDivLoss")
FROM_PAIRS = tuple(name for name in get_args(LossName) if name not in (*FROM_SCORES, "CoSENTLoss"))
TEMPERATURE = 0.05
"""Of the softmax over cosines, and over scores from 0 to 1: the ranking losses' scale of 20."""


def loss_name(loss: Loss | None) -> str:
    """The name by which rows are chosen and reports speak of it."""
    if loss is None:
        return DEFAULT
    if isinstance(loss, str):
        return loss
    if _is_object(loss):
        wrapped = getattr(loss, "loss", None)  # of a MatryoshkaLoss or AdaptiveLayerLoss
        return loss_name(wrapped) if _is_object(wrapped) else type(loss).__name__
    return getattr(loss, "__name__", type(loss).__name__)


def check_loss(loss: Loss | None) -> None:
    """A known name, or something that can be called.

    Raises:
        ValueError: an unknown name.
        TypeError: something else.
    """
    if loss is None or (isinstance(loss, str) and loss in get_args(LossName)):
        return
    if isinstance(loss, str):
        known = ", ".join(get_args(LossName))
        raise ValueError(f"unknown loss {loss!r}; choose one of: {known}")
    if not callable(loss):
        raise TypeError(
            "loss must be a name, a loss object or a function that makes one of the model, "
            f"got {type(loss).__name__}"
        )


def make_loss(
    model: Any,
    loss: Loss | None,
    options: SentenceTransformersOptions,
    guide: Callable[[], Any],
    *,
    together: bool = False,
) -> Any:
    """The loss on this model, within a Matryoshka loss where dimensions are asked for.

    Args:
        model: the SentenceTransformer that is trained.
        loss: see `Loss`.
        options: mini-batch size of cached losses, Matryoshka dimensions.
        guide: makes the guide of a GIST loss.
        together: whether several processes train, whose batches are then one for the loss.
    """
    from sentence_transformers.sentence_transformer import losses

    if isinstance(loss, str) or loss is None:
        made = _named(loss or DEFAULT, model, options, guide, together)
    elif _is_object(loss):
        made = _on_model(loss, model)
    else:
        made = loss(model)
        if not _is_object(made):
            raise TypeError(f"loss gave a {type(made).__name__} for the model, not a loss")
    if options.matryoshka_dims and not isinstance(made, losses.MatryoshkaLoss):
        made = losses.MatryoshkaLoss(model, made, matryoshka_dims=list(options.matryoshka_dims))
    return made


def _named(
    name: str,
    model: Any,
    options: SentenceTransformersOptions,
    guide: Callable[[], Any],
    together: bool,
) -> Any:
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import pairwise_cos_sim

    arguments: dict[str, Any] = {}
    if name.startswith("Cached"):
        arguments["mini_batch_size"] = options.mini_batch_size
    if "GIST" in name:
        arguments["guide"] = guide()
    if together and ("GIST" in name or "Ranking" in name):
        arguments["gather_across_devices"] = True
    if name in FROM_SCORES:
        arguments["similarity_fct"] = pairwise_cos_sim
    if name == "DistillKLDivLoss":
        arguments["temperature"] = TEMPERATURE
    if name == "TripletLoss":
        arguments["distance_metric"] = losses.TripletDistanceMetric.COSINE
        arguments["triplet_margin"] = 0.3  # of a distance between 0 and 2
    return getattr(losses, name)(model, **arguments)


def _on_model(loss: Any, model: Any) -> Any:
    """An object was made for a model of the user's; the one that is trained takes its place."""
    from sentence_transformers import SentenceTransformer

    for name, child in loss.named_children():
        if name == "model" and isinstance(child, SentenceTransformer):
            loss.model = model
        elif name != "guide":
            setattr(loss, name, _on_model(child, model))
    return loss


def _is_object(loss: Any) -> bool:
    """A torch module, not a class of them; told without importing torch."""
    return hasattr(loss, "forward") and not isinstance(loss, type)
