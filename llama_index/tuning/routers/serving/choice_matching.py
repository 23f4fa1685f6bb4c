"""The choices that a caller offers, matched with those that a router knows.

The parts of a query that may each ask for something else.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from llama_index.core.tools.types import ToolMetadata
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32
from llama_index.tuning.routers.serving.model import RouterModel
from llama_index.tuning.text.segmentation import clauses
from llama_index.tuning.vectors.search import unit_rows

OTHER_MEANING = 0.5
"""A description with a smaller cosine to the one in training is called out."""
KEPT = 32
"""Sets of choices that are kept matched."""

Key = tuple[tuple[str | None, str], ...]


@dataclass(frozen=True, eq=False)
class OfferedChoices:
    """Some choices in the caller's order, ready to be scored.

    Attributes:
        names: as they are called in answers.
        rows: row of each choice in the router; -1 for one scored by its description.
        new: positions of the latter.
        weight: their weights, shape `(new, dim)`.
        bias: their biases, shape `(new,)`.
        plain: whether the choices are exactly the router's own, in its order.
        reworded: known by name, but with a description that says something else.
    """

    names: list[str]
    rows: NDArray[np.int64]
    new: NDArray[np.int64]
    weight: Float32
    bias: Float32
    plain: bool
    reworded: tuple[str, ...] = ()

    def scores(self, model: RouterModel, vector: Float32, text: str) -> Float32:
        """One logit for each choice offered."""
        found = model.logits(vector, text)
        if self.plain:
            return found
        found = found[self.rows]
        if len(self.new):
            found[self.new] = self.weight @ vector + self.bias
        return found


class ChoiceMatcher:
    """A router, and what was offered to it lately.

    It is replaced as a whole when the router's choices change, so that a call under way in another
    thread goes on with the rows it was matched to.
    """

    def __init__(self, model: RouterModel) -> None:
        self.model, self.own = model, own_offer(model)
        self._made: OrderedDict[Key, OfferedChoices] = OrderedDict()

    def get(self, key: Key) -> OfferedChoices | None:
        """The offer of these choices, if it was made before."""
        return self._made.get(key)

    def make(self, key: Key, vectors: Mapping[str, Float32]) -> OfferedChoices:
        """The offer, with `vectors` for what `texts_to_embed` names."""
        found = self._made[key] = make_offer(self.model, key, vectors)
        while len(self._made) > KEPT:
            self._made.popitem(last=False)
        return found


def key_of(choices: Sequence[ToolMetadata]) -> Key:
    """What tells two offers apart."""
    return tuple([(choice.name, choice.description or "") for choice in choices])


def own_offer(model: RouterModel) -> OfferedChoices:
    """The router's own choices."""
    rows = np.arange(len(model.choices))
    none = np.empty(0, np.int64)
    blank = np.empty((0, model.dim), np.float32)
    return OfferedChoices(list(model.choices), rows, none, blank, none.astype(np.float32), True)


def texts_to_embed(model: RouterModel, key: Key) -> list[str]:
    """Descriptions that the router has no vector for."""
    rows = _rows(model, key)
    return list(
        dict.fromkeys(
            _text(name, text)
            for (name, text), row in zip(key, rows, strict=True)
            if row < 0 or not _unchanged(model, row, text)
        )
    )


def make_offer(model: RouterModel, key: Key, vectors: Mapping[str, Float32]) -> OfferedChoices:
    """The offer, with `vectors` for what `texts_to_embed` names.

    A known name decides, whatever its description says now: what was learnt from examples is
    worth more than a sentence. A description that says something else is noted.
    """
    if not key:
        raise ValueError("choices must hold at least one choice, got none")
    rows = _rows(model, key)
    new, made, reworded = [], [], []
    names = list(model.choices)
    for position, ((name, text), row) in enumerate(zip(key, rows, strict=True)):
        if row >= 0 and _unchanged(model, row, text):
            continue
        vector = unit_rows(vectors[_text(name, text)][None])[0]
        if row >= 0:
            if _says_something_else(model, row, vector):
                reworded.append(names[row])
            continue
        rows[position] = -1
        new.append(position)
        made.append(model.new_row(vector, model.by_description))
    called = [
        names[row] if row >= 0 else (name or text)
        for row, (name, text) in zip(rows, key, strict=True)
    ]
    blank = np.empty((0, model.dim), np.float32)
    return OfferedChoices(
        called,
        np.array(rows, dtype=np.int64),
        np.array(new, dtype=np.int64),
        np.stack([row for row, _ in made]) if made else blank,
        np.array([bias for _, bias in made], dtype=np.float32),
        rows == list(range(len(names))),
        tuple(reworded),
    )


def _says_something_else(model: RouterModel, row: int, vector: Float32) -> bool:
    """Whether a description is far from its choice's in training, or nearer to another's."""
    near = model.descriptions @ vector
    return bool(near[row] < OTHER_MEANING or near.argmax() != row)


def _rows(model: RouterModel, key: Key) -> list[int]:
    """By name; if a name is missing, unknown or offered twice, by the very description."""
    numbers = {name: row for row, name in enumerate(model.choices)}
    counts = Counter(name for name, _ in key)
    twins = Counter(text for text in model.choices.values() if text)
    by_text = {
        text: row for row, text in enumerate(model.choices.values()) if text and twins[text] == 1
    }
    found = []
    for name, text in key:
        if name in numbers and counts[name] == 1:
            found.append(numbers[name])
        elif text in numbers and name is None:
            found.append(numbers[text])
        else:
            found.append(by_text.get(text, -1))
    return found


def _text(name: str | None, description: str) -> str:
    text = description.strip() or (name or "").strip()
    if not text:
        raise ValueError("a choice has neither a name nor a description")
    return text


def _unchanged(model: RouterModel, row: int, described: str) -> bool:
    # An empty description, or the name in its place, says nothing new about a trained choice.
    name, known = list(model.choices.items())[row]
    return described.split() in ([], name.split(), known.split()) or not known.strip()


__all__ = ["clauses"]
