"""A trained router as it is served, with NumPy alone: matrices, names, and words as features."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.errors import VectorError
from llama_index.tuning.vectors.search import unit_rows

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

    def __init__(self, known: Sequence[str], idf: Float32, scale: float) -> None:
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

    def features(self, text: str) -> tuple[Ints, Float32]:
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


@dataclass(frozen=True)
class NewChoice:
    """How the row of a choice without training is made from its direction.

    Attributes:
        stretch: its length beside that of the trained rows.
        bias: added to the mean bias.
    """

    stretch: float = 1.0
    bias: float = 0.0


@dataclass(frozen=True, eq=False)
class Kept:
    """Training queries kept to explain an answer.

    Attributes:
        queries: their texts.
        vectors: shape `(n, dim)`, unit length.
        ends: the queries of choice `i` are those from `ends[i]` to `ends[i + 1]`.
    """

    queries: list[str]
    vectors: Float32
    ends: list[int]

    def nearest(self, choice: int, vector: Float32) -> str | None:
        """The query of that choice nearest to a unit vector."""
        start, stop = self.ends[choice], self.ends[choice + 1]
        if start == stop:
            return None
        return self.queries[start + int(self.vectors[start:stop].dot(vector).argmax())]


@dataclass(frozen=True)
class ScopeScores:
    """Largest logits of queries that the router had not seen, at even steps of their shares.

    Attributes:
        inside: of queries that belong somewhere, ascending.
        outside: of queries that belong nowhere, ascending; empty if none were known.
        recall: share of the former that the threshold is drawn for.
    """

    inside: tuple[float, ...] = ()
    outside: tuple[float, ...] = ()
    recall: float = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class RouterModel:
    """Scores of choices for a query's vector and words.

    Attributes:
        choices: name → description, in the order of the rows.
        weight: shape `(choices, dim)`.
        bias: shape `(choices,)`.
        prototypes: mean direction of each choice's examples, shape `(choices, dim)`.
        descriptions: vectors of the descriptions, shape `(choices, dim)`; zero if there is none.
        kept: training queries, to name the nearest.
        sharpness: logits times this are calibrated.
        threshold: a query whose largest logit is below belongs nowhere.
        margin: below this difference of the two largest probabilities a query is deferred.
        several: a further choice is selected from this probability on.
        by_description: how a choice known by its description alone gets its row.
        by_examples: the same, with a few examples.
        lexicon: the known words; `None` if words are not used.
        words: their weights, shape `(terms, choices)`.
        base_model: name of the embedding model.
        scores: what `recalibrate` compares an app's queries with.
        details: what else is worth keeping: verdict, options, scores.
    """

    choices: dict[str, str]
    weight: Float32
    bias: Float32
    prototypes: Float32
    descriptions: Float32
    kept: Kept
    sharpness: float
    threshold: float
    margin: float = 0.0
    several: float = 0.3
    by_description: NewChoice = field(default_factory=NewChoice)
    by_examples: NewChoice = field(default_factory=NewChoice)
    lexicon: Lexicon | None = None
    words: Float32 | None = None
    base_model: str = ""
    scores: ScopeScores = field(default_factory=ScopeScores)
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"RouterModel({len(self.choices)} choices, {self.dim} dimensions)"

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.weight.shape[1])

    @property
    def fingerprint(self) -> str:
        """A short hash of what the router answers."""
        digest = hashlib.sha256(repr([self.choices, self.sharpness, self.threshold]).encode())
        for array in (self.weight, self.bias, self.words):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def unit(self, vector: Sequence[float]) -> Float32:
        """A query's vector at unit length, shape `(dim,)`."""
        if type(vector) is list and len(vector) == self.dim:
            found = np.fromiter(vector, np.float32, self.dim)  # an eighth quicker than np.array
        else:
            found = np.array(vector, dtype=np.float32)
        if found.shape != (self.dim,):
            raise VectorError(
                f"the router was tuned on vectors of dimension {self.dim}, got shape "
                f"{found.shape}; its embedding model was {self.base_model or '(unknown)'!r}"
            )
        length = math.sqrt(found.dot(found))
        if not 0 < length < float("inf"):
            raise VectorError("the query's vector is all zeros, or not finite")
        found /= length
        return found

    def logits(self, vector: Float32, text: str) -> Float32:
        """One score for each choice, shape `(choices,)`."""
        found: Float32 = self.weight.dot(vector)
        found += self.bias
        if self.lexicon is not None and self.words is not None:
            rows, values = self.lexicon.features(text)
            if len(rows):
                found += values.dot(self.words.take(rows, axis=0))
        return found

    def new_row(self, direction: Float32, rule: NewChoice) -> tuple[Float32, float]:
        """Weights and bias of a choice that was not trained, from the direction of its texts."""
        return make_row(self.weight, self.bias, self.prototypes, direction, rule)

    def added(
        self,
        name: str,
        description: str,
        described: Float32 | None,
        queries: Sequence[str],
        vectors: Float32,
    ) -> RouterModel:
        """The same router with one more choice; the others' weights stay.

        Args:
            name: a name that is not taken.
            description: may be empty if there are queries.
            described: the description's vector, or `None`.
            queries: examples.
            vectors: their vectors, unit length, shape `(len(queries), dim)`.
        """
        parts = [vectors] if described is None else [vectors, described[None]]
        direction = unit_rows(np.concatenate(parts).sum(axis=0)[None])[0]
        rule = self.by_examples if len(queries) else self.by_description
        row, bias = self.new_row(direction, rule)
        blank = np.zeros(self.dim, np.float32) if described is None else described
        kept = Kept(
            [*self.kept.queries, *queries],
            np.concatenate([self.kept.vectors, vectors]),
            [*self.kept.ends, self.kept.ends[-1] + len(queries)],
        )
        words = self.words
        if words is not None:
            words = np.concatenate([words, np.zeros((len(words), 1), np.float32)], axis=1)
        return replace(
            self,
            choices={**self.choices, name: description},
            weight=np.concatenate([self.weight, row[None]]),
            bias=np.append(self.bias, np.float32(bias)),
            prototypes=np.concatenate([self.prototypes, direction[None]]),
            descriptions=np.concatenate([self.descriptions, blank[None]]),
            kept=kept,
            words=words,
        )

    def removed(self, name: str) -> RouterModel:
        """The same router without a choice."""
        gone = list(self.choices).index(name)
        rows = [row for row in range(len(self.choices)) if row != gone]
        ends = self.kept.ends
        start, stop = ends[gone], ends[gone + 1]
        kept = Kept(
            self.kept.queries[:start] + self.kept.queries[stop:],
            np.delete(self.kept.vectors, np.s_[start:stop], axis=0),
            [*ends[: gone + 1], *(end - (stop - start) for end in ends[gone + 2 :])],
        )
        return replace(
            self,
            choices={key: text for key, text in self.choices.items() if key != name},
            weight=self.weight[rows],
            bias=self.bias[rows],
            prototypes=self.prototypes[rows],
            descriptions=self.descriptions[rows],
            kept=kept,
            words=None if self.words is None else np.ascontiguousarray(self.words[:, rows]),
        )


def make_row(
    weight: Float32,
    bias: Float32,
    prototypes: Float32,
    direction: Float32,
    rule: NewChoice,
) -> tuple[Float32, float]:
    """The mean row plus a step of the usual length towards what sets the choice apart."""
    middle = weight.mean(axis=0)
    length = float(np.linalg.norm(weight - middle, axis=1).mean())
    apart = unit_rows((direction - prototypes.mean(axis=0))[None])[0]
    row: Float32 = middle + np.float32(rule.stretch * length) * apart
    return row, float(bias.mean()) + rule.bias


def probabilities(logits: Float32, sharpness: float) -> Float32:
    """Calibrated probabilities over the last axis."""
    scaled = (logits - logits.max(axis=-1, keepdims=True)) * np.float32(sharpness)
    np.exp(scaled, out=scaled)
    found: Float32 = scaled / scaled.sum(axis=-1, keepdims=True)
    return found


def top_two(logits: Float32, sharpness: float) -> tuple[int, float, float]:
    """The best choice, its probability, and its margin over the next; logits `(choices,)`."""
    # On a path that is walked for every query: ufuncs' `reduce` spares what array methods wrap.
    best = int(logits.argmax())
    scaled = logits - logits[best]
    scaled *= sharpness
    np.exp(scaled, out=scaled)
    total = float(np.add.reduce(scaled))
    scaled[best] = 0.0
    return best, 1 / total, (1 - float(np.maximum.reduce(scaled))) / total
