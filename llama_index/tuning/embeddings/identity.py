"""Which embedding model made a vector."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

# Fields that say how a model is called, not what it answers, and fields that may hold a secret.
_LEFT_OUT = re.compile(
    "key|token|secret|password|credential|header|callback|cache|batch|workers|rate_limit|retries"
    "|timeout|progress|reuse",
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
    """A hash of what decides a model's vectors: its class, name and public settings.

    The key of the vector cache. Settings that may hold a secret are left out.
    """
    fields = {
        name: value
        for name, value in model.model_dump(mode="python", warnings=False).items()
        if not _LEFT_OUT.search(name)
    }
    text = json.dumps([type(model).__name__, fields], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
