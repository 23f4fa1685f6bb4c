"""Questions that were generated twice, in the same or nearly the same words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.datasets._validation import normalise
from llama_index.tuning.evaluate.search import unit_rows

_BLOCK = 2048


def question_key(question: str) -> str:
    """The form in which two questions count as the same: case, space and punctuation aside."""
    plain = unicodedata.normalize("NFKC", question)
    return normalise(re.sub(r"[^\w\s]+", " ", plain)) or normalise(question)


def near_duplicates(vectors: NDArray[np.float32], threshold: float) -> list[int]:
    """Rows to drop: those whose cosine to an earlier row that is kept reaches the threshold.

    Args:
        vectors: shape `(n, dim)`.
        threshold: a cosine, above 0 and up to 1.
    """
    unit = unit_rows(vectors)
    dropped: set[int] = set()
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        close = np.argwhere(block @ unit[: start + len(block)].T >= threshold)
        for row, earlier in zip((close[:, 0] + start).tolist(), close[:, 1].tolist(), strict=True):
            if earlier < row and earlier not in dropped:
                dropped.add(row)
    return sorted(dropped)


def check_threshold(name: str, value: float | None) -> None:
    """A cosine above 0, at most 1, or `None`."""
    if value is not None and not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, or None, got {value}")


def same_text(one: str, others: Sequence[str], threshold: float) -> bool:
    """Whether a text shares nearly all its three-word runs with one of the others (Jaccard)."""
    runs = _runs(one)
    for other in others:
        theirs = _runs(other)
        if len(runs & theirs) >= threshold * len(runs | theirs):
            return True
    return False


def _runs(text: str) -> set[tuple[str, ...]]:
    words = question_key(text).split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
