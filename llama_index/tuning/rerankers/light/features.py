"""What the light re-ranker sees of a candidate: numbers from scores, ranks and shared words.

The light re-ranker's arithmetic: a linear score of features, made into a probability.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning._checks import number, share
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.text.bm25 import K1, B
from llama_index.tuning.text.statistics import Codes, Statistics, code
from llama_index.tuning.text.words import is_number

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
) -> Float64:
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
    rarity: Float64
    weights: Float64
    numbers: NDArray[np.bool_]
    pairs: Ints

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
    document: Ints
    word: Ints
    position: Ints

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

    def counts(self) -> Ints:
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
) -> tuple[Float64, ...]:
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


def _best_window(hits: _Hits, wanted: _Wanted) -> Float64:
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


def _near_pairs(hits: _Hits, wanted: _Wanted) -> Float64:
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
    share: Float64 = found @ weights / (weights.sum() or 1.0)
    return share


def _ranks(values: Float64) -> Float64:
    """0 for the largest; ties in the given order."""
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return ranks


def standard_scores(values: Float64) -> Float64:
    """In standard deviations from the list's mean; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros_like(values)


@dataclass(frozen=True, eq=False)
class LinearRanker:
    """A linear ranking function of `features`, in their order.

    Attributes:
        features: names; those of `FEATURES`, then `metadata:<key>`.
        mean: what is taken from each feature, shape `(F,)`.
        scale: what it is then divided by, shape `(F,)`.
        weights: shape `(F,)`.
        calibration: a, b, c of `logit p = a · logit softmax(s) + b · s + c`, where the softmax
            runs over the query's list; empty before calibration.
        thresholds: probabilities, increasing.
        precisions: share of relevant candidates at or above each threshold, out of fold; their
            mean grade, as a share of the highest, where relevance is graded.
        errors: standard errors of the precisions, over queries.
        details: how it came about.
    """

    features: tuple[str, ...]
    mean: Float32
    scale: Float32
    weights: Float32
    calibration: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    thresholds: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    precisions: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    errors: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metadata_keys(self) -> list[str]:
        """The metadata that it looks at."""
        return [name.partition(":")[2] for name in self.features[len(FEATURES) :]]

    @property
    def fingerprint(self) -> str:
        """Changes with the weights."""
        digest = hashlib.sha256(json.dumps(self.features).encode())
        for array in self.tensors().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def scores(self, features: Float64) -> Float64:
        """The candidates' scores, shape `(n,)`: larger is better, comparable within a list.

        Features behind those that it knows (of metadata) are passed over.
        """
        standard = (features[:, : len(self.features)] - self.mean) / self.scale
        scores: Float64 = standard @ self.weights.astype(np.float64)
        return scores

    def probabilities(self, scores: Float64) -> Float64:
        """How probable it is that each candidate of one list is relevant; keeps their order.

        After graded relevance: the grade to expect, as a share of the highest (see `calibrate`).
        """
        if not self.calibration.size:
            raise ValueError("the ranker is not calibrated; a tuned or the default one is")
        a, b, c = self.calibration.astype(np.float64)
        return sigmoid(a * softmax_logits(scores) + b * scores + c)

    def min_score_for(self, precision: float, *, confidence: float = 0.8) -> float:
        """The lowest probability from which on that share of candidates is relevant.

        Args:
            precision: the share that is wanted.
            confidence: how sure the precision should be; 0.5 takes what was measured as it is.

        Raises:
            ValueError: no threshold reached that precision so surely on held-out data.
        """
        precision = share("precision", precision)
        if not number("confidence", confidence, 0.5, 1) < 1:
            raise ValueError(f"confidence must be between 0.5 and 1, got {confidence}")
        sure = self.precisions - NormalDist().inv_cdf(confidence) * self.errors
        reached = np.flatnonzero(sure >= precision)
        if not reached.size:
            best = f"; the best was {sure.max():.3f}" if sure.size else ""
            raise ValueError(
                f"no threshold reached precision {precision} on held-out data with confidence "
                f"{confidence}{best}"
            )
        return float(self.thresholds[reached[0]])

    def tensors(self) -> dict[str, Float32]:
        """The arrays, by name."""
        names = ("mean", "scale", "weights", "calibration", "thresholds", "precisions", "errors")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_tensors(
        cls, features: Any, tensors: Mapping[str, Float32], details: Mapping[str, Any]
    ) -> LinearRanker:
        """From what `tensors()` gave, checked.

        Raises:
            ArtifactError: other features than this version computes, or arrays that do not fit.
        """
        names = tuple(map(str, features)) if isinstance(features, (list, tuple)) else ()
        extra = [name for name in names[len(FEATURES) :] if not name.startswith("metadata:")]
        if names[: len(FEATURES)] != FEATURES or extra:
            raise ArtifactError(
                "the re-ranker was trained on other features than this version computes; "
                "train it again"
            )
        try:
            ranker = cls(names, **tensors, details=details)
        except TypeError as exc:
            raise ArtifactError(f"the re-ranker's weights are incomplete: {exc}") from None
        shapes = {array.shape for array in (ranker.mean, ranker.scale, ranker.weights)}
        if shapes != {(len(names),)} or not (ranker.scale > 0).all():
            raise ArtifactError(f"the re-ranker's weights do not fit its {len(names)} features")
        if ranker.calibration.shape not in ((0,), (3,)):
            raise ArtifactError("the re-ranker's calibration must have 3 numbers or none")
        curve = {ranker.thresholds.shape, ranker.precisions.shape, ranker.errors.shape}
        if len(curve) > 1:
            raise ArtifactError("the re-ranker's thresholds, precisions and errors do not fit")
        return ranker

    @classmethod
    def fixed(cls, name: str, **weights: float) -> LinearRanker:
        """An untrained ranker with these weights: a baseline."""
        ones = np.ones(len(FEATURES), dtype=np.float32)
        values = np.array([weights.get(feature, 0.0) for feature in FEATURES], dtype=np.float32)
        return cls(FEATURES, 0 * ones, ones, values, details={"name": name})

    def with_metadata(self, keys: Sequence[str]) -> LinearRanker:
        """The same ranking with further features for these keys, of weight 0."""
        names = tuple(f"metadata:{key}" for key in keys)
        zeros = np.zeros(len(names), dtype=np.float32)
        return LinearRanker(
            (*FEATURES, *names),
            np.concatenate([self.mean[: len(FEATURES)], zeros]),
            np.concatenate([self.scale[: len(FEATURES)], zeros + 1]),
            np.concatenate([self.weights[: len(FEATURES)], zeros]),
            details=self.details,
        )


def retriever_order() -> LinearRanker:
    """No re-ranker: what the retriever says."""
    return LinearRanker.fixed("no re-ranker", score_rank=-1.0)


def rank_fusion() -> LinearRanker:
    """Reciprocal rank fusion of the retriever and BM25."""
    return LinearRanker.fixed("reciprocal rank fusion", fused=1.0)


def score_fusion() -> LinearRanker:
    """Equal parts of the retriever's score and BM25, in standard deviations of the list."""
    return LinearRanker.fixed("score fusion", score_z=1.0, bm25_z=1.0)


def softmax_logits(scores: Float64) -> Float64:
    """Logits of the softmax over a list: each score against the others' log-sum-exp."""
    shifted = scores - scores.max()
    share = np.exp(shifted)
    others = np.maximum(share.sum() - share, 1e-9)
    logits: Float64 = np.clip(shifted - np.log(others), -20.0, 20.0)
    return logits


def sigmoid(values: Float64) -> Float64:
    """The logistic function, without overflow."""
    answer: Float64 = 0.5 * (1 + np.tanh(0.5 * values))
    return answer
