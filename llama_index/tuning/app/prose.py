"""Whether documents are prose, and in which language: by the words that every sentence needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llama_index.tuning.text.words import ENGLISH, STOP_WORDS, Analyzer

LEAST = 0.2
"""Share of function words from which on a text is prose of that language; code has a tenth."""
_TEXTS = 200
_WORDS = 300


def language_of(texts: Mapping[str, str] | Iterable[str]) -> tuple[str, bool]:
    """The language whose stemmer and stop words fit, and whether the texts are prose of it.

    Example:
        >>> language_of(["The fee is due at the end of the month, and it is paid by the tenant."])
        ('english', True)
        >>> language_of(["def area(radius): return math.pi * radius ** 2"])[1]
        False
    """
    given = list(texts.values()) if isinstance(texts, Mapping) else list(texts)
    step = max(1, len(given) // _TEXTS)
    plain = Analyzer("none")
    words = [word for text in given[::step] for word in plain.words(text[:20_000])[:_WORDS]]
    shares = {
        language: sum(word in set_ for word in words) / max(1, len(words))
        for language, listed in STOP_WORDS.items()
        if (set_ := frozenset(listed.split()))
    }
    best = max(shares, key=lambda language: shares[language])
    return (best, True) if shares[best] >= LEAST else (ENGLISH, False)
