"""Components for workers: sent to them, or built there; with the limit that all of them share."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, TypeAlias, TypeVar

from llama_index.tuning._checks import settings_hash
from llama_index.tuning.generate.reranker_labels import reranker_identity
from llama_index.tuning.vectors.identity import PROBES, base_name, vector_space

T = TypeVar("T")

Given: TypeAlias = T | partial[Any]
"""A component, or `functools.partial(Class, …)` that builds it in each worker."""


def check_component(name: str, component: object, kind: type[Any]) -> None:
    """A component of that class, or a partial that will build it.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(component, (kind, partial)):
        raise TypeError(
            f"{name} must be a {kind.__name__}, or functools.partial(Class, …) that builds it in "
            f"each worker; got {type(component).__name__}"
        )


def built(component: Given[T], limiter: Any = None) -> T:
    """The component, which waits for `limiter` before each request; the one given is unchanged.

    Raises:
        ValueError: there is a limiter, and the component asks nobody.
    """
    found: T = component() if isinstance(component, partial) else copy.copy(component)
    if limiter is None:
        return found
    for name in ("_llm", "llm"):  # evaluators and re-rankers ask through one
        asked = getattr(found, name, None)
        if asked is not None:
            asked = copy.copy(asked)
            asked.rate_limiter = limiter
            setattr(found, name, asked)
            return found
    if not hasattr(found, "rate_limiter"):
        raise ValueError(
            f"requests_per_minute: {type(found).__name__} sends no requests that LlamaIndex can "
            "limit; leave it out"
        )
    found.rate_limiter = limiter
    return found


def identity_of(component: Any) -> dict[str, str]:
    """What decides a component's answers, without secrets: names and settings."""
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    if isinstance(component, partial):
        keywords = {k: v for k, v in component.keywords.items() if "key" not in k}
        settings = settings_hash({**keywords, "args": repr(component.args)})
        return {"model": getattr(component.func, "__name__", "?"), "settings": settings}
    if isinstance(component, BaseEmbedding):
        return {"model": base_name(component), "settings": vector_space(component)[:16]}
    if isinstance(component, LLM):
        return {"model": f"{component.class_name()}/{component.metadata.model_name}"}
    asked = getattr(component, "_llm", None) or getattr(component, "llm", None)
    llm = identity_of(asked)["model"] if asked is not None else ""
    if isinstance(component, BaseNodePostprocessor):
        known = reranker_identity(component)
        settings = known["settings"] + _answers(component)
        return {"model": known["teacher"], "llm": llm, "settings": settings}
    settings = settings_hash(vars(component))
    return {"model": type(component).__name__, "llm": llm, "settings": settings}


def _answers(reranker: Any) -> str:
    """What one of our own re-rankers, which asks nobody, makes of the probes: its weights."""
    from llama_index.core.schema import NodeWithScore, TextNode

    from llama_index.tuning.rerankers.serving import CalibratedReranker

    if not isinstance(reranker, CalibratedReranker):
        return ""
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in PROBES]
    return "".join(f" {score:.2f}" for score in reranker.raw_scores(PROBES[0], nodes))
