"""Which stack of parts is served: the gate, step by step, each on top of those below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.app.questions import LEAST
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.gate import MIN_SLICE, decide
from llama_index.tuning.report import Gain

Vectors = Literal["own", "adapted", "corpus_side", "query_encoder", "embedding_model"]
PRIMARY = "ndcg@10"
SEEN, UNSEEN = "documents with other questions", "documents without other questions"

VECTORS: dict[str, str] = {
    "own": "retriever",
    "adapted": "retriever with adapter",
    "corpus_side": "retriever with adapter of both sides",
    "query_encoder": "retriever with tuned query encoder",
    "embedding_model": "retriever with tuned embedding model",
}
"""How questions, or documents too, are embedded; from the third on what is only tried by name."""
ORDERS = {
    "retriever": "",
    "fusion": "BM25 fusion",
    "untuned": "BM25 fusion + untuned re-ranker",
    "tuned": "BM25 fusion + tuned re-ranker",
    "cross_encoder": "BM25 fusion + tuned cross-encoder",
}
"""What can order the nodes, the cheapest first; any other name is a re-ranker of the user's."""


@dataclass(frozen=True)
class Stack:
    """Parts on top of each other.

    Attributes:
        vectors: one of `VECTORS`.
        order: what orders the nodes: one of `ORDERS`, or the name of a re-ranker that was given.
    """

    vectors: Vectors = "own"
    order: str = "retriever"

    def __str__(self) -> str:
        parts = [VECTORS[self.vectors]]
        order = ORDERS.get(self.order, f"BM25 fusion + {self.order}")
        return " + ".join([*parts, *filter(None, [order])])

    @property
    def tuned(self) -> bool:
        """Whether a part of it was learnt here."""
        return self.vectors != "own" or self.order in ("tuned", "cross_encoder")

    @property
    def given(self) -> bool:
        """Whether a re-ranker of the user's orders the nodes."""
        return self.order not in ORDERS


@dataclass(frozen=True)
class Prior:
    """What a step gained on other sets, in nDCG@10, and how many questions that is worth."""

    gain: float
    weight: float


BEFORE = Stack()
FUSION = Stack("own", "fusion")
UNTUNED = Stack("own", "untuned")
ADAPTED = Stack("adapted", "untuned")
TUNED = (ADAPTED, Stack("own", "tuned"), Stack("adapted", "tuned"))
"""Stacks of parts that are learnt here and cost a query no more than the untuned re-ranker."""
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
        luck: whether it may look good by luck, since it learnt from these questions or was chosen
            by them alone.
    """

    name: str
    stack: Stack
    below: Stack
    gain: Gain
    taken: bool
    reason: str
    luck: bool = False


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
    trusted: bool = False,
    taught: bool = False,
    seed: int = 0,
    also: Iterable[str] = (),
) -> list[Step]:
    """The steps, each decided by the gate; the last that is taken is the stack to serve.

    The untuned re-ranker learnt nothing here, so there is no luck in it to guard against: on prose
    it is taken without being shown, unless the questions speak against what it gained elsewhere.
    An adapter that sentences of the documents teach comes next in the same way, whatever the
    number of questions. A tuned part that was measured on what it had not seen, and costs a query
    no more, is taken so on top of one that is shown, and where the questions are many and to be
    trusted; of few questions, or doubtful ones, the first has to be shown.

    Args:
        values: of every stack that was measured.
        seen: whether each question's documents have other questions.
        prose: whether the documents are written in sentences.
        kind: of the questions; stand-ins decide nothing.
        trusted: whether they are real, many, and find their own answers rather than others'.
        taught: whether sentences of the documents teach the adapter, and no wrong answers can.
        seed: of the intervals.
        also: optional parts and re-rankers that were given; the last, since they cost most.
    """
    current, proved = BEFORE, trusted
    steps: list[Step] = []
    for name, change in (*STEPS, *(step for each in also for step in _optional(each))):
        stack = replace(current, **change)  # type: ignore[arg-type]
        if stack not in values or stack == current or _simpler(stack, current):
            continue
        if any(step.stack == stack and step.below == current for step in steps):
            continue
        gain = paired_gain(values[current], values[stack], seed=seed)
        parts = slices(values[current], values[stack], seen, seed)
        verdict = decide(PRIMARY, gain, parts)
        step = Step(name, stack, current, gain, verdict.accepted, verdict.reason)
        if kind == "stand-ins":
            step = replace(step, taken=False, reason=STAND_INS)
        prior = UNTUNED_OVER.get(current) if prose and stack == UNTUNED else None
        if prior and not step.taken and not outweighed(values[current], values[stack], prior):
            step = replace(step, taken=True, reason=f"{ELSEWHERE}; {step.reason}")
        lost = any(part.n >= MIN_SLICE and part.high < 0 for part in parts.values())
        free = stack in TUNED and current.order in ("untuned", "tuned") and not step.taken
        believed = free and proved and kind != "stand-ins" and not lost
        if believed and not outweighed(values[current], values[stack], TUNED_PART):
            step = replace(step, taken=True, reason=f"{TUNED_ELSEWHERE}; {step.reason}")
        proved = proved or (step.taken and stack.tuned)
        told = taught and prose and (current, stack) == (UNTUNED, ADAPTED)
        idle = len(seen) >= LEAST and np.array_equal(values[current], values[stack])
        refuted = idle or lost or outweighed(values[current], values[stack], TAUGHT_BY_SENTENCES)
        if told and not step.taken and (kind == "stand-ins" or not refuted):
            step = replace(step, taken=True, reason=f"{TAUGHT_ELSEWHERE}; {step.reason}")
        steps.append(replace(step, luck=stack.given or (stack.tuned and not told)))
        if step.taken:
            current = stack
    return steps


def _optional(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The steps that a name in `also` stands for."""
    if name in VECTORS:
        told = VECTORS[name].removeprefix("retriever with ")
        yield told, {"vectors": name}
        yield f"{told} and tuned re-ranker", {"vectors": name, "order": "tuned"}
    else:
        yield (
            ORDERS.get(name, name).removeprefix("BM25 fusion + "),
            {"vectors": "own", "order": name},
        )


UNTUNED_OVER = {BEFORE: Prior(0.09, 12), FUSION: Prior(0.028, 40)}
"""Of the untuned re-ranker, on prose.

Leaving out one of six sets, the others say .079 to .106 and 10 to 15 over the app before
(`benchmarks/app_prior.py`), .023 to .034 and 33 to 86 over fusion.
"""
TUNED_PART = Prior(0.012, 40)
"""Of an adapter, or the re-ranker's tuning, on top of the untuned re-ranker or of one another.

Leaving out one of seven sets, the others say .006 to .020, and 19 to 73 questions save where one
set makes all the difference between them; of 135 questions and more neither lost on any set, by
cross-fitting or on test questions (`benchmarks/app_quality.py`).
"""
TAUGHT_BY_SENTENCES = Prior(0.006, 40)
"""Of an adapter that only sentences of the documents taught, on top of the untuned re-ranker.

Without a question it gained on all of six sets of prose, .000 to .019, on average .009, and .007
without the largest (`benchmarks/app_quality.py --alone`); it counts as little as a tuned part.
"""
ELSEWHERE = "it learnt nothing here and gained on every public set of prose"
TUNED_ELSEWHERE = "it gained on every public set, costs a query no more, and is not refuted here"
TAUGHT_ELSEWHERE = (
    "sentences of the documents taught it, and it gained on every public set of prose"
)

STAND_INS = "sentences of the documents cannot weigh words"


def outweighed(below: Float64, above: Float64, prior: Prior) -> bool:
    """Whether the questions speak against a step by more than it gained elsewhere."""
    return bool((above - below).sum() + prior.weight * prior.gain <= 0)


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
