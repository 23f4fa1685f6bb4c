"""What embedding models that stand over another one, the base, have in common."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning.vectors.learned import Answers


def direct(base: BaseEmbedding) -> bool:
    """Whether the base's private methods may be called.

    Its public ones would emit every event twice; they are only gone through if they hold a cache
    or a rate limit of the user's.
    """
    limit = getattr(base, "rate_limiter", None)  # not in the oldest core
    return base.embeddings_cache is None and limit is None


def given_base(kwargs: dict[str, Any], also: str) -> tuple[BaseEmbedding, Any]:
    """What `from_dict` was given: the base, which may hold keys, and the one other argument.

    Args:
        kwargs: of `from_dict`.
        also: name of the other argument, `None` by default.

    Raises:
        TypeError: there is no base, or something else.
    """
    base, other = kwargs.pop("base_embed_model", None), kwargs.pop(also, None)
    if base is None or kwargs:
        raise TypeError(
            "from_dict takes base_embed_model (the base model is not written out, it may "
            f"hold keys) and {also}; got {sorted(kwargs) or 'no base_embed_model'}"
        )
    return base, other


@contextlib.contextmanager
def answering(
    model: BaseEmbedding, answers: Answers, vectors: Mapping[str, list[float]]
) -> Iterator[set[str]]:
    """Within the block, these questions have these vectors; yields those that were asked so far."""
    # The cache holds the vectors that the model gives by itself.
    cache, model.embeddings_cache = model.embeddings_cache, None
    try:
        with answers.of(vectors) as asked:
            yield asked
    finally:
        model.embeddings_cache = cache


def without_spans(kind: type[BaseEmbedding]) -> None:
    """Take LlamaIndex's spans off a class' own methods.

    LlamaIndex puts a span around each of these, as it does around the base's, which is called
    inside: one would be a copy of the other, for 100 µs a query.
    """
    for name in ("_get_query_embedding", "_aget_query_embedding", "_get_text_embedding"):
        setattr(kind, name, inspect.unwrap(kind.__dict__[name]))
