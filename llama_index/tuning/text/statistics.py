"""How common each word is in a corpus: what BM25 and the light re-ranker weigh words by.

Texts → their words' numbers, fast: a light re-ranker spends most of its time here.

Texts are cut into tokens, and tokens hashed, by NumPy over the bytes of all texts at once; the
words of a token that was seen before come from a table. Only new tokens are analysed in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning._running import ThreadLock
from llama_index.tuning.errors import ArtifactError

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]

_SLOTS = 18  # 2 ** 18 places for tokens, 4 MB
_SEVERAL = -1
_KNOWN = 200_000
_LONGEST = 64
_BYTES_AT_ONCE = 1 << 17
_BASE = 0x9E3779B97F4A7C15
_MIXER = 0xD6E8FEB86659FD93  # spreads short tokens' hashes over the high bits
_MODULUS = 1 << 64
# Bytes by what they can be part of; what is not ASCII is looked at closer by the analyser.
_APART, _LETTER, _POINT, _DIGIT = 0, 1, 2, 3
_KINDS = bytes(
    _DIGIT
    if byte >= 128 or chr(byte).isdigit()
    else _LETTER
    if chr(byte).isalnum()
    else _POINT
    if chr(byte) in ".,"
    else _APART
    for byte in range(256)
)


def code(word: str) -> int:
    """A word's number, the same everywhere; two words in four thousand million share one."""
    return crc32(word.encode("utf-8", "surrogatepass"))


class TokenTable:
    """Turns texts into codes, and remembers tokens.

    Args:
        words: text → its words. The words of a text must be those of its tokens, one after the
            other: tokens end at ASCII characters that are neither letters nor digits, save
            points and commas between digits.
    """

    def __init__(self, words: Callable[[str], list[str]]) -> None:
        self._words = words
        self._known: dict[bytes, list[int]] = {}
        self._hashes: Hashes = np.zeros(1 << _SLOTS, dtype=np.uint64)
        self._values: Ints = np.full(1 << _SLOTS, _SEVERAL, dtype=np.int64)
        self._lock = ThreadLock()

    def codes(self, texts: Sequence[str]) -> list[Codes]:
        """Each text's words as numbers, in order."""
        found: list[Codes] = []
        for part in _parts(texts):
            found += self._of(part)
        return found

    def _of(self, texts: Sequence[bytes]) -> list[Codes]:
        whole = b"\n".join(texts).lower()
        starts, ends, hashes = tokens(whole)
        slots = (hashes >> np.uint64(64 - _SLOTS)).astype(np.int64)
        with self._lock:  # both tables change together
            right, values = self._hashes[slots] == hashes, self._values[slots]
        values[~right] = _SEVERAL
        others = np.flatnonzero(values == _SEVERAL)
        edges = np.searchsorted(starts, np.cumsum([len(text) + 1 for text in texts[:-1]]))
        if len(others):
            within = [
                self._analysed(whole[start:end])
                for start, end in zip(starts[others].tolist(), ends[others].tolist(), strict=True)
            ]
            lengths = np.ones(len(values), dtype=np.int64)
            lengths[others] = [len(codes) for codes in within]
            self._learn(slots[others], hashes[others], within, lengths[others])
            edges = np.concatenate([[0], np.cumsum(lengths)])[edges]
            values = np.repeat(values, lengths)
            values[values == _SEVERAL] = list(chain.from_iterable(within))
        return np.split(values.astype(np.uint32), edges)

    def _learn(
        self, slots: Ints, hashes: Hashes, within: Sequence[list[int]], lengths: Ints
    ) -> None:
        # One word a token is the rule; a later token takes the place of an earlier one.
        single = np.flatnonzero(lengths == 1)
        if len(single):
            with self._lock:
                self._hashes[slots[single]] = 0  # a fork in between leaves no wrong value
                self._values[slots[single]] = [within[place][0] for place in single.tolist()]
                self._hashes[slots[single]] = hashes[single]

    def _analysed(self, token: bytes) -> list[int]:
        codes = self._known.get(token)
        if codes is None:
            text = token.decode("utf-8", "surrogatepass")
            codes = [code(word) for word in self._words(text)]
            if len(token) <= _LONGEST:
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[token] = codes
        return codes


class CodesMemory:
    """The codes of texts, of which most come again.

    Args:
        codes: texts → their codes.
        size: texts to remember; all are forgotten when there are more.
    """

    def __init__(self, codes: Callable[[Sequence[str]], list[Codes]], size: int) -> None:
        self._codes = codes
        self._size = size
        self._known: dict[str, Codes] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return CodesMemory, (self._codes, self._size)

    def __call__(self, texts: Sequence[str]) -> list[Codes]:
        """Each text's codes."""
        known = self._known
        found = {text: known.get(text) for text in texts}
        new = [text for text, codes in found.items() if codes is None]
        if new:
            learnt = dict(zip(new, self._codes(new), strict=True))
            if len(known) + len(learnt) > self._size:
                self._known = known = {}
            known.update(learnt)
            found.update(learnt)
        return [codes for codes in map(found.get, texts) if codes is not None]


def tokens(text: bytes) -> tuple[Ints, Ints, Hashes]:
    """Where the tokens of a lower-case text start and end, and their hashes.

    A hash is the polynomial of the token's bytes, by differences of one running sum.
    """
    kinds = np.frombuffer(text.translate(_KINDS), dtype=np.uint8)
    inside = np.zeros(len(kinds) + 2, dtype=bool)
    inside[1:-1] = kinds & 1
    points = np.flatnonzero(kinds[1:-1] == _POINT) + 1
    inside[points[(kinds[points - 1] == _DIGIT) & (kinds[points + 1] == _DIGIT)] + 1] = True
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    powers, inverses = _powers(len(text))
    running = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum(np.frombuffer(text, dtype=np.uint8) * powers, out=running[1:])
    hashes = (running[ends] - running[starts]) * inverses[starts]
    return starts, ends, hashes * np.uint64(_MIXER)


def _powers(length: int) -> tuple[Hashes, Hashes]:
    """The first powers of the base and of its inverse, modulo 2 ** 64."""
    if length <= len(_POWERS[0]):
        return _POWERS[0][:length], _POWERS[1]
    return _computed_powers(length)


def _computed_powers(length: int) -> tuple[Hashes, Hashes]:
    def powers(base: int) -> Hashes:
        factors = np.full(length, base, dtype=np.uint64)
        factors[:1] = 1
        return np.multiply.accumulate(factors)

    return powers(_BASE), powers(pow(_BASE, -1, _MODULUS))


_POWERS = _computed_powers(2 * _BYTES_AT_ONCE)


def _parts(texts: Sequence[str]) -> Iterator[list[bytes]]:
    """Texts in a row, about `_BYTES_AT_ONCE` together."""
    part: list[bytes] = []
    size = 0
    for text in (text.encode("utf-8", "surrogatepass") for text in texts):
        if part and size + len(text) > _BYTES_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text) + 1
    if part:
        yield part


class Statistics(Protocol):
    """What is asked of a corpus."""

    @property
    def mean_length(self) -> float:
        """Mean number of words in a document."""

    def idf(self, codes: Codes) -> Float64:
        """The words' inverse document frequencies; largest for a word never seen."""


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """In how many documents each word occurs.

    Attributes:
        documents: number of documents.
        mean_length: mean number of words in a document.
        codes: the words' codes, increasing, shape `(V,)`.
        counts: documents that hold each, shape `(V,)`.

    Example:
        >>> from llama_index.tuning.text.words import Analyzer
        >>> analyzer = Analyzer()
        >>> fees = WordStatistics.of(analyzer.codes(["fees, refund", "fees"]))
        >>> fees.idf(*analyzer.codes(["fees refund"])).round(2).tolist()
        [0.18, 0.69]
    """

    documents: int = 0
    mean_length: float = 1.0
    codes: Codes = field(default_factory=lambda: np.zeros(0, np.uint32))
    counts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, documents: Iterable[Codes]) -> WordStatistics:
        """From each document's words."""
        distinct, lengths = [np.zeros(0, np.uint32)], []
        for words in documents:
            distinct.append(np.unique(words))
            lengths.append(len(words))
        codes, counts = np.unique(np.concatenate(distinct), return_counts=True)
        mean = float(np.mean(lengths)) if lengths else 1.0
        return cls(len(lengths), max(1.0, mean), codes, counts.astype(np.int64))

    def idf(self, codes: Codes) -> Float64:
        """The words' inverse document frequencies; largest for a word never seen."""
        return idf(look_up(codes, self.codes, self.counts), self.documents)

    def common(self) -> WordStatistics:
        """Without words of a single document, which are most: they count as unseen."""
        kept = self.counts > 1
        return replace(self, codes=self.codes[kept], counts=self.counts[kept])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays for a file."""
        return {"codes": self.codes, "counts": self.counts.astype(np.int32)}

    @classmethod
    def from_arrays(cls, config: Any, arrays: Mapping[str, NDArray[Any]]) -> WordStatistics:
        """From `to_arrays()` and the two numbers, checked."""
        try:
            codes, counts = arrays["codes"], arrays["counts"]
            documents, mean_length = int(config["documents"]), float(config["mean_length"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ArtifactError(f"the word statistics are damaged: {exc!r}") from exc
        sound = (
            codes.ndim == counts.ndim == 1
            and len(codes) == len(counts)
            and codes.dtype.kind in "iu"
            and counts.dtype.kind in "iu"
            and (np.diff(codes.astype(np.int64)) > 0).all()
            and (not len(counts) or 0 < counts.min() <= counts.max() <= documents)
            and documents >= 0
            and 0 < mean_length < np.inf
        )
        if not sound:
            raise ArtifactError("the word statistics are damaged: codes and counts do not fit")
        return cls(documents, mean_length, codes.astype(np.uint32), counts.astype(np.int64))


def idf(counts: Ints, documents: int) -> Float64:
    """BM25's inverse document frequency, as Lucene has it: never negative."""
    seen = np.minimum(counts, documents)
    rarity: Float64 = np.log1p((documents - seen + 0.5) / (seen + 0.5))
    return rarity


def look_up(wanted: Codes, codes: Codes, values: Ints) -> Ints:
    """The value of each wanted code, 0 where there is none; `codes` increase."""
    if not len(codes):
        return np.zeros(len(wanted), dtype=np.int64)
    places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[places] == wanted, values[places], 0)
