"""The tuned selector that an app uses: one embedding and one small matrix product a query."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_index.core.base.base_selector import (
    BaseSelector,
    MetadataType,
    SelectorResult,
    SingleSelection,
    _wrap_choice,
)
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.embeddings.identity import base_name, same_name
from llama_index.tuning.errors import ArtifactError, OutOfScopeError
from llama_index.tuning.routers.artifact import load_router, save_router
from llama_index.tuning.routers.clauses import clauses as split_clauses
from llama_index.tuning.routers.model import FloatArray, RouterModel, probabilities, top_two
from llama_index.tuning.routers.offers import (
    Key,
    Offer,
    key_of,
    make_offer,
    own_offer,
    texts_to_embed,
)

logger = logging.getLogger(__name__)

OFFERS = 32
"""Sets of choices that are kept matched."""


@dataclass(frozen=True)
class Prediction:
    """Where a query belongs.

    Attributes:
        names: all choices, the best first.
        probabilities: calibrated, in the same order.
        out_of_scope: whether it belongs to none of them.
        margin: difference of the two largest probabilities.
        score: the best choice's logit, which decides `out_of_scope`.
        nearest: the best choice's training query nearest to it, where one is kept.
    """

    names: list[str]
    probabilities: list[float]
    out_of_scope: bool
    margin: float
    score: float
    nearest: str | None


class TunedSelector(BaseSelector):
    """A selector for `RouterQueryEngine` and `RouterRetriever` that learnt from examples.

    Choices are matched by name, in any order and any subset; one that was not trained is scored
    by its description. No LLM is called, unless `defer_to` is one.

    Args:
        model: what an engine trained, or `load` read.
        embed_model: the model whose vectors it was trained on.
        multi: select every choice that is likely enough, not only the best.
        clauses: with `multi`, also score the parts of a query apart: one more embedding for each.
        fallback: for queries that belong nowhere – a choice's name, `"all"`, or `"error"` for an
            `OutOfScopeError`; the best choice by default.
        defer_to: asked in the selector's place where the margin is below the router's.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.tuning import RouterFinetuneEngine, RouterOptions, RoutingDataset
        >>> data = RoutingDataset.from_pairs([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")])
        >>> engine = RouterFinetuneEngine(
        ...     data, MockEmbedding(embed_dim=3), options=RouterOptions(accept="always")
        ... )
        >>> _ = engine.finetune()
        >>> selector = engine.get_finetuned_model()
        >>> len(selector.predict("a").names)
        2
    """

    def __init__(
        self,
        model: RouterModel,
        embed_model: BaseEmbedding,
        *,
        multi: bool = False,
        clauses: bool = False,
        fallback: str | None = None,
        defer_to: BaseSelector | None = None,
    ) -> None:
        if not isinstance(embed_model, BaseEmbedding):
            raise TypeError(
                f"embed_model must be a BaseEmbedding, got {type(embed_model).__name__}"
            )
        if defer_to is not None and not isinstance(defer_to, BaseSelector):
            raise TypeError(f"defer_to must be a BaseSelector, got {type(defer_to).__name__}")
        if fallback is not None and (not isinstance(fallback, str) or not fallback.strip()):
            raise ValueError(
                f"fallback must be a choice's name, 'all' or 'error', got {fallback!r}"
            )
        if clauses and not multi:
            raise ValueError("clauses=True goes with multi=True: a clause may add a choice")
        name = base_name(embed_model)
        if model.base_model and not same_name(model.base_model, name):
            raise ArtifactError(
                f"the router was tuned on the embedding model {model.base_model!r}, not {name!r}"
            )
        self._model = model
        self._embed_model = embed_model
        self.multi, self.clauses = multi, clauses
        self.fallback, self.defer_to = fallback, defer_to
        self._own = own_offer(model)
        self._offers: OrderedDict[Key, Offer] = OrderedDict()
        self._vectors: dict[str, FloatArray] = {}

    @property
    def model(self) -> RouterModel:
        """The trained part."""
        return self._model

    @property
    def embed_model(self) -> BaseEmbedding:
        """The embedding model."""
        return self._embed_model

    @property
    def choices(self) -> dict[str, str]:
        """Name → description of the choices that it knows."""
        return dict(self._model.choices)

    def predict(self, query: str, choices: Sequence[MetadataType] | None = None) -> Prediction:
        """Rank the choices given, or all that it knows; nothing is deferred."""
        offer = self._own if choices is None else self._offer(_wrapped(choices))
        vector = self._model.unit(self._embed_model.get_query_embedding(_checked(query)))
        return self._prediction(offer, vector, query)

    async def apredict(
        self, query: str, choices: Sequence[MetadataType] | None = None
    ) -> Prediction:
        """`predict`, async."""
        offer = self._own if choices is None else await self._aoffer(_wrapped(choices))
        vector = self._model.unit(await self._embed_model.aget_query_embedding(_checked(query)))
        return self._prediction(offer, vector, query)

    def add_choice(self, name: str, description: str = "", examples: Sequence[str] = ()) -> None:
        """Know one more choice from now on, without retraining.

        Args:
            name: a name that is not taken.
            description: what it is for; may be empty where there are examples.
            examples: queries that belong to it.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name must be a non-empty string, got {name!r}")
        if name in self._model.choices:
            raise ValueError(f"the router has a choice {name!r} already; remove it first")
        if isinstance(examples, str):
            raise TypeError("examples must be a list of queries, got a string")
        queries = [_checked(query) for query in examples]
        if not description.strip() and not queries:
            raise ValueError(f"choice {name!r} needs a description or examples, got neither")
        unit, embed = self._model.unit, self._embed_model
        described = unit(embed.get_text_embedding(description)) if description.strip() else None
        vectors = [unit(embed.get_query_embedding(query)) for query in queries]
        stacked = np.stack(vectors) if vectors else np.empty((0, self._model.dim), np.float32)
        self._replace(self._model.added(name, description, described, queries, stacked))

    def remove_choice(self, name: str) -> None:
        """Forget a choice."""
        if name not in self._model.choices:
            raise ValueError(f"unknown choice {name!r}; choose one of: {', '.join(self.choices)}")
        if len(self._model.choices) == 1:
            raise ValueError(f"{name!r} is the only choice; a router needs at least one")
        self._replace(self._model.removed(name))

    def save(self, path: PathLike) -> None:
        """Write the selector's folder, atomically, without pickle; `load` reads it."""
        settings = {"multi": self.multi, "clauses": self.clauses, "fallback": self.fallback}
        save_router(self._model, path, settings)

    @classmethod
    def load(
        cls,
        path: PathLike,
        embed_model: BaseEmbedding | None = None,
        *,
        defer_to: BaseSelector | None = None,
        **changes: Any,
    ) -> TunedSelector:
        """Read what `save` wrote.

        Args:
            path: the folder.
            embed_model: the model that the router was tuned on; `Settings.embed_model` by default.
            defer_to: as in the constructor; it is not saved.
            **changes: `multi`, `clauses` or `fallback`, in place of the saved one.

        Raises:
            ArtifactError: no router, damaged, edited, or tuned on another model.
        """
        unknown = sorted(set(changes) - {"multi", "clauses", "fallback"})
        if unknown:
            raise TypeError(f"load got unknown arguments: {', '.join(unknown)}")
        model, settings = load_router(path)
        if embed_model is None:
            from llama_index.core import Settings

            embed_model = Settings.embed_model
        if model.details.get("accepted") is False:
            logger.warning(
                "%s: the gate kept the base selector when this router was tuned (%s)",
                path,
                model.details.get("reason", "no reason recorded"),
            )
        return cls(model, embed_model, defer_to=defer_to, **{**settings, **changes})

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if prompts:
            raise ValueError("a tuned selector has no prompts")

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        text = _checked(query.query_str)
        offer = self._offer(choices)
        embed = self._embed_model.get_query_embedding
        vectors = [self._model.unit(embed(part)) for part in self._parts(text)]
        found = self._answer(offer, vectors, text)
        if found is None:
            return self._deferred().select(choices, query)
        return found

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        text = _checked(query.query_str)
        offer = await self._aoffer(choices)
        embed = self._embed_model.aget_query_embedding
        vectors = [self._model.unit(await embed(part)) for part in self._parts(text)]
        found = self._answer(offer, vectors, text)
        if found is None:
            return await self._deferred().aselect(choices, query)
        return found

    def _deferred(self) -> BaseSelector:
        assert self.defer_to is not None
        return self.defer_to

    def _parts(self, text: str) -> list[str]:
        return [text, *split_clauses(text)] if self.clauses else [text]

    def _answer(self, offer: Offer, vectors: list[FloatArray], text: str) -> SelectorResult | None:
        """The selection; `None` where it is to be deferred."""
        model = self._model
        scores = offer.scores(model, vectors[0], text)
        best, chance, margin = top_two(scores, model.sharpness)
        if scores[best] < model.threshold and self.fallback is not None:
            return self._outside(offer, float(scores[best]))
        if self.defer_to is not None and margin < model.margin:
            return None
        if not self.multi:
            return SelectorResult(
                selections=[self._selection(offer, best, chance, margin, vectors[0])]
            )
        chances = probabilities(scores, model.sharpness)
        for part, vector in zip(self._parts(text)[1:], vectors[1:], strict=True):
            apart = offer.scores(model, vector, part)
            if apart.max() >= model.threshold:
                chances = np.maximum(chances, probabilities(apart, model.sharpness))
        order = np.argsort(-chances, kind="stable")
        chosen = [int(row) for row in order if chances[row] >= model.several] or [best]
        return SelectorResult(
            selections=[
                self._selection(offer, row, float(chances[row]), margin, vectors[0])
                for row in chosen
            ]
        )

    def _selection(
        self, offer: Offer, position: int, chance: float, margin: float, vector: FloatArray
    ) -> SingleSelection:
        reason = f"{offer.names[position]}: probability {chance:.2f}, margin {margin:.2f}"
        nearest = self._nearest(offer, position, vector)
        if nearest is not None:
            reason += f", nearest training query {nearest[:120]!r}"
        elif offer.rows[position] < 0:
            reason += ", by its description"
        return SingleSelection(index=position, reason=reason)

    def _outside(self, offer: Offer, score: float) -> SelectorResult:
        reason = f"out of scope: score {score:.2f} is below {self._model.threshold:.2f}"
        if self.fallback in offer.names:
            chosen = [offer.names.index(self.fallback)]
        elif self.fallback == "all":
            chosen = list(range(len(offer.names)))
        elif self.fallback == "error":
            raise OutOfScopeError(f"the query is {reason}; fallback= would answer it")
        else:
            raise ValueError(
                f"fallback {self.fallback!r} is not one of the choices: {', '.join(offer.names)}"
            )
        return SelectorResult(
            selections=[
                SingleSelection(index=row, reason=f"{reason}; fallback {self.fallback!r}")
                for row in chosen
            ]
        )

    def _prediction(self, offer: Offer, vector: FloatArray, text: str) -> Prediction:
        scores = offer.scores(self._model, vector, text)
        chances = probabilities(scores, self._model.sharpness)
        order = np.argsort(-scores, kind="stable")
        best = int(order[0])
        return Prediction(
            [offer.names[row] for row in order],
            [float(chances[row]) for row in order],
            bool(scores[best] < self._model.threshold),
            top_two(scores, self._model.sharpness)[2],
            float(scores[best]),
            self._nearest(offer, best, vector),
        )

    def _nearest(self, offer: Offer, position: int, vector: FloatArray) -> str | None:
        row = int(offer.rows[position])
        return None if row < 0 else self._model.kept.nearest(row, vector)

    def _offer(self, choices: Sequence[ToolMetadata]) -> Offer:
        key = key_of(choices)
        found = self._offers.get(key)
        if found is None:
            missing = [t for t in texts_to_embed(self._model, key) if t not in self._vectors]
            if missing:
                fresh = self._embed_model.get_text_embedding_batch(missing)
                self._remember(missing, fresh)
            found = self._matched(key)
        return found

    async def _aoffer(self, choices: Sequence[ToolMetadata]) -> Offer:
        key = key_of(choices)
        found = self._offers.get(key)
        if found is None:
            missing = [t for t in texts_to_embed(self._model, key) if t not in self._vectors]
            if missing:
                fresh = await self._embed_model.aget_text_embedding_batch(missing)
                self._remember(missing, fresh)
            found = self._matched(key)
        return found

    def _remember(self, texts: list[str], vectors: Sequence[Sequence[float]]) -> None:
        self._vectors.update(
            (text, self._model.unit(vector)) for text, vector in zip(texts, vectors, strict=True)
        )

    def _matched(self, key: Key) -> Offer:
        found = self._offers[key] = make_offer(self._model, key, self._vectors)
        while len(self._offers) > OFFERS:
            self._offers.popitem(last=False)
        return found

    def _replace(self, model: RouterModel) -> None:
        self._model, self._own = model, own_offer(model)
        self._offers.clear()


def _wrapped(choices: Sequence[MetadataType]) -> list[ToolMetadata]:
    return [_wrap_choice(choice) for choice in choices]


def _checked(query: Any) -> str:
    if not isinstance(query, str):
        raise TypeError(f"query must be a string, got {type(query).__name__}")
    if not query.strip():
        raise ValueError("query must not be empty")
    return query
