"""Judged answers as a cross-encoder reads them: long ones in several windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.text.segmentation import sentences

Pair = tuple[str, str]


LEAST = 24
"""Tokens of a pair, under which nothing can be judged."""


@dataclass(frozen=True)
class Reading:
    """An item, or one order of a pair of responses, as the encoder reads it.

    Attributes:
        parts: for each part of the response its windows: (query and some evidence, response).
        evidence: the evidence of each of these alone.
    """

    parts: list[list[Pair]]
    evidence: list[list[str]]


@dataclass(frozen=True)
class Reader:
    """Splits queries, evidence (contexts, reference) and responses to an encoder's length.

    The response may take half of the tokens, the query a quarter; evidence has what they leave.
    Evidence is split between sentences; so is a response that is too long, while each of a pair of
    responses loses its middle, since both must be read together.

    Attributes:
        count: tokens of a text.
        limit: tokens of a pair, without special ones.
        separator: between two responses.
        query: whether to read the query.
        contexts: whether to read contexts.
        reference: whether to read the right answer.

    Example:
        >>> reader = Reader(lambda text: len(text.split()), limit=8)
        >>> reader.windows(["One two three. Four five.", "Six."], 4)
        ['One two three.', 'Four five. Six.']
    """

    count: Callable[[str], int]
    limit: int
    separator: str = "|"
    query: bool = True
    contexts: bool = True
    reference: bool = True

    def reading(self, item: Any, *, swapped: bool = False) -> Reading:
        """How a judgment, or an object with the same fields, is read.

        Args:
            item: what is judged.
            swapped: the second response of a pair first.
        """
        query = self.cut(self._query(item), self.limit // 4)
        texts = [item.reference] if self.reference and item.reference else []
        texts += (item.contexts or ()) if self.contexts else ()
        if item.second_response is None:
            fits = self.count(item.response) <= self.limit // 2
            parts = [item.response] if fits else self.windows([item.response], self.limit // 2)
        else:
            both = item.response, item.second_response
            parts = [self._joined(*(reversed(both) if swapped else both))]
        evidence = [
            self.windows(texts, self.limit - self.count(query) - self.count(part)) for part in parts
        ]
        pairs = [
            [("\n".join(filter(None, (query, text))), part) for text in windows]
            for part, windows in zip(parts, evidence, strict=True)
        ]
        return Reading(pairs, evidence)

    def windows(self, texts: Iterable[str], budget: int) -> list[str]:
        """Whole sentences of the texts, in order, as many together as fit; at least one window."""
        found: list[list[str]] = [[]]
        used = 0
        for text in texts:
            for piece in (p for s in sentences(text) for p in self.pieces(s, budget)):
                size = self.count(piece)
                if found[-1] and used + size > budget:
                    found.append([])
                    used = 0
                found[-1].append(piece)
                used += size
        return [" ".join(pieces) for pieces in found]

    def pieces(self, text: str, budget: int) -> list[str]:
        """The text; if it does not fit, its halves, cut at the space nearest the middle."""
        if self.count(text) <= budget or len(text) < 2:
            return [text]
        middle = len(text) // 2
        spaces = [text.rfind(" ", 1, middle), text.find(" ", middle, len(text) - 1)]
        at = min((s for s in spaces if s > 0), key=lambda s: abs(s - middle), default=middle)
        halves = text[:at].strip(), text[at:].strip()
        return [piece for half in halves for piece in self.pieces(half, budget)]

    def cut(self, text: str, budget: int) -> str:
        """The text; if it does not fit, its beginning and its end (Sun et al. 2019)."""
        if self.count(text) <= budget:
            return text
        fits, too_much = 0, (len(text) + 1) // 2
        while too_much - fits > 1:
            middle = (fits + too_much) // 2
            if self.count(_ends(text, middle)) <= budget:
                fits = middle
            else:
                too_much = middle
        return _ends(text, fits) if fits else ""

    def is_cut(self, item: Any) -> bool:
        """Whether a part of the query, or of a pair's responses, is left out."""
        if self.count(self._query(item)) > self.limit // 4:
            return True
        if item.second_response is None:
            return False
        both = item.response, item.second_response
        return sum(map(self.count, both)) > self._room()

    def _query(self, item: Any) -> str:
        return (item.query or "").strip() if self.query else ""

    def _room(self) -> int:
        """Tokens for both of a pair's responses."""
        return self.limit // 2 - self.count(self.separator)

    def _joined(self, first: str, second: str) -> str:
        room = self._room()
        one, other = self.count(first), self.count(second)
        if one + other > room:  # what one of them leaves of its half, the other may have
            half = room // 2
            first = self.cut(first, max(half, room - other))
            second = self.cut(second, max(half, room - one))
        return f"{first} {self.separator} {second}"


def scores_of(
    readings: Sequence[Reading], score: Callable[[list[Pair]], NDArray[Any]]
) -> NDArray[Any]:
    """One score a reading: the mean over its response's parts of the largest over the windows.

    A part is supported if any window supports it; a response as far as its parts are. In the
    comparison of Laban et al. (2022, SummaC), the largest over the document and the mean over the
    summary were the best pair of operators.

    Args:
        readings: what is to be scored.
        score: shape `(p,)` for p pairs; called once.

    Returns:
        Shape `(n,)`.
    """
    pairs = [pair for reading in readings for part in reading.parts for pair in part]
    given = iter(np.asarray(score(pairs), dtype=np.float64).tolist())
    return np.array(
        [
            np.mean([max(next(given) for _ in part) for part in reading.parts])
            for reading in readings
        ],
        dtype=np.float64,
    )


def _ends(text: str, size: int) -> str:
    """The first and the last `size` characters; broken words are left out."""
    if not size:
        return ""
    first, last = text[:size], text[-size:]
    if " " in first and " " in last:
        first, last = first.rsplit(" ", 1)[0], last.split(" ", 1)[1]
    return f"{first} … {last}"
