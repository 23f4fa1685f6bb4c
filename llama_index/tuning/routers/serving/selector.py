"""The tuned selector that an app uses: one embedding and one small matrix product a query."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.base_selector import (
    BaseSelector,
    MetadataType,
    SelectorResult,
    _wrap_choice,
)
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import items_of, of_type, plain_arguments
from llama_index.tuning.artifacts import PathLike, replacing_folder
from llama_index.tuning.errors import ArtifactError, DatasetError
from llama_index.tuning.routers.serving.answers import (
    Prediction,
    likely_choices,
    out_of_scope,
    prediction,
    selection,
)
from llama_index.tuning.routers.serving.choice_matching import (
    ChoiceMatcher,
    Key,
    OfferedChoices,
    clauses as split_clauses,
    key_of,
    texts_to_embed,
)
from llama_index.tuning.routers.serving.model import RouterModel, top_two
from llama_index.tuning.routers.serving.saved import load_router, write_router
from llama_index.tuning.vectors.identity import base_name, check_signature, same_name
from llama_index.tuning.vectors.learned import Learned

if TYPE_CHECKING:
    from llama_index.tuning.routers.serving.recalibrate import ScopeFit

logger = logging.getLogger(__name__)

WATCHED = 500
"""Queries after which the share below the out-of-scope threshold is looked at."""
SURE = 4.0
"""Standard errors by which it must be larger than in training to be said."""

DESCRIPTIONS = 10_000
"""Vectors of descriptions, of choices that were not trained, that are kept."""


class TunedSelector(BaseSelector):
    """A selector for `RouterQueryEngine` and `RouterRetriever` that learnt from examples.

    Choices are matched by name, in any order and any subset, whatever their descriptions say now;
    one that was not trained is scored by its description. No LLM is called, unless `defer_to` is
    one.

    Args:
        model: what an engine trained, or `load` read.
        embed_model: the model whose vectors it was trained on.
        multi: select every choice that is likely enough, not only the best.
        clauses: with `multi`, also score the parts of a query apart: one more embedding for each.
        fallback: for queries that belong nowhere – a choice's name, `"all"`, or `"error"` for an
            `OutOfScopeError`; the best choice by default.
        defer_to: asked in the selector's place if the margin is below the router's.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.tuning import RouterFinetuneEngine, RoutingDataset
        >>> data = RoutingDataset.from_pairs([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")])
        >>> engine = RouterFinetuneEngine(data, MockEmbedding(embed_dim=3), accept="always")
        >>> _ = engine.finetune()
        >>> selector = engine.get_finetuned_model()
        >>> len(selector.predict("a").names)
        2
    """

    @plain_arguments
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
        of_type("model", model, RouterModel)
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
        if defer_to is not None and model.margin <= 0:
            logger.warning(
                "defer_to is never asked: the router's margin is 0; RouterOptions(target_accuracy=)"
                " chooses one"
            )
        self._matcher = ChoiceMatcher(model)
        self._embed_model = embed_model
        self.multi, self.clauses = multi, clauses
        self.fallback, self.defer_to = fallback, defer_to
        self._vectors: dict[str, Float32] = {}
        self._said: set[str] = set()
        self._seen, self._below = 0, 0

    def __repr__(self) -> str:
        parts = [f"{len(self.model.choices)} choices", f"base {base_name(self._embed_model)!r}"]
        parts += [name for name in ("multi", "clauses") if getattr(self, name)]
        if self.fallback is not None:
            parts.append(f"fallback {self.fallback!r}")
        if self.defer_to is not None:
            parts.append(f"defers to {type(self.defer_to).__name__}")
        return f"TunedSelector({', '.join(parts)})"

    @property
    def model(self) -> RouterModel:
        """The trained part."""
        return self._matcher.model

    @property
    def embed_model(self) -> BaseEmbedding:
        """The embedding model."""
        return self._embed_model

    @property
    def learned(self) -> Learned | None:
        """The queries that it has learnt, if it knows them."""
        return Learned.of_details("the router", self.model.details)

    @property
    def choices(self) -> dict[str, str]:
        """Name → description of the choices that it knows."""
        return dict(self.model.choices)

    def predict(self, query: str, choices: Sequence[MetadataType] | None = None) -> Prediction:
        """Rank the choices given, or all that it knows; nothing is deferred."""
        matcher, text = self._matcher, _checked(query)
        offer = matcher.own if choices is None else self._offer(matcher, _wrapped(choices))
        vector = matcher.model.unit(self._embed_model.get_query_embedding(text))
        return prediction(matcher.model, offer, vector, text)

    async def apredict(
        self, query: str, choices: Sequence[MetadataType] | None = None
    ) -> Prediction:
        """`predict`, async."""
        matcher, text = self._matcher, _checked(query)
        offer = matcher.own if choices is None else await self._aoffer(matcher, _wrapped(choices))
        vector = matcher.model.unit(await self._embed_model.aget_query_embedding(text))
        return prediction(matcher.model, offer, vector, text)

    @plain_arguments
    def add_choice(self, name: str, description: str = "", examples: Sequence[str] = ()) -> None:
        """Know one more choice from now on, without retraining.

        Args:
            name: a name that is not taken.
            description: what it is for; may be empty if there are examples.
            examples: queries that belong to it.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name must be a non-empty string, got {name!r}")
        model, embed = self.model, self._embed_model
        if name in model.choices:
            raise ValueError(f"the router has a choice {name!r} already; remove it first")
        queries = [_checked(query) for query in examples]
        if not description.strip() and not queries:
            raise ValueError(f"choice {name!r} needs a description or examples, got neither")
        text = description.strip()
        described = model.unit(embed.get_text_embedding(description)) if text else None
        vectors = [model.unit(embed.get_query_embedding(query)) for query in queries]
        stacked = np.stack(vectors) if vectors else np.empty((0, model.dim), np.float32)
        self._matcher = ChoiceMatcher(model.added(name, description, described, queries, stacked))

    @plain_arguments
    def remove_choice(self, name: str) -> None:
        """Forget a choice."""
        model = self.model
        if name not in model.choices:
            raise ValueError(f"unknown choice {name!r}; choose one of: {', '.join(model.choices)}")
        if len(model.choices) == 1:
            raise ValueError(f"{name!r} is the only choice; a router needs at least one")
        self._matcher = ChoiceMatcher(model.removed(name))

    @plain_arguments
    def recalibrate(
        self,
        queries: Sequence[str],
        *,
        in_scope: Sequence[bool | None] | None = None,
        seed: int = 0,
    ) -> ScopeFit:
        """Fit the out-of-scope threshold to the queries that the app is asked.

        A threshold keeps what it promises of queries like those in training. With a few labels it
        keeps it of the app's own; without, the fit separates two overlapping kinds of scores and
        is a guess, whose interval says so. What was found is logged, as a warning if the queries
        are unlike those in training. `save` keeps the new threshold.

        Args:
            queries: a random sample of the app's, at least 100; with labels, fewer do.
            in_scope: whether each belongs to one of the choices, `None` if nobody said; at
                least 20 that do, if any is given.
            seed: of the half-samples that the intervals come from.

        Raises:
            DatasetError: too few queries or labels, or a router that was saved without the scores
                to compare with.
        """
        from llama_index.tuning.routers.serving.recalibrate import fit_scope
        from llama_index.tuning.vectors.embedder import Embedder

        texts = [_checked(query) for query in queries]
        if not texts:
            raise DatasetError("queries is empty")
        in_scope = None if in_scope is None else [*items_of("in_scope", in_scope, "True or False")]
        if in_scope is not None and len(in_scope) != len(texts):
            raise ValueError(
                f"in_scope must have one entry for each of {len(texts)} queries, "
                f"got {len(in_scope)}"
            )
        odd = [label for label in in_scope or () if label not in (True, False, None)]
        if odd:
            raise ValueError(f"in_scope must hold True, False and None, got {odd[0]!r}")
        model = self.model
        vectors = Embedder(self._embed_model).queries(texts)
        scores = [
            float(model.logits(model.unit(vector), text).max())
            for vector, text in zip(vectors, texts, strict=True)
        ]
        found = fit_scope(scores, model.scores, model.threshold, in_scope, seed=seed)
        log = logger.warning if found.unlike_training else logger.info
        log("%s", found)
        self._matcher = ChoiceMatcher(replace(model, threshold=found.threshold))
        self._seen, self._below = 0, 0
        return found

    def save(self, path: PathLike) -> None:
        """Write the selector's folder, atomically, without pickle; `load` reads it."""
        with replacing_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Fill a folder that exists; `save` puts it in its place."""
        settings = {"multi": self.multi, "clauses": self.clauses, "fallback": self.fallback}
        write_router(self.model, folder, settings)

    @classmethod
    @plain_arguments
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
            ArtifactError: no router, damaged, edited, or tuned on another model; or an engine
                kept the base there, and the message says where the refused router lies.
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
        selector = cls(model, embed_model, defer_to=defer_to, **{**settings, **changes})
        check_signature(embed_model, model.details.get("signature"), f"the router {path}")
        return selector

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if prompts:
            raise ValueError("a tuned selector has no prompts")

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        matcher, text = self._matcher, _checked(query.query_str)
        offer = self._offer(matcher, choices)
        embed, unit = self._embed_model.get_query_embedding, matcher.model.unit
        vectors = [unit(embed(part)) for part in self._parts(text)]
        found = self._answer(matcher.model, offer, vectors, text)
        if found is None:
            return self._deferred().select(choices, query)
        return found

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        matcher, text = self._matcher, _checked(query.query_str)
        offer = await self._aoffer(matcher, choices)
        embed, unit = self._embed_model.aget_query_embedding, matcher.model.unit
        vectors = [unit(await embed(part)) for part in self._parts(text)]
        found = self._answer(matcher.model, offer, vectors, text)
        if found is None:
            return await self._deferred().aselect(choices, query)
        return found

    def _deferred(self) -> BaseSelector:
        assert self.defer_to is not None
        return self.defer_to

    def _parts(self, text: str) -> list[str]:
        return [text, *split_clauses(text)] if self.clauses else [text]

    def _answer(
        self, model: RouterModel, offer: OfferedChoices, vectors: list[Float32], text: str
    ) -> SelectorResult | None:
        """The selection; `None` if it is to be deferred."""
        scores = offer.scores(model, vectors[0], text)
        best, chance, margin = top_two(scores, model.sharpness)
        self._watch(model, bool(scores[best] < model.threshold))
        if self.fallback is not None and scores[best] < model.threshold:
            return out_of_scope(model, offer, float(scores[best]), self.fallback)
        if self.defer_to is not None and margin < model.margin:
            return None
        if self.multi:
            parts = zip(self._parts(text)[1:], vectors[1:], strict=True)
            chosen = likely_choices(model, offer, scores, parts) or [(best, chance)]
        else:
            chosen = [(best, chance)]
        return SelectorResult(
            selections=[
                selection(model, offer, row, likely, margin, vectors[0]) for row, likely in chosen
            ]
        )

    def _watch(self, model: RouterModel, below: bool) -> None:
        """Say once for each `WATCHED` queries if far more than in training score low."""
        self._seen += 1
        self._below += below
        if self._seen < WATCHED:
            return
        share, usual = self._below / self._seen, 1 - model.scores.recall
        self._seen, self._below = 0, 0
        if share - usual > SURE * (usual * (1 - usual) / WATCHED) ** 0.5 and share > 2 * usual:
            logger.warning(
                "%.0f %% of the last %d queries scored below the out-of-scope threshold, %.0f %% "
                "of queries like those in training do: they belong nowhere more often, or no "
                "longer look like them; recalibrate(queries) fits the threshold to the app's own",
                100 * share,
                WATCHED,
                100 * usual,
            )

    def _call_out(self, offer: OfferedChoices) -> OfferedChoices:
        """Say once of each choice that its description is another one than in training."""
        for name in offer.reworded:
            if name not in self._said:
                self._said.add(name)
                logger.warning(
                    "choice %r has another description than in training, which says something "
                    "else; its name decides: train anew if it now stands for something else",
                    name,
                )
        return offer

    def _offer(self, matcher: ChoiceMatcher, choices: Sequence[ToolMetadata]) -> OfferedChoices:
        key = key_of(choices)
        found = matcher.get(key)
        if found is None:
            vectors, missing = self._described(matcher, key)
            if missing:
                fresh = self._embed_model.get_text_embedding_batch(missing)
                self._remember(matcher, vectors, missing, fresh)
            found = self._call_out(matcher.make(key, vectors))
        return found

    async def _aoffer(
        self, matcher: ChoiceMatcher, choices: Sequence[ToolMetadata]
    ) -> OfferedChoices:
        key = key_of(choices)
        found = matcher.get(key)
        if found is None:
            vectors, missing = self._described(matcher, key)
            if missing:
                fresh = await self._embed_model.aget_text_embedding_batch(missing)
                self._remember(matcher, vectors, missing, fresh)
            found = self._call_out(matcher.make(key, vectors))
        return found

    def _described(self, matcher: ChoiceMatcher, key: Key) -> tuple[dict[str, Float32], list[str]]:
        """The vectors that an offer needs and that are known, and the texts that are not."""
        texts = texts_to_embed(matcher.model, key)
        known = self._vectors
        vectors = {text: known[text] for text in texts if text in known}
        return vectors, [text for text in texts if text not in vectors]

    def _remember(
        self,
        matcher: ChoiceMatcher,
        vectors: dict[str, Float32],
        missing: list[str],
        fresh: Sequence[Sequence[float]],
    ) -> None:
        unit = matcher.model.unit
        vectors.update((text, unit(given)) for text, given in zip(missing, fresh, strict=True))
        full = len(self._vectors) > DESCRIPTIONS  # choices that never repeat would fill the memory
        self._vectors = vectors if full else self._vectors | vectors


def _wrapped(choices: Sequence[MetadataType]) -> list[ToolMetadata]:
    return [_wrap_choice(choice) for choice in items_of("choices", choices, "tools or texts")]


def _checked(query: Any) -> str:
    if not isinstance(query, str):
        raise TypeError(f"query must be a string, got {type(query).__name__}")
    if not query.strip():
        raise ValueError("query must not be empty")
    return query
