"""Every stack on questions that none of its parts had seen, and the choice among them too.

For each fold in turn the adapter, the re-ranker and the choice are made on the other folds, where
each question meets only parts that had not seen it (nested cross-fitting: Varma and Simon 2006);
the fold's own questions then say what that choice is worth. The final parts are those of all
questions; of very many questions one fold is held out for good, and the parts are those of the
rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.app.choose import (
    PRIMARY,
    Stack,
    Step,
    choose,
    served_stack,
)
from llama_index.tuning.app.questions import Questions
from llama_index.tuning.app.search import LEAST, Adapters, Found, LearntAdapter, Search
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
    """

    scores: dict[Stack, RetrievalScores]
    served: RetrievalScores
    chosen: list[Stack]
    steps: list[Step]
    rows: Ints
    adapter: LearntAdapter | None
    rankers: dict[str, LinearRanker] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def stack(self) -> Stack:
        """What all measured questions choose."""
        return served_stack(self.steps)


@dataclass(frozen=True, eq=False)
class _Fold:
    """What was measured on the questions of one fold, and the parts of the other folds."""

    rows: Ints
    scores: dict[Stack, RetrievalScores]
    chosen: Stack
    adapter: LearntAdapter | None
    rankers: dict[str, LinearRanker]


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
        orders: ways to order that may be served; all by default.
        deadline: of `time.perf_counter`, after which nothing more is learnt.
        also: re-rankers to try, by name.
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
        orders: Collection[str] | None = None,
        deadline: float | None = None,
        also: Mapping[str, BaseNodePostprocessor] | None = None,
    ) -> None:
        self.search, self.questions, self.vectors = search, questions, vectors
        tunable = questions.kind != "stand-ins" and len(questions) >= LEAST
        self.adapters = adapters if tunable else None
        self.tunable, self.prose, self.seed, self.ks, self.tell = tunable, prose, seed, ks, tell
        self.orders, self.deadline = orders, deadline
        self.also = dict(also or {})
        self._given: dict[str, list[list[str]]] = {}
        dataset = questions.dataset
        self.ids = list(dataset.queries)
        self.relevant = [dataset.relevant_docs[id_] for id_ in self.ids]

    def measure(self) -> Measured:
        """Fold by fold, then once more on all questions for the final parts."""
        self.tell(f"searching for {len(self.ids)} questions")
        own = self._own()
        for name, reranker in self.also.items():
            self.tell(f"{name} orders the candidates of {len(self.ids)} questions")
            self._given[name] = self.search.ordered(reranker, self.questions.texts, self.vectors)
        if not self.tunable:
            return self._untuned(own)
        if self._late(0):
            return self._untuned(own, ["max_seconds was over before anything could be learnt"])
        folds = self.questions.held_out_folds
        parts: list[_Fold] = []
        notes: list[str] = []
        expected = ""
        for fold in folds:
            self.tell(f"fold {len(parts) + 1} of {len(folds)}: learn, choose, measure{expected}")
            started = time.perf_counter()
            parts.append(self._fold(own, fold))
            spent = time.perf_counter() - started
            left = len(folds) - len(parts) + 1  # the final parts take as long as a fold
            expected = f"; about {spent * left:.0f} s left"
            if len(folds) > 1 and self._late(spent * left):
                parts = parts[:1]
                notes.append("max_seconds: one fold alone is held out, and its parts are served")
                break
        rows = np.concatenate([part.rows for part in parts])
        scores = {stack: _joined([p.scores[stack] for p in parts]) for stack in parts[0].scores}
        served = _joined([part.scores[part.chosen] for part in parts])
        steps = self._choose(scores, rows)
        adapter, rankers = parts[0].adapter, parts[0].rankers
        if len(parts) > 1:
            self.tell(f"learning the final parts from all questions{expected}")
            adapter, rankers = self.parts_of(served_stack(steps))
        chosen = [part.chosen for part in parts]
        return Measured(scores, served, chosen, steps, rows, adapter, rankers, notes)

    def _late(self, seconds: float) -> bool:
        """Whether so many seconds more are too many."""
        return self.deadline is not None and time.perf_counter() + seconds > self.deadline

    def _untuned(self, own: Found, notes: Sequence[str] = ()) -> Measured:
        rows = np.arange(len(self.ids))
        scores = self._scores(rows, self._plain("own", own, rows) | self._ordered(rows))
        steps = self._choose(scores, rows)
        stack = served_stack(steps)
        return Measured(scores, scores[stack], [stack], steps, rows, None, notes=[*notes])

    def _choose(self, scores: dict[Stack, RetrievalScores], rows: Ints) -> list[Step]:
        values = {
            stack: found.values[PRIMARY]
            for stack, found in scores.items()
            if self.orders is None or stack.order in self.orders
        }
        seen = self.questions.seen[rows]
        return choose(
            values,
            seen,
            prose=self.prose,
            kind=self.questions.kind,
            seed=self.seed,
            also=self.also,
        )

    def _fold(self, own: Found, fold: int) -> _Fold:
        """Each stack on a fold that nothing had seen, and which of them the others choose."""
        others = np.flatnonzero(self.questions.fold != fold)
        held_out = np.flatnonzero(self.questions.fold == fold)
        inner, outer = self._ordered(others), self._ordered(held_out)
        rankers: dict[str, LinearRanker] = {}
        adapter = None
        views: list[tuple[str, Found, Found]] = [("own", _take(own, others), _take(own, held_out))]
        if self.adapters is not None and self.vectors is not None:
            adapter = self.adapters.learn(others)
            fresh = adapter.map(self.vectors[held_out])
            views.append(
                ("adapted", self._find(others, adapter.queries), self._find(held_out, fresh))
            )
        for vectors, learnt_from, new in views:
            learnt = learn_ranker(learnt_from.lists, self.questions.fold[others], self.seed)
            rankers[vectors] = learnt.ranker
            inner |= self._plain(vectors, learnt_from, range(len(others)))
            outer |= self._plain(vectors, new, range(len(held_out)))
            tuned = Stack(vectors, "tuned")  # type: ignore[arg-type]
            inner[tuned] = [
                learnt_from.reranked(row, scores) for row, scores in enumerate(learnt.scores)
            ]
            outer[tuned] = [new.ranked(row, learnt.ranker) for row in range(len(held_out))]
        chosen = served_stack(self._choose(self._scores(others, inner), others))
        return _Fold(held_out, self._scores(held_out, outer), chosen, adapter, rankers)

    def _own(self) -> Found:
        """What the app's own vectors find."""
        return self.search.find(self.questions.texts, self.vectors, self.relevant)

    def parts_of(self, stack: Stack) -> tuple[LearntAdapter | None, dict[str, LinearRanker]]:
        """The parts of a stack, learnt from all questions."""
        adapter, view = None, None
        if stack.vectors == "adapted" and self.adapters is not None:
            everything = np.arange(len(self.ids))
            adapter = self.adapters.learn(everything)
            if stack.order == "tuned":
                view = self._find(everything, adapter.queries)
        if stack.order != "tuned":
            return adapter, {}
        view = view or self._own()
        learnt = learn_ranker(view.lists, self.questions.fold, self.seed)
        return adapter, {stack.vectors: learnt.ranker}

    def _find(self, rows: Ints, vectors: Float32) -> Found:
        texts = self.questions.texts
        return self.search.find(
            [texts[row] for row in rows], vectors, [self.relevant[row] for row in rows]
        )

    def _plain(
        self, vectors: str, found: Found, rows: Iterable[int]
    ) -> dict[Stack, list[list[str]]]:
        """The orders that learn nothing."""
        ranker = default_ranker()
        return {
            Stack(vectors, "retriever"): found.retrieved,  # type: ignore[arg-type]
            Stack(vectors, "fusion"): found.fused,  # type: ignore[arg-type]
            Stack(vectors, "untuned"): [found.ranked(row, ranker) for row in rows],  # type: ignore[arg-type]
        }

    def _ordered(self, rows: Ints) -> dict[Stack, list[list[str]]]:
        """The orders of re-rankers that were given, over the app's own vectors."""
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


def _joined(parts: Sequence[RetrievalScores]) -> RetrievalScores:
    ids = [id_ for part in parts for id_ in part.query_ids]
    names = parts[0].values
    return RetrievalScores(
        ids, {name: np.concatenate([part.values[name] for part in parts]) for name in names}
    )
