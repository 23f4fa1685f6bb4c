"""What the light re-ranker sees of a candidate: numbers from scores, ranks and shared words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llama_index.tuning.rerankers.codes import Codes, code
from llama_index.tuning.rerankers.statistics import Statistics
from llama_index.tuning.rerankers.words import is_number

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

K1, B = 1.2, 0.75
"""BM25's usual saturation and length normalisation."""
WINDOW = 40
"""Words in a window, about two sentences."""
NEAR = 3
"""Words of a pair may lie this far apart."""
OPENING = 15
"""Words at the head of a text, its title where it has one."""
RRF_K = 10
"""Constant of reciprocal rank fusion, chosen by recall on training queries; 60 is usual."""
_FAR = 1 << 31
_WORDS_AT_ONCE = 16  # bounds memory for long queries

FEATURES = (
    "score",  # the retriever's, such as a cosine
    "score_gap",  # to the list's best
    "score_z",  # in the list's standard deviations
    "score_rank",  # log(1 + rank)
    "score_top",  # is the retriever's first
    "unscored",  # the retriever did not find it
    "bm25",  # as a share of what the query could reach
    "bm25_share",  # of the list's best
    "bm25_z",
    "bm25_rank",
    "bm25_top",
    "fused",  # reciprocal rank fusion of the two rankings
    "coverage",  # share of the query's words
    "idf_coverage",  # the same, weighed by rarity
    "rarest",  # rarest word found, to the query's rarest
    "window",  # idf_coverage of the best stretch of WINDOW words
    "pairs",  # neighbours in the query that are near each other here
    "numbers",  # share of the query's numbers
    "opening",  # idf_coverage of the first words
    "length",  # log(1 + words)
)
"""Names of the features, in order; chosen metadata adds `metadata:<key>` for each key."""


def candidate_features(
    query: Sequence[str],
    documents: Sequence[Codes],
    scores: ArrayLike,
    statistics: Statistics,
    metadata: Sequence[Sequence[Codes]] = (),
) -> FloatArray:
    """The features of one query's candidates.

    Args:
        query: the query's words.
        documents: each candidate's words, in the order in which they were found.
        scores: the retriever's scores, shape `(n,)`; NaN where it did not find the candidate.
        statistics: how common words are.
        metadata: for each chosen key, the words of each candidate's value.

    Returns:
        Shape `(n, len(FEATURES) + len(metadata))`.
    """
    if not documents:
        return np.zeros((0, len(FEATURES) + len(metadata)))
    wanted = _Wanted.of(query, statistics)
    bm25, *shares = _word_features(wanted, documents, statistics.mean_length)
    found = np.asarray(scores, dtype=np.float64)
    missing = ~np.isfinite(found)
    score = np.where(missing, np.min(found, where=~missing, initial=np.inf), found)
    score[~np.isfinite(score)] = 0.0
    score_rank = _ranks(np.where(missing & ~missing.all(), -np.inf, score))
    bm25_rank = _ranks(bm25)
    fused = (~missing | missing.all()) / (RRF_K + 1 + score_rank) + 1 / (RRF_K + 1 + bm25_rank)
    columns = [
        *(
            score,
            score - score.max(),
            standard_scores(score),
            np.log1p(score_rank),
            score_rank == 0,
            missing,
        ),
        *(
            bm25,
            bm25 / (bm25.max() or 1.0),
            standard_scores(bm25),
            np.log1p(bm25_rank),
            bm25_rank == 0,
        ),
        fused * RRF_K,
        *shares,
        *(_Hits.of(wanted, values).present() @ wanted.weights for values in metadata),
    ]
    return np.column_stack(columns).astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """A query's distinct words.

    Attributes:
        codes: increasing, shape `(Q,)`.
        rarity: their idf, shape `(Q,)`.
        weights: rarity as a share of the whole query's.
        numbers: which are numbers, shape `(Q,)`.
        pairs: `Q · one + other` of neighbouring words, increasing, shape `(P,)`.
    """

    codes: Codes
    rarity: FloatArray
    weights: FloatArray
    numbers: NDArray[np.bool_]
    pairs: IntArray

    @classmethod
    def of(cls, query: Sequence[str], statistics: Statistics) -> _Wanted:
        given = np.array([code(word) for word in query], dtype=np.uint32)
        codes, first, place = np.unique(given, return_index=True, return_inverse=True)
        rarity = statistics.idf(codes)
        numbers = np.array([is_number(query[i]) for i in first], dtype=bool)
        pairs = np.unique(place[:-1] * len(codes) + place[1:])
        return cls(codes, rarity, rarity / (rarity.sum() or 1.0), numbers, pairs)


@dataclass(frozen=True, eq=False)
class _Hits:
    """Where the query's words stand in the documents.

    Attributes:
        shape: number of documents, number of distinct words in the query.
        document, word, position: of each hit, in the order of the texts, shape `(H,)`.
    """

    shape: tuple[int, int]
    document: IntArray
    word: IntArray
    position: IntArray

    @classmethod
    def of(cls, wanted: _Wanted, documents: Sequence[Codes]) -> _Hits:
        lengths = np.array([len(words) for words in documents])
        text = np.concatenate(documents)
        at = np.flatnonzero(np.isin(text, wanted.codes))
        ends = np.cumsum(lengths)
        document = np.searchsorted(ends, at, side="right")
        position = at - (ends - lengths)[document]
        word = np.searchsorted(wanted.codes, text[at])
        return cls((len(documents), len(wanted.codes)), document, word, position)

    def counts(self) -> IntArray:
        """How often each document has each word, shape `(n, Q)`."""
        n, q = self.shape
        return np.bincount(self.document * q + self.word, minlength=n * q).reshape(n, q)

    def present(self, among: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Which words each document has, among some of the hits, shape `(n, Q)`."""
        found = np.zeros(self.shape, dtype=bool)
        kept = slice(None) if among is None else among
        found[self.document[kept], self.word[kept]] = True
        return found


def _word_features(
    wanted: _Wanted, documents: Sequence[Codes], mean_length: float
) -> tuple[FloatArray, ...]:
    # bm25, coverage, idf_coverage, rarest, window, pairs, numbers, opening, length
    lengths = np.array([len(words) for words in documents], dtype=np.float64)
    if not len(wanted.codes):  # such as "???"
        return (*np.zeros((8, len(lengths))), np.log1p(lengths))
    hits = _Hits.of(wanted, documents)
    counts = hits.counts()
    present = counts > 0
    norm = K1 * (1 - B + B * lengths / mean_length)
    numbers = wanted.numbers
    return (
        counts / (counts + norm[:, None]) @ wanted.weights,
        present.mean(axis=1),
        present @ wanted.weights,
        (present * wanted.rarity).max(axis=1) / (wanted.rarity.max() or 1.0),
        _best_window(hits, wanted),
        _near_pairs(hits, wanted),
        present[:, numbers].mean(axis=1) if numbers.any() else np.zeros(len(lengths)),
        hits.present(hits.position < OPENING) @ wanted.weights,
        np.log1p(lengths),
    )


def _best_window(hits: _Hits, wanted: _Wanted) -> FloatArray:
    """The largest weight of distinct words within one window, for each document."""
    best = np.zeros(hits.shape[0])
    here = hits.document * _FAR + hits.position  # windows end where a document does
    inside = np.zeros(len(here))
    for first in range(0, hits.shape[1], _WORDS_AT_ONCE):
        weights = wanted.weights[first : first + _WORDS_AT_ONCE]
        # Where each word comes next, seen from each hit.
        following = np.full((len(here), len(weights)), _FAR * _FAR)
        mine = np.flatnonzero((hits.word >= first) & (hits.word < first + len(weights)))
        following[mine, hits.word[mine] - first] = here[mine]
        following = np.minimum.accumulate(following[::-1], axis=0)[::-1]
        inside += (following < here[:, None] + WINDOW) @ weights
    np.maximum.at(best, hits.document, inside)
    return best


def _near_pairs(hits: _Hits, wanted: _Wanted) -> FloatArray:
    """Share, by rarity, of the query's neighbouring words that are near each other here."""
    n, q = hits.shape
    pairs = wanted.pairs
    if not len(pairs):
        return np.zeros(n)
    together = (np.diff(hits.document) == 0) & (np.diff(hits.position) <= NEAR)
    seen = (hits.word[:-1] * q + hits.word[1:])[together]
    place = np.minimum(np.searchsorted(pairs, seen), len(pairs) - 1)
    right = pairs[place] == seen
    found = np.zeros((n, len(pairs)), dtype=bool)
    found[hits.document[:-1][together][right], place[right]] = True
    weights = wanted.rarity[pairs // q] + wanted.rarity[pairs % q]
    share: FloatArray = found @ weights / (weights.sum() or 1.0)
    return share


def _ranks(values: FloatArray) -> FloatArray:
    """0 for the largest; ties in the given order."""
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return ranks


def standard_scores(values: FloatArray) -> FloatArray:
    """In standard deviations from the list's mean; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros_like(values)
