"""How common each word is in a corpus: what BM25 and the light re-ranker weigh words by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.rerankers.codes import Codes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Statistics(Protocol):
    """What is asked of a corpus."""

    @property
    def mean_length(self) -> float:
        """Mean number of words in a document."""

    def idf(self, codes: Codes) -> FloatArray:
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
        >>> from llama_index.tuning.rerankers.words import Analyzer
        >>> analyzer = Analyzer()
        >>> fees = WordStatistics.of(analyzer.codes(["fees, refund", "fees"]))
        >>> fees.idf(*analyzer.codes(["fees refund"])).round(2).tolist()
        [0.18, 0.69]
    """

    documents: int = 0
    mean_length: float = 1.0
    codes: Codes = field(default_factory=lambda: np.zeros(0, np.uint32))
    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

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

    def idf(self, codes: Codes) -> FloatArray:
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


def idf(counts: IntArray, documents: int) -> FloatArray:
    """BM25's inverse document frequency, as Lucene has it: never negative."""
    seen = np.minimum(counts, documents)
    rarity: FloatArray = np.log1p((documents - seen + 0.5) / (seen + 0.5))
    return rarity


def look_up(wanted: Codes, codes: Codes, values: IntArray) -> IntArray:
    """The value of each wanted code, 0 where there is none; `codes` increase."""
    if not len(codes):
        return np.zeros(len(wanted), dtype=np.int64)
    places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[places] == wanted, values[places], 0)
