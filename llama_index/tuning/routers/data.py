"""A routing dataset as numbers: vectors, labels, weights, folds, and scores held against labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.routers.linear import Rows
from llama_index.tuning.routers.serving.model import Lexicon, probabilities
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, eq=False)
class RouterData:
    """What a router is trained on.

    Attributes:
        dataset: the texts.
        vectors: of the queries, unit length, shape `(n, dim)`.
        described: of the descriptions, unit length, shape `(choices, dim)`; zero if a choice
            has none.
        owner: example of each label, shape `(labels,)`: one for each choice of an example.
        labels: the choice, shape `(labels,)`.
        weights: shape `(labels,)`; the choices of one example share its weight.
    """

    dataset: RoutingDataset
    vectors: Float32
    described: Float32
    owner: Ints
    labels: Ints
    weights: Float32

    @classmethod
    def of(cls, dataset: RoutingDataset, vectors: Float32, described: Float32) -> RouterData:
        number = {name: row for row, name in enumerate(dataset.choices)}
        found = [
            (row, number[name], example.weight / len(example.choices))
            for row, example in enumerate(dataset.examples)
            for name in example.choices
        ]
        owner, labels, weights = zip(*found, strict=True) if found else ((), (), ())
        return cls(
            dataset,
            vectors,
            described,
            np.array(owner, dtype=np.int64),
            np.array(labels, dtype=np.int64),
            np.array(weights, dtype=np.float32),
        )

    @property
    def choices(self) -> int:
        """How many choices there are."""
        return len(self.dataset.choices)

    @property
    def in_scope(self) -> Ints:
        """Examples that belong somewhere."""
        return np.unique(self.owner)

    @property
    def out_of_scope(self) -> Ints:
        """Examples that belong nowhere."""
        return np.setdiff1d(np.arange(len(self.dataset)), self.owner)

    @property
    def has_description(self) -> Ints:
        """Choices with a description."""
        return np.flatnonzero(np.einsum("ij,ij->i", self.described, self.described) > 0)

    def texts(self, examples: Ints) -> list[str]:
        """The queries of some examples."""
        return [self.dataset.examples[row].query for row in examples]

    def reweighted(self, factors: Float32) -> RouterData:
        """With each label's weight multiplied, shape `(labels,)`."""
        return replace(self, weights=self.weights * factors)

    def subset(self, examples: Ints) -> RouterData:
        """Some of the examples."""
        data = self.dataset.subset(examples.tolist())
        return RouterData.of(data, self.vectors[examples], self.described)


class Embeds(Protocol):
    """What `embed` needs of an `Embedder`."""

    def queries(self, texts: list[str], /) -> Float32: ...

    def documents(self, texts: list[str], /) -> Float32: ...


def embed(dataset: RoutingDataset, embedder: Embeds) -> tuple[Float32, Float32]:
    """Vectors of queries and of descriptions, unit length; each distinct text once."""
    vectors = unit_rows(embedder.queries(dataset.queries))
    described = np.zeros((len(dataset.choices), vectors.shape[1]), dtype=np.float32)
    rows = [row for row, text in enumerate(dataset.choices.values()) if text.strip()]
    if rows:
        texts = [list(dataset.choices.values())[row] for row in rows]
        found = unit_rows(embedder.documents(texts))
        if found.shape[1] != vectors.shape[1]:
            raise DatasetError("the embedding model gives queries and texts different dimensions")
        described[rows] = found
    return vectors, described


def training_rows(
    data: RouterData,
    examples: Ints,
    lexicon: Lexicon | None,
    *,
    balanced: bool,
) -> Rows:
    """The labels of some examples, and each description as one more example of its choice."""
    keep = np.isin(data.owner, examples)
    owner, labels, weights = data.owner[keep], data.labels[keep], data.weights[keep]
    vectors = data.vectors[owner]
    texts = [data.dataset.examples[row].query for row in owner] if lexicon else []
    described = data.has_description
    if len(described):
        vectors = np.concatenate([vectors, data.described[described]])
        labels = np.concatenate([labels, described])
        extra = np.ones(len(described), dtype=np.float32)
        weights = np.concatenate([weights, extra])
        if lexicon:
            choices = list(data.dataset.choices.items())
            texts += [f"{choices[row][0]} {choices[row][1]}" for row in described]
    if balanced:
        totals = np.bincount(labels, weights=weights, minlength=data.choices)
        used = totals > 0
        weights = weights * (weights.sum() / used.sum() / totals[labels])
    words = word_matrix(lexicon, texts) if lexicon else None
    return Rows(vectors, labels, weights.astype(np.float32), words)


def query_rows(data: RouterData, examples: Ints, lexicon: Lexicon | None) -> Rows:
    """Examples as they are scored."""
    words = word_matrix(lexicon, data.texts(examples)) if lexicon else None
    blank = np.zeros(len(examples), dtype=np.int64)
    return Rows(data.vectors[examples], blank, blank.astype(np.float32), words)


def word_matrix(lexicon: Lexicon, texts: list[str]) -> csr_matrix:
    """The texts' word features, shape `(texts, terms)`."""
    from scipy.sparse import csr_matrix

    found = [lexicon.features(text) for text in texts]
    ends = np.cumsum([0, *(len(rows) for rows, _ in found)])
    rows = np.concatenate([rows for rows, _ in found]) if found else np.empty(0, np.int64)
    values = np.concatenate([part for _, part in found]) if found else np.empty(0, np.float32)
    shape = (len(texts), len(lexicon))
    return csr_matrix((values.astype(np.float32), rows, ends), shape=shape)


def stratified_folds(
    data: RouterData, folds: int, seed: int, groups: list[list[int]] | None = None
) -> Ints:
    """Fold of each example, shape `(n,)`: choices spread evenly, groups together.

    Out-of-scope examples are in no fold: -1. By default equal queries are groups.
    """
    draw = np.random.default_rng(seed)
    strata: dict[tuple[str, ...], list[list[int]]] = {}
    for group in groups or data.dataset.groups():
        examples = data.dataset.examples
        strata.setdefault(tuple(sorted(examples[group[0]].choices)), []).append(group)
    found = np.full(len(data.dataset), -1, dtype=np.int64)
    turn = 0
    for names, members in strata.items():
        if not names:
            continue
        for position in draw.permutation(len(members)):
            found[members[position]] = turn % folds
            turn += 1
    inside = np.isin(np.arange(len(found)), data.owner)
    return np.where(inside, found, -1)


MIN_TWINS = 5
"""Examples of a choice from which its nearest ones are kept together."""


def twin_groups(data: RouterData) -> list[list[int]]:
    """Equal queries, and two of a choice that are each other's nearest, as groups.

    Training queries are often written in pairs that differ by a word; what an app is asked is not.
    """
    groups = data.dataset.groups()
    examples = data.dataset.examples
    strata: dict[tuple[str, ...], list[int]] = {}
    for number, group in enumerate(groups):
        strata.setdefault(tuple(sorted(examples[group[0]].choices)), []).append(number)
    found = []
    for names, members in strata.items():
        if not names or len(members) < MIN_TWINS:
            found += [groups[number] for number in members]
            continue
        vectors = data.vectors[[groups[number][0] for number in members]]
        nearest = _nearest_others(vectors)
        for place, number in enumerate(members):
            other = int(nearest[place])
            if nearest[other] != place:
                found.append(groups[number])
            elif place < other:
                found.append([*groups[number], *groups[members[other]]])
    return found


def _nearest_others(vectors: Float32) -> Ints:
    """For each row the nearest of the others, without a matrix of them all, shape `(n,)`."""
    found = np.empty(len(vectors), dtype=np.int64)
    step = max(1, 4_000_000 // len(vectors))
    for start in range(0, len(vectors), step):
        near = vectors[start : start + step] @ vectors.T
        rows = np.arange(len(near))
        near[rows, start + rows] = -np.inf
        found[start : start + step] = near.argmax(axis=1)
    return found


@dataclass(frozen=True, eq=False)
class Targets:
    """The right choices of some examples, in rows of their own.

    Attributes:
        owner: the example of each label, shape `(labels,)`, from 0 to `size - 1`.
        labels: the choice, shape `(labels,)`.
        size: how many examples.
    """

    owner: Ints
    labels: Ints
    size: int

    @classmethod
    def of(cls, data: RouterData, examples: Ints) -> Targets:
        """The targets of `examples`, in their order."""
        place = np.full(len(data.dataset), -1)
        place[examples] = np.arange(len(examples))
        keep = place[data.owner] >= 0
        return cls(place[data.owner[keep]], data.labels[keep], len(examples))

    def losses(self, logits: Float32, sharpness: float) -> NDArray[np.float64]:
        """Log loss of each example; of an example with several choices, their mean."""
        likely = np.maximum(probabilities(logits, sharpness)[self.owner, self.labels], 1e-12)
        total = np.bincount(self.owner, weights=-np.log(likely), minlength=self.size)
        counts = np.bincount(self.owner, minlength=self.size)
        mean: NDArray[np.float64] = total / np.maximum(counts, 1)
        return mean

    def correct(self, predicted: Ints) -> NDArray[np.bool_]:
        """Whether the predicted choice is one of the right ones."""
        right = np.zeros(self.size, dtype=bool)
        right[self.owner[predicted[self.owner] == self.labels]] = True
        return right


def sharpness_of(logits: Float32, targets: Targets) -> float:
    """The factor on the logits that makes their probabilities calibrated (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    if logits.shape[1] < 2:
        return 1.0
    done = minimize_scalar(
        lambda log: float(targets.losses(logits, float(np.exp(log))).mean()),
        bounds=(-3.0, 3.0),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(done.x))


def trust(data: RouterData, examples: Ints, logits: Float32) -> tuple[Float32, float]:
    """How far each label is to be trusted, and the share of labels that look wrong.

    A label looks wrong if held-out models find another choice as likely as they usually find
    that choice for its own examples (confident learning, Northcutt et al. 2021). It then counts
    by how likely it is beside the other choice.

    Args:
        data: the data.
        examples: which examples were scored.
        logits: by models that did not train on them, shape `(len(examples), choices)`.

    Returns:
        A factor for each label of the data, 1 for those of other examples; and the share.
    """
    targets = Targets.of(data, examples)
    chances = probabilities(logits, sharpness_of(logits, targets))
    own = chances[targets.owner, targets.labels]
    totals = np.bincount(targets.labels, weights=own, minlength=data.choices)
    counts = np.bincount(targets.labels, minlength=data.choices)
    usual = np.where(counts > 0, totals / np.maximum(counts, 1), np.inf)
    wanted = np.zeros(chances.shape, dtype=bool)
    wanted[targets.owner, targets.labels] = True
    rival = np.where((chances >= usual) & ~wanted, chances, 0).max(axis=1)[targets.owner]
    wrong = rival > own
    factors = np.ones(len(data.labels), dtype=np.float32)
    inside = np.isin(data.owner, examples)
    factors[inside] = np.where(wrong, np.maximum(own / np.maximum(rival, 1e-9), 0.01), 1)
    return factors, float(wrong.mean())
