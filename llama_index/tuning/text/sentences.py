"""Questions that were generated twice, in the same or nearly the same words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from llama_index.tuning._checks import number
from llama_index.tuning.text.words import normalise


def question_key(question: str) -> str:
    """The form in which two questions count as the same: case, space and punctuation aside."""
    plain = unicodedata.normalize("NFKC", question)
    return normalise(re.sub(r"[^\w\s]+", " ", plain)) or normalise(question)


def check_threshold(name: str, value: float | None) -> None:
    """A cosine above 0, at most 1, or `None`."""
    if value is not None and not number(name, value, 0, 1) > 0:
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
