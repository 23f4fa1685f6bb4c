"""Vectors of the latest texts, kept in memory: what is served again is not embedded again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning._async import ThreadLock
from llama_index.tuning.embeddings.vectors import Embedder, FloatArray

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

TEXTS = 4096
"""Texts of each kind to remember by default: 6 MB of 384 numbers each."""


class RememberingEmbedder(Embedder):
    """An embedder for serving: the least recently used texts are forgotten first.

    Threads may share it; two that want the same new text at once may both embed it.

    Args:
        model: any `BaseEmbedding`.
        size: queries, and other texts, to remember.
    """

    def __init__(self, model: BaseEmbedding, *, size: int = TEXTS) -> None:
        super().__init__(model)
        self.size = size
        self._known: dict[str, OrderedDict[str, FloatArray]] = {
            kind: OrderedDict() for kind in ("query", "text")
        }
        self._lock = ThreadLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return RememberingEmbedder, (self.model,), {"size": self.size}

    def documents(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of documents, shape `(len(texts), dim)`."""
        return self._remembered("text", texts, super().documents)

    def queries(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of queries, shape `(len(texts), dim)`, with the model's query instruction."""
        return self._remembered("query", texts, super().queries)

    def _remembered(
        self, kind: str, texts: Sequence[str], embed: Callable[[Sequence[str]], FloatArray]
    ) -> FloatArray:
        known = self._known[kind]
        found: dict[str, FloatArray] = {}
        with self._lock:
            for text in texts:
                if text in known:
                    known.move_to_end(text)
                    found[text] = known[text]
        new = list(dict.fromkeys(text for text in texts if text not in found))
        if new:
            learnt = {text: vector.copy() for text, vector in zip(new, embed(new), strict=True)}
            found.update(learnt)
            with self._lock:
                known.update(learnt)
                while len(known) > self.size:
                    known.popitem(last=False)
        return np.stack([found[text] for text in texts])
