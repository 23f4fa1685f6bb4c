"""One line of each dataset: what a dataset holds many of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llama_index.tuning.text.words import normalise


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """One verdict on one answer.

    Attributes:
        query: the question.
        response: the answer that was judged; of a pair, the first.
        contexts: the passages that the answer was made from.
        reference: the right answer, where one was given.
        second_response: of a pair, the second answer.
        score: the verdict as a number, on the judge's own scale.
        passing: the verdict as yes or no.
        feedback: the judge's reasons.
        source: `"human"`, or the model that judged.
        judge: the evaluator's class.
        weight: how much the verdict counts, above 0.
        invalid: whether the judge was asked and gave no verdict: its reply can't be read, or
            turned with the order of a pair. Nothing is learnt from it; where the judge is
            compared with people, it counts as wrong.
    """

    query: str | None = None
    response: str | None = None
    contexts: Sequence[str] | None = None
    reference: str | None = None
    second_response: str | None = None
    score: float | None = None
    passing: bool | None = None
    feedback: str | None = None
    source: str = ""
    judge: str | None = None
    weight: float = 1.0
    invalid: bool = False


@dataclass(frozen=True)
class RoutingExample:
    """A query and where it belongs.

    Attributes:
        query: the user's question.
        choices: names of the choices that it belongs to; several where all of them are wanted,
            none where it is out of scope.
        weight: how much it counts in training; 1 is ordinary.
    """

    query: str
    choices: tuple[str, ...]
    weight: float = 1.0


Message = dict[str, Any]


Tool = dict[str, Any]


@dataclass(frozen=True)
class ChatExample:
    """One conversation, its last message the assistant's.

    Attributes:
        messages: in OpenAI's shape (role, content, tool_calls, tool_call_id, name). An
            assistant's message may have a `weight`: 0 leaves it out of the loss, 1 is the
            default. `thinking` may hold a model's thoughts; no format can write them, so they
            are refused there until `without_thinking()` takes them out.
        tools: function schemas in OpenAI's shape.
        parallel_tool_calls: whether several calls in one turn were allowed; None: not said.
        rejected: for preferences, the assistant's message that is worse than the last one.
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    parallel_tool_calls: bool | None = None
    rejected: Message | None = None


@dataclass(frozen=True)
class Candidate:
    """A text that was found for a query.

    Attributes:
        node_id: the node's id.
        text: what the re-ranker reads.
        score: how relevant it is, from 0 (not at all); 1, or a grade, or a teacher's score. Only
            the proportions of grades count in nDCG.
        retrieval_score: what the retriever gave it; `None` where the retriever did not find it.
        metadata: the node's metadata, for features that are made of it.
    """

    node_id: str
    text: str
    score: float
    retrieval_score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RelevanceList:
    """A query's candidates, in the order in which they were found.

    Attributes:
        query_id: the query's id.
        query: its text.
        candidates: each node once; none where the retriever came back with nothing.
        missed: relevant nodes that are not among the candidates, id → how relevant; they count
            against every ranking of this list. A sequence of ids means 1 for each.
    """

    query_id: str
    query: str
    candidates: Sequence[Candidate]
    missed: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: Any = self.missed
        if not isinstance(given, Mapping):
            object.__setattr__(self, "missed", dict.fromkeys(given, 1.0))

    @property
    def grades(self) -> dict[str, float]:
        """How relevant each relevant node is, found or missed, by its id."""
        return {**{c.node_id: c.score for c in self.candidates if c.score > 0}, **self.missed}

    @property
    def relevant(self) -> list[str]:
        """Ids of all relevant nodes, found or missed."""
        return [*self.grades]

    def top(self, depth: int) -> RelevanceList:
        """The first `depth` candidates; relevant ones behind them become missed."""
        lost = {c.node_id: c.score for c in self.candidates[depth:] if c.score > 0}
        return RelevanceList(
            self.query_id, self.query, self.candidates[:depth], {**self.missed, **lost}
        )


class RelevancePair(NamedTuple):
    """One candidate of one query."""

    query: str
    text: str
    score: float
    node_id: str


Parts = tuple[dict[str, str], dict[str, str], dict[str, list[str]]]
"""Queries, corpus and relevant documents of a retrieval dataset, unchecked."""


def query_key(judgment: Judgment) -> tuple[str, ...]:
    """What keeps verdicts together: the query; without one the contexts, else the answers."""
    if judgment.query and judgment.query.strip():
        return ("query", normalise(judgment.query))
    if judgment.contexts:
        return ("contexts", *map(normalise, judgment.contexts))
    answers = (judgment.response or "", judgment.second_response or "")
    return ("answers", *sorted(map(normalise, answers)))


Item = tuple[Hashable, ...]


Verdict = str | float


def item_of(judgment: Judgment) -> Item:
    """What is judged; a pair is the same in either order."""
    answers: Sequence[str] = (judgment.response or "",)
    if judgment.second_response is not None:
        answers = sorted((judgment.response or "", judgment.second_response))
    return (judgment.query, tuple(judgment.contexts or ()), *answers)


def verdict_of(judgment: Judgment) -> Verdict:
    """A pair's better answer by its place in `item_of`, else yes or no, else the score.

    No verdict at all is equal to nobody's.
    """
    if judgment.invalid:
        return f"no verdict of {judgment.source}"
    if judgment.second_response is not None:
        first = _share_of_first(judgment)
        if first == 0.5:
            return "tie"
        better_first = (first > 0.5) != is_turned(judgment)
        return "first" if better_first else "second"
    if judgment.passing is not None:
        return "pass" if judgment.passing else "fail"
    assert judgment.score is not None
    return float(judgment.score)


def _share_of_first(judgment: Judgment) -> float:
    if judgment.score is not None:
        return judgment.score
    return float(bool(judgment.passing))


def is_turned(judgment: Judgment) -> bool:
    """Whether a pair stands in the other order than in `item_of`."""
    return (judgment.response or "") > (judgment.second_response or "")
