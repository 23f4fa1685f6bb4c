"""Which embedding model made a vector: by what it does, not by what it is called."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.errors import ArtifactError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

Signature = list[list[float]]

PROBES = (
    "How long does a refund take?",
    "Die Rechnung 2024-117 über 19,90 € ist am 1. Mai fällig.",
    "def area(radius): return 3.14159 * radius ** 2",
    "東京の天気は晴れです。",
)
"""What a model is asked to tell it from others; fixed, as saved signatures depend on it."""

_NUMBERS = 16  # of each probe's vector, projected
_SAME = 0.02  # distance between unit vectors; an API's own noise is below a tenth of it
_SIMILAR = 0.1  # half precision and other machines are below it, a model trained on is above

# Fields that say how a model is called, not what it answers, and fields that may hold a secret.
_LEFT_OUT = re.compile(
    "key|(?<!max_)(?<!num_)token(?!i)|secret|password|credential|header|callback|cache|batch"
    "|workers|rate_limit|retries|timeout|progress|reuse",
    re.IGNORECASE,
)


def base_name(model: BaseEmbedding) -> str:
    """The model's name as it is kept in artifacts.

    A local folder is called by its last two parts, since a model lies elsewhere on the machine
    that serves it.
    """
    name = model.model_name
    path = PurePath(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name


def same_name(one: str, other: str) -> bool:
    """Whether two such names can mean the same model."""
    return one == other or "unknown" in (one, other)


def vector_space(model: BaseEmbedding) -> str:
    """A hash of a model's class, name and public settings.

    Part of the vector cache's key, the other part being what the model answers to `PROBES`.
    Settings that may hold a secret are left out.
    """
    fields = {
        name: value
        for name, value in model.model_dump(mode="python", warnings=False).items()
        if not _LEFT_OUT.search(name)
    }
    text = json.dumps([type(model).__name__, fields], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def signature_of(vectors: Any) -> Signature:
    """A few numbers of each probe's vector, by which models are told apart."""
    matrix = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
    places = np.arange(1, matrix.shape[1] + 1, dtype=np.float64)
    columns = np.sqrt(np.arange(2, _NUMBERS + 2, dtype=np.float64))
    projected: NDArray[np.float64] = unit @ np.cos(np.outer(places, columns) + columns)
    return [[round(float(number), 5) for number in [*row, matrix.shape[1]]] for row in projected]


def same_signature(one: Any, other: Any, *, tolerance: float = _SAME) -> bool:
    """Whether two signatures are of one model, small noise aside."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape or not np.array_equal(a[:, -1], b[:, -1]):
        return False
    # A projection of a difference d between unit vectors has d * d / 2 for its mean square.
    distances = np.sqrt(2 * np.square(a[:, :-1] - b[:, :-1]).mean(axis=1))
    return bool(distances.max(initial=0.0) <= tolerance)


def model_signature(model: BaseEmbedding) -> Signature:
    """The signature of a model's vectors of texts, and of queries, which may be prompted."""
    texts = model.get_text_embedding_batch(list(PROBES))
    queries = [model.get_query_embedding(text) for text in PROBES[:2]]
    return signature_of([*texts, *queries])


def check_signature(model: BaseEmbedding, saved: Any, what: str) -> None:
    """Refuse a model whose vectors are not those that a component was tuned on.

    Args:
        model: the app's.
        saved: what `model_signature` gave; empty for a component of an earlier version.
        what: the component, for the message.

    Raises:
        ArtifactError: another model, of whatever name.
    """
    if not saved:
        return
    try:
        same = same_signature(saved, model_signature(model), tolerance=_SIMILAR)
    except (TypeError, ValueError) as exc:
        raise ArtifactError(f"{what}: its signature of the model is damaged: {exc}") from exc
    if not same:
        raise ArtifactError(
            f"{what} was tuned on other vectors than {base_name(model)!r} gives now: another "
            "model, other settings, or one that was trained again since; tune it anew"
        )
