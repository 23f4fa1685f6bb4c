"""Text → words, in any script: what BM25 and the light re-ranker compare."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from llama_index.tuning.rerankers._stop_words import STOP_WORDS
from llama_index.tuning.rerankers.codes import Codes, TokenTable

NO_LANGUAGE = "none"
ENGLISH = "english"

# Thai, Lao, Myanmar, Khmer, Kana, Bopomofo and Han are written without spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# What may stand in a word or not: vowel signs and the tatweel of Arabic and Hebrew, and invisible
# hyphens and joiners, such as PDF files and web pages have.
_OPTIONAL = re.compile(
    "[\u00ad\u200d\u2060\ufeff\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]"
)
_ASCII_WORDS = re.compile(r"\d+(?:[.,]\d+)+|[a-z0-9]+")
_PLAIN_WORDS = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")


class Analyzer:
    """Splits texts into stemmed words.

    Words are what Unicode calls letters and digits, with case, width and optional vowel signs
    removed; a number keeps its points and commas. Scripts without spaces give overlapping pairs
    of characters. Answers are the same for queries and documents.

    Args:
        language: whose stemmer and stop words to use, such as `"english"`, `"german"` or
            `"arabic"` (those of Snowball); `"none"` leaves words as they are.
        stop_words: words to leave out of queries, instead of the language's list.

    Raises:
        ValueError: an unknown language, naming those there are.

    Example:
        >>> Analyzer("english").words("Running costs rose 1,250.50 dollars")
        ['run', 'cost', 'rose', '1,250.50', 'dollar']
        >>> Analyzer("none").words("机器学习")
        ['机器', '器学', '学习']
    """

    def __init__(self, language: str = ENGLISH, *, stop_words: Sequence[str] | None = None) -> None:
        self._stem = _stemmer(language)
        listed = STOP_WORDS.get(language, "").split() if stop_words is None else stop_words
        if isinstance(listed, str) or not all(isinstance(word, str) for word in listed):
            raise TypeError(f"stop_words must be a list of words, got {stop_words!r}")
        self.language = language
        self.stop_words = list(stop_words) if stop_words is not None else None
        self._table = TokenTable(self.words)
        self._stops = frozenset(stem for word in listed for stem in self.words(word))

    def __reduce__(self) -> tuple[Any, ...]:
        # What it remembers is left behind: copies and other processes learn it anew.
        return partial(Analyzer, self.language, stop_words=self.stop_words), ()

    def words(self, text: str) -> list[str]:
        """The text's words, in order."""
        return [self._stem(word) for word in _split(text)]

    def codes(self, texts: Sequence[str]) -> list[Codes]:
        """Each text's words as numbers, shape `(words,)`: equal words, equal numbers."""
        return self._table.codes(texts)

    def query(self, text: str) -> list[str]:
        """The words of a query: without stop words, unless it has no others."""
        words = self.words(text)
        return [word for word in words if word not in self._stops] or words

    def to_dict(self) -> dict[str, Any]:
        """The arguments that make this analyzer."""
        return {"language": self.language, "stop_words": self.stop_words}


def languages() -> list[str]:
    """The languages that have a stemmer, and `"none"`."""
    import Stemmer

    return [NO_LANGUAGE, *sorted(Stemmer.algorithms())]


def is_number(word: str) -> bool:
    """Whether a word begins with a digit."""
    return word[:1].isdigit()


def _stemmer(language: str) -> Callable[[str], str]:
    if language == NO_LANGUAGE:
        return str
    known = languages()
    if language not in known:
        raise ValueError(f"unknown language {language!r}; choose one of: {', '.join(known)}")
    import Stemmer

    stem: Callable[[str], str] = Stemmer.Stemmer(language).stemWord
    # I is the capital of \u0131, or of i in foreign words: the two meet.
    return (lambda word: stem(word).replace("\u0131", "i")) if language == "turkish" else stem


def _split(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = _OPTIONAL.sub("", folded.replace("i\u0307", "i"))  # of a capital \u0130
    special, words_and_runs = _unicode_patterns()
    if not special.search(plain):
        return _PLAIN_WORDS.findall(plain)
    words: list[str] = []
    for run, word in words_and_runs.findall(plain):
        if word:
            words.append(word)
        elif len(run) == 1:
            words.append(run)
        else:
            words.extend(run[i : i + 2] for i in range(len(run) - 1))
    return words


@cache
def _unicode_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    # Python's \w leaves out combining marks, which would cut Indic words apart.
    marks = "".join(chr(c) for c in range(0x300, 0xFE30) if unicodedata.category(chr(c))[0] == "M")
    word = rf"\d+(?:[.,]\d+)+|(?:(?![{_UNSPACED}])(?:[^\W_]|[{marks}]))+"
    return re.compile(f"[{_UNSPACED}{marks}]"), re.compile(rf"([{_UNSPACED}]+)|({word})")
