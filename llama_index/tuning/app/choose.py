"""Which stack of parts is served: the gate, step by step, each on top of those below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.gate import decide
from llama_index.tuning.report import Gain

Vectors = Literal["own", "adapted"]
PRIMARY = "ndcg@10"
SEEN, UNSEEN = "documents with other questions", "documents without other questions"

ORDERS = {
    "retriever": "",
    "fusion": "BM25 fusion",
    "untuned": "BM25 fusion + untuned re-ranker",
    "tuned": "BM25 fusion + tuned re-ranker",
}
"""What can order the nodes, the cheapest first; any other name is a re-ranker of the user's."""


@dataclass(frozen=True)
class Stack:
    """Parts on top of each other.

    Attributes:
        vectors: whether questions go through an adapter.
        order: what orders the nodes: one of `ORDERS`, or the name of a re-ranker that was given.
    """

    vectors: Vectors = "own"
    order: str = "retriever"

    def __str__(self) -> str:
        parts = ["retriever" if self.vectors == "own" else "retriever with adapter"]
        order = ORDERS.get(self.order, f"BM25 fusion + {self.order}")
        return " + ".join([*parts, *filter(None, [order])])

    @property
    def tuned(self) -> bool:
        """Whether a part of it was learnt from the questions."""
        return self.vectors == "adapted" or self.order == "tuned"

    @property
    def given(self) -> bool:
        """Whether a re-ranker of the user's orders the nodes."""
        return self.order not in ORDERS


BEFORE = Stack()
UNTUNED = Stack("own", "untuned")
Values = Mapping[Stack, Float64]
"""One number for each question, by stack."""
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Step:
    """One step of the ladder, on top of what was taken below it.

    Attributes:
        name: what is added.
        stack: with it.
        below: without it.
        gain: of the one over the other.
        taken: whether it is kept.
        reason: why.
    """

    name: str
    stack: Stack
    below: Stack
    gain: Gain
    taken: bool
    reason: str


STEPS: tuple[tuple[str, dict[str, str]], ...] = (
    ("BM25 fusion", {"order": "fusion"}),
    ("untuned re-ranker", {"order": "untuned"}),
    ("adapter", {"vectors": "adapted"}),
    ("tuned re-ranker", {"order": "tuned"}),
    ("adapter", {"vectors": "adapted"}),
    ("adapter and tuned re-ranker", {"vectors": "adapted", "order": "tuned"}),
)


def choose(
    values: Values,
    seen: Mask,
    *,
    prose: bool,
    kind: str = "questions",
    seed: int = 0,
    also: Iterable[str] = (),
) -> list[Step]:
    """The steps, each decided by the gate; the last that is taken is the stack to serve.

    The untuned re-ranker learnt nothing here, so there is no luck in it to guard against: on prose
    it is taken without being shown, unless the questions speak against what it gained elsewhere.

    Args:
        values: of every stack that was measured.
        seen: whether each question's documents have other questions.
        prose: whether the documents are written in sentences.
        kind: of the questions; stand-ins decide nothing.
        seed: of the intervals.
        also: names of re-rankers that were given; the last, since they cost most.
    """
    current = BEFORE
    steps: list[Step] = []
    for name, change in (*STEPS, *((name, {"vectors": "own", "order": name}) for name in also)):
        stack = replace(current, **change)  # type: ignore[arg-type]
        if stack not in values or stack == current or _simpler(stack, current):
            continue
        if any(step.stack == stack and step.below == current for step in steps):
            continue
        gain = paired_gain(values[current], values[stack], seed=seed)
        verdict = decide(PRIMARY, gain, slices(values[current], values[stack], seen, seed))
        step = Step(name, stack, current, gain, verdict.accepted, verdict.reason)
        if kind == "stand-ins":
            step = replace(step, taken=False, reason=STAND_INS)
        alone = stack == UNTUNED and current == BEFORE and not step.taken
        if alone and prose and not refuted(values):
            step = replace(step, taken=True, reason=f"{ELSEWHERE}; {step.reason}")
        steps.append(step)
        if step.taken:
            current = stack
    return steps


PRIOR_GAIN, PRIOR_WEIGHT = 0.09, 12
"""What the untuned re-ranker gains on documents of prose, and how many questions that is worth.

Leaving out one of six sets, the others say .079 to .106 and 10 to 15 (`benchmarks/app_prior.py`).
"""
ELSEWHERE = "it learnt nothing here and gained on every public set of prose"

STAND_INS = "sentences of the documents cannot weigh words"


def refuted(values: Values) -> bool:
    """Whether the questions outweigh what the untuned re-ranker gained elsewhere."""
    difference = values[UNTUNED] - values[BEFORE]
    return bool(difference.sum() + PRIOR_WEIGHT * PRIOR_GAIN <= 0)


def served_stack(steps: Sequence[Step]) -> Stack:
    """The stack of the last step that was taken."""
    return next((step.stack for step in reversed(steps) if step.taken), BEFORE)


def slices(below: Float64, above: Float64, seen: Mask, seed: int = 0) -> dict[str, Gain]:
    """The gains that must not be losses: of documents that were learnt from, and of new ones."""
    if seen.all() or not seen.any():
        return {}
    return {
        name: paired_gain(below[mask], above[mask], seed=seed)
        for name, mask in ((SEEN, seen), (UNSEEN, ~seen))
    }


def _simpler(one: Stack, other: Stack) -> bool:
    orders = list(ORDERS)
    if one.given or other.given or one.vectors != other.vectors:
        return False
    return orders.index(one.order) < orders.index(other.order)
