"""A trained router as it is served: matrices and names, NumPy alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.errors import VectorError
from llama_index.tuning.evaluate.search import unit_rows
from llama_index.tuning.routers.lexicon import Lexicon

FloatArray = NDArray[np.float32]


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
    vectors: FloatArray
    ends: list[int]

    def nearest(self, choice: int, vector: FloatArray) -> str | None:
        """The query of that choice nearest to a unit vector."""
        start, stop = self.ends[choice], self.ends[choice + 1]
        if start == stop:
            return None
        return self.queries[start + int(self.vectors[start:stop].dot(vector).argmax())]


@dataclass(frozen=True, eq=False)
class RouterModel:
    """Scores of choices for a query's vector and words.

    Attributes:
        choices: name → description, in the order of the rows.
        weight: shape `(choices, dim)`.
        bias: shape `(choices,)`.
        prototypes: mean direction of each choice's examples, shape `(choices, dim)`.
        descriptions: vectors of the descriptions, shape `(choices, dim)`; zero where there is none.
        kept: training queries, to name the nearest.
        sharpness: logits times this are calibrated.
        threshold: a query whose largest logit is below belongs nowhere.
        margin: below this difference of the two largest probabilities a query is deferred.
        several: a further choice is selected from this probability on.
        by_description: how a choice known by its description alone gets its row.
        by_examples: the same, with a few examples.
        lexicon: the known words; `None` where words are not used.
        words: their weights, shape `(terms, choices)`.
        base_model: name of the embedding model.
        details: what else is worth keeping: verdict, options, scores.
    """

    choices: dict[str, str]
    weight: FloatArray
    bias: FloatArray
    prototypes: FloatArray
    descriptions: FloatArray
    kept: Kept
    sharpness: float
    threshold: float
    margin: float = 0.0
    several: float = 0.3
    by_description: NewChoice = field(default_factory=NewChoice)
    by_examples: NewChoice = field(default_factory=NewChoice)
    lexicon: Lexicon | None = None
    words: FloatArray | None = None
    base_model: str = ""
    details: dict[str, Any] = field(default_factory=dict)

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

    def unit(self, vector: Sequence[float]) -> FloatArray:
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

    def logits(self, vector: FloatArray, text: str) -> FloatArray:
        """One score for each choice, shape `(choices,)`."""
        found: FloatArray = self.weight.dot(vector)
        found += self.bias
        if self.lexicon is not None and self.words is not None:
            rows, values = self.lexicon.features(text)
            if len(rows):
                found += values.dot(self.words.take(rows, axis=0))
        return found

    def new_row(self, direction: FloatArray, rule: NewChoice) -> tuple[FloatArray, float]:
        """Weights and bias of a choice that was not trained, from the direction of its texts."""
        return make_row(self.weight, self.bias, self.prototypes, direction, rule)

    def added(
        self,
        name: str,
        description: str,
        described: FloatArray | None,
        queries: Sequence[str],
        vectors: FloatArray,
    ) -> RouterModel:
        """The same router with one more choice; the others' weights stay.

        Args:
            name: a name that is not taken.
            description: may be empty where there are queries.
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
    weight: FloatArray,
    bias: FloatArray,
    prototypes: FloatArray,
    direction: FloatArray,
    rule: NewChoice,
) -> tuple[FloatArray, float]:
    """The mean row plus a step of the usual length towards what sets the choice apart."""
    middle = weight.mean(axis=0)
    length = float(np.linalg.norm(weight - middle, axis=1).mean())
    apart = unit_rows((direction - prototypes.mean(axis=0))[None])[0]
    row: FloatArray = middle + np.float32(rule.stretch * length) * apart
    return row, float(bias.mean()) + rule.bias


def probabilities(logits: FloatArray, sharpness: float) -> FloatArray:
    """Calibrated probabilities over the last axis."""
    scaled = (logits - logits.max(axis=-1, keepdims=True)) * np.float32(sharpness)
    np.exp(scaled, out=scaled)
    found: FloatArray = scaled / scaled.sum(axis=-1, keepdims=True)
    return found


def top_two(logits: FloatArray, sharpness: float) -> tuple[int, float, float]:
    """The best choice, its probability, and its margin over the next; logits `(choices,)`."""
    # On a path that is walked for every query: ufuncs' `reduce` spares what array methods wrap.
    best = int(logits.argmax())
    scaled = logits - logits[best]
    scaled *= sharpness
    np.exp(scaled, out=scaled)
    total = float(np.add.reduce(scaled))
    scaled[best] = 0.0
    return best, 1 / total, (1 - float(np.maximum.reduce(scaled))) / total
