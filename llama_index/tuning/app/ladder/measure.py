"""Every stack on questions that none of its parts had seen, and the choice among them too.

Each question meets the adapter of a fold that had not seen it. For each fold in turn the re-ranker
and the choice are made on the other folds, from candidates of those adapters (stacked
generalisation: Wolpert 1992); the fold's own questions then say what that choice is worth. Of very
many questions one fold is measured alone. The final parts are those of all questions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from threadpoolctl import threadpool_limits

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.app.ladder.adapters import Adapters, LearntAdapter, OutOfTime
from llama_index.tuning.app.ladder.choose import (
    PRIMARY,
    Stack,
    Step,
    Vectors,
    choose,
    served_stack,
)
from llama_index.tuning.app.ladder.doubts import DOUBTFUL, ENOUGH, FEW, by_chance
from llama_index.tuning.app.ladder.search import Found, Search
from llama_index.tuning.app.parts.learn import CorpusSide, TrainedPart
from llama_index.tuning.app.parts.served import CROSS_ENCODER, ServedPart
from llama_index.tuning.app.questions import Questions
from llama_index.tuning.evaluate.retrieval import RetrievalScores, score_rankings
from llama_index.tuning.rerankers.light.features import LinearRanker
from llama_index.tuning.rerankers.light.fit import (
    FeatureList,
    calibrate,
    choose_freedom,
    fit_rows,
    held_out_scores,
    standardised,
    usual_loss,
)
from llama_index.tuning.rerankers.light.model import default_ranker

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class LearntRanker:
    """A tuned re-ranker, and its questions' scores by rankers that had not seen them."""

    ranker: LinearRanker
    scores: list[Float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Attributes:
        scores: of each stack, for each measured question.
        served: of whatever the other folds chose for each question's fold.
        chosen: the stack that each measured fold's others chose.
        steps: the ladder of all measured questions.
        rows: of the measured questions, among all.
        adapter: the final one, if one was learnt.
        rankers: the final tuned re-rankers, by the vectors that they are for.
        notes: what a reader should know beside.
        part: the optional part that is served, if one is.
    """

    scores: dict[Stack, RetrievalScores]
    served: RetrievalScores
    chosen: list[Stack]
    steps: list[Step]
    rows: Ints
    adapter: LearntAdapter | None
    rankers: dict[str, LinearRanker] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    part: ServedPart | None = None

    @property
    def stack(self) -> Stack:
        """What all measured questions choose."""
        return served_stack(self.steps)


@dataclass(frozen=True, eq=False)
class _Fold:
    """What was measured on the questions of one fold, and what the other folds chose."""

    rows: Ints
    scores: dict[Stack, RetrievalScores]
    chosen: Stack


class Ladder:
    """Measures stacks.

    Args:
        search: of the app.
        questions: what they are measured on.
        vectors: the questions', shape `(n, dim)`; `None` if the retriever has none.
        adapters: learns them; `None` tries none.
        prose: whether the documents are prose.
        seed: of the run.
        ks: cut-offs of the metrics.
        tell: called with what is done.
        cost: milliseconds that each way to order costs; a cross-encoder's is noted here.
        most: milliseconds that may be served; any by default.
        deadline: of `time.perf_counter`, after which nothing more is learnt.
        also: re-rankers to try, by name.
        parts: optional ones to try, the cheapest first.
    """

    def __init__(
        self,
        search: Search,
        questions: Questions,
        vectors: Float32 | None,
        adapters: Adapters | None,
        *,
        prose: bool,
        seed: int,
        ks: Sequence[int],
        tell: Tell,
        cost: dict[str, float] | None = None,
        most: float | None = None,
        deadline: float | None = None,
        also: Mapping[str, BaseNodePostprocessor] | None = None,
        parts: Sequence[CorpusSide | TrainedPart] = (),
    ) -> None:
        self.search, self.questions, self.vectors = search, questions, vectors
        self.adapters, self.prose, self.seed, self.ks, self.tell = adapters, prose, seed, ks, tell
        self.cost, self.most, self.deadline = {} if cost is None else cost, most, deadline
        self.also = {name: each for name, each in (also or {}).items() if self._affordable(name)}
        self.parts = list(parts)
        self.sound = not questions.teach  # wrong answers teach nothing then
        self._given: dict[str, list[list[str]]] = {}
        dataset = questions.dataset
        self.adapter: LearntAdapter | None = None
        self._views: dict[Vectors, Found] = {}
        self.ids = list(dataset.queries)
        self.relevant = [dataset.relevant_docs[id_] for id_ in self.ids]

    def measure(self) -> Measured:
        """Every stack, fold by fold, and the final parts."""
        with threadpool_limits(1):  # the matrices are small: with a busy neighbour, threads wait
            return self._measure()

    def _measure(self) -> Measured:
        self.tell(f"searching for {len(self.ids)} questions")
        self._views["own"] = self._find(self.vectors)
        notes = self._doubts()
        for name, reranker in self.also.items():
            self.tell(f"{name} orders the candidates of {len(self.ids)} questions")
            self._given[name] = self.search.ordered(reranker, self.questions.texts, self.vectors)
        notes += self._adapt()
        if not self.questions.teach:
            return self._untuned(notes)
        notes += self._try_parts()
        if self._late(0):
            return self._untuned(["max_seconds was over before a re-ranker could be learnt"])
        self.tell("re-rankers: learn, choose, measure")
        parts = [self._fold(fold) for fold in self.questions.held_out_folds]
        rows = np.concatenate([part.rows for part in parts])
        scores = {stack: _joined([p.scores[stack] for p in parts]) for stack in parts[0].scores}
        served = _joined([part.scores[part.chosen] for part in parts])
        steps = self._choose(scores, rows)
        chosen = [part.chosen for part in parts]
        rankers = self.rankers_of(served_stack(steps))
        part = self._part_of(served_stack(steps))
        return Measured(scores, served, chosen, steps, rows, self.adapter, rankers, notes, part)

    def _doubts(self) -> list[str]:
        """Whether the answers are those of the questions; what to say if they are not."""
        if self.questions.kind == "stand-ins" or len(self.ids) < FEW:
            return []
        chance = by_chance(self._views["own"].fused, self.relevant, self.seed)
        if chance <= DOUBTFUL:
            self.sound = True
            return []
        return [
            "the questions find their own answers hardly more often than other questions' "
            f"(p = {chance:.2f}): are questions and answers paired as they should be?"
        ]

    def _adapt(self) -> list[str]:
        """What each question finds by an adapter that had not seen it; what could not be done."""
        if self.adapters is None or self.vectors is None:
            return []
        try:
            if self.questions.teach:
                self.adapter = self.adapters.learn(self.questions.fold, self._watch())
            else:
                self.adapter = self.adapters.alone(self.vectors, self._watch())
        except OutOfTime:
            return ["max_seconds: no adapter could be learnt in time"]
        self._views["adapted"] = self._find(self.adapter.queries)
        return []

    def _try_parts(self) -> list[str]:
        """What optional parts find that had not seen the question; what could not be done."""
        notes = []
        for part in self.parts:
            if self._late(0):
                notes.append(f"max_seconds was over before {part.name} could be learnt")
                continue
            self.tell(f"{part.name}: learns and is measured on what it has not seen")
            if part.name == CROSS_ENCODER and isinstance(part, TrainedPart):
                self._given[part.name], self.cost[part.name] = part.rankings()
                continue
            places: dict[int, tuple[Found, int]] = {}
            for held in part.held_out():
                rows = held.rows.tolist()
                texts = [self.questions.texts[row] for row in rows]
                relevant = [self.relevant[row] for row in rows]
                found = self.search.find(texts, held.queries, relevant, held.documents)
                places |= {row: (found, place) for place, row in enumerate(rows)}
            self._views[cast(Vectors, part.name)] = _gathered(places)
        return notes

    def _part_of(self, stack: Stack) -> ServedPart | None:
        """The optional part of a stack, learnt from all questions."""
        for part in self.parts:
            if part.name in (stack.vectors, stack.order):
                self.tell(f"{part.name}: learns from all questions")
                return part.served()
        return None

    def _affordable(self, order: str) -> bool:
        return self.most is None or self.cost.get(order, 0.0) <= self.most

    def _watch(self) -> Callable[[int, int], None]:
        """Called with how many folds an adapter has and will have; ends what would be too late."""
        first: list[tuple[int, float]] = []

        def watch(done: int, folds: int) -> None:
            first.append((done, time.perf_counter()))
            earlier, started = first[0]
            left, said = 0.0, ""
            if done > earlier:  # the final adapter takes no longer than a fold
                spent = time.perf_counter() - started
                left = spent / (done - earlier) * (folds - done + 1)
                said = f"; about {left:.0f} s left"
            self.tell(f"adapter: {done} of {folds} folds{said}")
            if self._late(left):
                raise OutOfTime

        return watch

    def _late(self, seconds: float) -> bool:
        """Whether so many seconds more are too many."""
        return self.deadline is not None and time.perf_counter() + seconds > self.deadline

    def _untuned(self, notes: Sequence[str] = ()) -> Measured:
        rows = np.arange(len(self.ids))
        orders = self._ordered(rows)
        for vectors, view in self._views.items():
            if vectors in ("own", "adapted"):  # what else was tried has nothing to serve it yet
                orders |= self._plain(vectors, view, rows)
        scores = self._scores(rows, orders)
        steps = self._choose(scores, rows)
        stack = served_stack(steps)
        return Measured(scores, scores[stack], [stack], steps, rows, self.adapter, notes=[*notes])

    def _choose(self, scores: dict[Stack, RetrievalScores], rows: Ints) -> list[Step]:
        values = {
            stack: found.values[PRIMARY]
            for stack, found in scores.items()
            if self._affordable(stack.order)
        }
        seen = self.questions.seen[rows]
        return choose(
            values,
            seen,
            prose=self.prose,
            kind=self.questions.kind,
            trusted=self.sound and len(self.ids) >= ENOUGH,
            taught=self.sound and self._by_sentences,
            seed=self.seed,
            also=[*(part.name for part in self.parts), *self.also],
        )

    @property
    def _by_sentences(self) -> bool:
        """Whether sentences of the documents teach the adapter, alone or beside the questions."""
        alone = not self.questions.teach
        return self.adapters is not None and (alone or self.adapters.sentences is not None)

    def _fold(self, fold: int) -> _Fold:
        """Each stack on a fold that nothing had seen, and which of them the others choose."""
        others = np.flatnonzero(self.questions.fold != fold)
        held_out = np.flatnonzero(self.questions.fold == fold)
        inner, outer = self._ordered(others), self._ordered(held_out)
        for vectors, view in self._views.items():
            learnt_from, new = _take(view, others), _take(view, held_out)
            learnt = learn_ranker(learnt_from.lists, self.questions.fold[others], self.seed)
            inner |= self._plain(vectors, learnt_from, range(len(others)))
            outer |= self._plain(vectors, new, range(len(held_out)))
            tuned = Stack(vectors, "tuned")
            inner[tuned] = [
                learnt_from.reranked(row, scores) for row, scores in enumerate(learnt.scores)
            ]
            outer[tuned] = [new.ranked(row, learnt.ranker) for row in range(len(held_out))]
        chosen = served_stack(self._choose(self._scores(others, inner), others))
        return _Fold(held_out, self._scores(held_out, outer), chosen)

    def rankers_of(self, stack: Stack) -> dict[str, LinearRanker]:
        """The tuned re-ranker of a stack, if it has one, learnt from all questions."""
        if stack.order != "tuned":
            return {}
        lists = self._views[stack.vectors].lists
        return {stack.vectors: learn_ranker(lists, self.questions.fold, self.seed).ranker}

    def _find(self, vectors: Float32 | None) -> Found:
        return self.search.find(self.questions.texts, vectors, self.relevant)

    def _plain(
        self, vectors: Vectors, found: Found, rows: Iterable[int]
    ) -> dict[Stack, list[list[str]]]:
        """The orders that learn nothing."""
        ranker = default_ranker()
        return {
            Stack(vectors, "retriever"): found.retrieved,
            Stack(vectors, "fusion"): found.fused,
            Stack(vectors, "untuned"): [found.ranked(row, ranker) for row in rows],
        }

    def _ordered(self, rows: Ints) -> dict[Stack, list[list[str]]]:
        """The orders of re-rankers beside the light one, over the app's own vectors."""
        return {
            Stack("own", name): [found[row] for row in rows.tolist()]
            for name, found in self._given.items()
        }

    def _scores(
        self, rows: Ints, rankings: dict[Stack, list[list[str]]]
    ) -> dict[Stack, RetrievalScores]:
        ids = [self.ids[row] for row in rows]
        relevant = [self.relevant[row] for row in rows]
        return {
            stack: score_rankings(ids, found, relevant, self.ks)
            for stack, found in rankings.items()
        }


def learn_ranker(lists: Sequence[FeatureList], fold: Ints, seed: int) -> LearntRanker:
    """A light re-ranker from the package's weights, and each list's scores without its fold."""
    fold = np.unique(fold, return_inverse=True)[1]
    prior = standardised(lists, default_ranker())
    loss = usual_loss(lists)
    freedom = choose_freedom(lists, fold, prior, loss)
    scores = held_out_scores(lists, fold, prior, loss, freedom)
    ranker = fit_rows(lists, range(len(lists)), prior, loss, freedom)
    scored = list(zip(scores, [item.relevance for item in lists], strict=True))
    return LearntRanker(calibrate(ranker, scored), scores)


def _take(found: Found, rows: Ints) -> Found:
    return Found(
        [found.retrieved[row] for row in rows],
        [found.fused[row] for row in rows],
        [found.lists[row] for row in rows],
    )


def _gathered(places: Mapping[int, tuple[Found, int]]) -> Found:
    """One list of questions, each from where it was measured."""
    order = [places[row] for row in range(len(places))]
    return Found(
        [found.retrieved[place] for found, place in order],
        [found.fused[place] for found, place in order],
        [found.lists[place] for found, place in order],
    )


def _joined(parts: Sequence[RetrievalScores]) -> RetrievalScores:
    ids = [id_ for part in parts for id_ in part.query_ids]
    names = parts[0].values
    return RetrievalScores(
        ids, {name: np.concatenate([part.values[name] for part in parts]) for name in names}
    )
