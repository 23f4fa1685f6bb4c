"""How hard an English text is to read."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_SENTENCE = re.compile(r"[.!?]+(?=[\s\"'”’)\]]|$)")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT = re.compile(  # make, whole; names; walked: not table, houses, wanted
    r"([^laeiouy]|[aeiouy]l)e$|([^laeiouyscxzgh]|[aeiouy]l)es$|[^aeiouytd]ed$"
)


def flesch_kincaid_grade(text: str) -> float:
    """The school year of the United States that reads such English (Kincaid et al. 1975).

    0.39 · words a sentence + 11.8 · syllables a word - 15.59. Syllables are counted by a rule:
    groups of vowels, without a silent final e. English only; texts of a few words vary widely.

    Raises:
        ValueError: there is no word of Latin letters in it.

    Example:
        >>> round(flesch_kincaid_grade("The cat sat on the mat."), 2)
        -1.45
    """
    words = _WORD.findall(text)
    if not words:
        raise ValueError(f"the text has no English word: {text[:80]!r}")
    sentences = max(1, len(_SENTENCE.findall(text)))
    spoken = sum(map(syllables, words))
    return 0.39 * len(words) / sentences + 11.8 * spoken / len(words) - 15.59


def syllables(word: str) -> int:
    """Syllables of an English word, by rule; at least one.

    Example:
        >>> [syllables(word) for word in ("cat", "table", "make", "houses", "names", "walked")]
        [1, 2, 1, 2, 1, 1]
    """
    plain = re.sub(r"[^a-z]", "", word.lower())
    return max(1, len(_VOWELS.findall(plain)) - bool(_SILENT.search(plain)))
