"""Words of a query as features: known words and word pairs, weighted by how rare they are."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

MAX_CHARACTERS = 4000
"""Beyond this a query's words are not read."""

_WORDS = re.compile(r"\w+")
_WIDE = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def terms(text: str) -> list[str]:
    """Words, and pairs of neighbouring words; in scripts without spaces, characters.

    Example:
        >>> terms("Lost my card")
        ['lost', 'my', 'card', 'lost my', 'my card']
    """
    words = _WORDS.findall(text[:MAX_CHARACTERS].lower())
    if not text.isascii() and _WIDE.search(text):
        words = [part for word in words for part in (word if _WIDE.search(word) else [word])]
    return words + [f"{one} {two}" for one, two in pairwise(words)]


class Lexicon:
    """The terms that were seen in training, each with its inverse document frequency.

    Args:
        known: the terms.
        idf: their weights, shape `(terms,)`.
        scale: length of a query's feature vector beside the embedding's, which is 1.
    """

    def __init__(self, known: Sequence[str], idf: FloatArray, scale: float) -> None:
        self.known = list(known)
        self.idf = idf
        self.scale = scale
        self._rows = {term: row for row, term in enumerate(self.known)}

    @classmethod
    def build(
        cls, texts: Iterable[str], *, scale: float, min_count: int = 2, max_terms: int = 30_000
    ) -> Lexicon:
        """The terms that occur in at least `min_count` texts, the most frequent first."""
        counts: Counter[str] = Counter()
        total = 0
        for text in texts:
            counts.update(set(terms(text)))
            total += 1
        kept = [item for item in counts.items() if item[1] >= min_count]
        kept.sort(key=lambda item: (-item[1], item[0]))
        kept = kept[:max_terms]
        frequency = np.array([count for _, count in kept], dtype=np.float64)
        idf = (np.log((1 + total) / (1 + frequency)) + 1).astype(np.float32)
        return cls([term for term, _ in kept], idf, scale)

    def features(self, text: str) -> tuple[IntArray, FloatArray]:
        """Rows of the known terms of a text, and their values; the values have length `scale`."""
        get = self._rows.get
        rows = [row for row in map(get, dict.fromkeys(terms(text))) if row is not None]
        if not rows:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        index = np.array(rows)
        values = self.idf.take(index)
        values *= self.scale / math.sqrt(values.dot(values))
        return index, values

    def __len__(self) -> int:
        return len(self.known)
