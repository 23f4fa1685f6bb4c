"""Cross-fitting: honest scores for every query, and the final weights, from one set of queries.

Each fold's adapter is trained without the fold, which is only ever mapped, never looked at. (Nested
cross-validation: Varma and Simon 2006.) Of the convex solutions the other folds' scores choose one
for each fold. If training is by gradient, when to stop is decided on an inner split of the
training part, after which training is repeated on all of that part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from llama_index.embeddings.adapter.utils import BaseAdapter, LinearLayer
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.fit import Epoch, State, map_vectors, train_adapter
from llama_index.tuning.embeddings.adapter.maps import LinearForm
from llama_index.tuning.embeddings.adapter.modules import linear_form, linear_module
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.solved.choice import (
    CHOICES,
    LINEAR,
    STRENGTHS,
    Choice,
    choose,
)
from llama_index.tuning.embeddings.adapter.solved.linear import Departure, LinearProblem
from llama_index.tuning.embeddings.adapter.solved.memory import Memory, remembering_module
from llama_index.tuning.embeddings.adapter.solved.start import (
    softmax_scale,
    whitened_form,
    whitening,
)
from llama_index.tuning.embeddings.adapter.splits import (
    assign_folds,
    inner_split,
    seen_documents,
    whole_documents,
)
from llama_index.tuning.vectors.search import top_k, unit_rows

FINAL = -1
"""Stands for a fold's number: the training of what is served."""

MakeAdapter = Callable[[], BaseAdapter]
OnEpoch = Callable[[Epoch], None]
CONVEX = 10_000_000
"""Cosines of questions and documents up to which a linear map is solved; above, gradient steps."""
MIN_INNER = 10
"""With fewer queries in the inner split, its score says nothing."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained adapter.

    Attributes:
        adapter: in evaluation mode, on the CPU.
        epochs: passes it was trained for.
        scores: log-likelihood of the inner split at each look, the start first.
    """

    adapter: BaseAdapter
    epochs: int
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The final adapter and what is needed to measure it honestly.

    Attributes:
        adapter: trained on all queries, as the folds' scores chose.
        epochs: passes of each fold.
        fold: fold of each query, shape `(n,)`.
        adapters: each fold's adapter, trained without the fold.
        queries: each query mapped by its fold's adapter, shape `(n, dim)`, not normalised.
        seen: whether a relevant document of the query had queries outside its fold, `(n,)`.
        chosen: what was chosen on the queries, by name.
    """

    adapter: BaseAdapter
    epochs: list[int]
    fold: Ints
    adapters: list[BaseAdapter]
    queries: Float32
    seen: NDArray[np.bool_]
    chosen: dict[str, float]


def cross_fit(
    make: MakeAdapter,
    pairs: Pairs,
    documents: Float32,
    options: AdapterOptions,
    *,
    groups: Sequence[Hashable] | None = None,
    unlabelled: Pairs | None = None,
    mined: Ints | None = None,
    finished: Mapping[int, tuple[State, int]] | None = None,
    device: str = "cpu",
    on_epoch: Callable[[int, Epoch], None] | None = None,
    on_fold: Callable[[int, State, int], None] | None = None,
) -> CrossFit:
    """Train one adapter for each fold, and one on all queries.

    Args:
        make: a new adapter at its starting weights.
        pairs: labelled queries.
        documents: unit vectors, shape `(N, dim)`, in memory or memory-mapped.
        options: how to train.
        groups: queries with equal keys stay in one fold; each query by itself by default.
        unlabelled: sentences with their documents; they teach in every fold.
        mined: nearest documents of each query, `(n, k)`, where the caller has them.
        finished: fold → state and epochs of an earlier, interrupted run with equal arguments.
        device: of torch.
        on_epoch: called with the fold, or `FINAL`, and its state after each pass.
        on_fold: called with each finished fold, its state and its epochs: what `finished` takes.
    """
    keys = list(range(len(pairs))) if groups is None else list(groups)
    fold = assign_folds(keys, options.folds, options.seed)
    seen = seen_documents(pairs, fold)
    first = make()
    convex = is_convex(first, pairs, documents, options)
    if convex:
        limit = min(options.max_documents, options.documents_per_step)
        options = replace(options, max_documents=limit)
    pairs, documents, unlabelled = working_set(pairs, documents, options, unlabelled, mined)
    options = softmax_scale(options, pairs, documents)
    keep = on_fold or (lambda number, state, epochs: None)
    watch = on_epoch or (lambda number, epoch: None)
    done = dict(finished or {})
    if convex:
        new = whole_documents(pairs, keys, options.seed)
        folds = _LinearFolds(first, pairs, documents, options, unlabelled, fold, seen, new)
        return folds.fit(done, watch, keep)
    fits: list[Fitted] = []
    for number in range(int(fold.max()) + 1):
        if number in done:
            fits.append(_restored(make(), *done[number]))
            continue
        rows = np.flatnonzero(fold != number)
        fits.append(
            _fit_by_gradient(
                make,
                pairs.take(rows),
                documents,
                replace(options, seed=options.seed + number),
                [keys[row] for row in rows],
                unlabelled,
                device,
                functools.partial(watch, number),
            )
        )
        keep(number, fits[-1].adapter.state_dict(), fits[-1].epochs)
    queries = np.empty_like(pairs.vectors)
    for number, fitted in enumerate(fits):
        rows = np.flatnonzero(fold == number)
        queries[rows] = map_vectors(fitted.adapter, pairs.vectors[rows])
    epochs = [fitted.epochs for fitted in fits]
    passes = int(np.median(epochs))
    train_adapter(
        first,
        pairs,
        documents,
        options,
        unlabelled=unlabelled,
        epochs=passes,
        device=device,
        on_epoch=functools.partial(watch, FINAL),
    )
    adapters = [fitted.adapter for fitted in fits]
    return CrossFit(first.eval(), epochs, fold, adapters, queries, seen, {"epochs": passes})


def fit(
    make: MakeAdapter,
    pairs: Pairs,
    documents: Float32,
    options: AdapterOptions,
    *,
    groups: Sequence[Hashable] | None = None,
    unlabelled: Pairs | None = None,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train on all `pairs`, as held-out parts of them choose.

    For use by itself where a validation set measures the result. `documents` lie in memory
    (see `working_set`); the other arguments are those of `cross_fit`.
    """
    keys = list(range(len(pairs))) if groups is None else list(groups)
    options = softmax_scale(options, pairs, documents)
    watch = on_epoch or (lambda epoch: None)
    if not is_convex(make(), pairs, documents, options):
        return _fit_by_gradient(make, pairs, documents, options, keys, unlabelled, device, watch)
    found = cross_fit(
        make,
        pairs,
        documents,
        options,
        groups=keys,
        unlabelled=unlabelled,
        on_epoch=lambda number, epoch: watch(epoch),
    )
    return Fitted(found.adapter, int(np.median(found.epochs)))


def is_convex(
    module: BaseAdapter, pairs: Pairs, documents: Float32, options: AdapterOptions
) -> bool:
    """Whether the module is a linear map that `solved/` solves: not too many cosines for it."""
    if type(module) is not LinearLayer or options.solver != "convex":
        return False
    among = min(len(documents), options.max_documents, options.documents_per_step)
    return len(pairs) * max(among, len(np.unique(pairs.flat()[1]))) <= CONVEX


@dataclass(frozen=True, eq=False)
class _Fold:
    """What one part of the queries teaches."""

    centre: LinearForm
    found: Departure
    memory: Memory | None


class _Tried(NamedTuple):
    """What is known of the candidates on queries that they have not learnt; as `choose` has it."""

    scores: Float64
    base: Float64
    seen: NDArray[np.bool_]
    fold: Ints

    def without(self, number: int) -> tuple[Float64, Float64, NDArray[np.bool_]]:
        """Of other folds' queries."""
        others = self.fold != number
        return self.scores[:, others], self.base[others], self.seen[others]


class _LinearFolds:
    """The convex solutions of all folds, and the choice among them."""

    def __init__(
        self,
        module: BaseAdapter,
        pairs: Pairs,
        documents: Float32,
        options: AdapterOptions,
        unlabelled: Pairs | None,
        fold: Ints,
        seen: NDArray[np.bool_],
        new: Ints,
    ) -> None:
        assert isinstance(module, LinearLayer)
        self.fold, self.seen, self.new = fold, seen, new
        self.pairs, self.documents, self.options = pairs, documents, options
        self.given = linear_form(module)
        self.bias = self.given.bias is not None
        self.problem = LinearProblem(pairs, documents, options, unlabelled, bias=self.bias)

    def fit(
        self,
        finished: Mapping[int, tuple[State, int]],
        watch: Callable[[int, Epoch], None],
        keep: Callable[[int, State, int], None],
    ) -> CrossFit:
        count = int(self.fold.max()) + 1
        parts: list[_Fold] = []
        base = np.zeros(len(self.fold))
        choices = CHOICES if self.problem.remembers else LINEAR
        scores = np.zeros((len(choices), len(self.fold)))
        for number in range(count):
            held = np.flatnonzero(self.fold == number)
            part = self._solved(np.flatnonzero(self.fold != number), finished.get(number))
            if number not in finished:
                keep(number, _state(part.found), part.found.steps)
            scores[:, held], base[held] = self.problem.scores(
                held, part.centre, part.found, part.memory, choices
            )
            means = scores[:, held].mean(1)
            made = functools.partial(self._module, part, choices[int(means.argmax())])
            steps = part.found.steps
            watch(number, Epoch(steps, steps, float(means.max()), made, "ndcg@10"))
            parts.append(part)
        tried = self._with_new_documents(scores, base, choices)
        adapters, queries = [], np.empty_like(self.pairs.vectors)
        for number, part in enumerate(parts):
            held = np.flatnonzero(self.fold == number)
            choice = choose(*tried.without(number), choices)
            adapters.append(self._module(part, choice))
            queries[held] = map_vectors(adapters[-1], self.pairs.vectors[held])
        choice = choose(tried.scores, tried.base, tried.seen, choices)
        every = np.arange(len(self.pairs))
        centre = self._centre(every)
        start = np.mean([part.found.at(choice) for part in parts], axis=0)
        found = self.problem.solve(every, centre, choice, start)
        whole = _Fold(centre, found, self.problem.memory(every) if choice.pull else None)
        return CrossFit(
            self._module(whole, choice),
            [part.found.steps for part in parts],
            self.fold,
            adapters,
            queries,
            self.seen,
            {
                "prior strength": STRENGTHS[choice.strength],
                "share of the cautious map": choice.cautious,
                "pull of the memory": choice.pull,
            },
        )

    def _with_new_documents(self, scores: Float64, base: Float64, choices: list[Choice]) -> _Tried:
        """Beside the folds' scores, those of queries all of whose documents are new."""
        if not self.new.size:
            return _Tried(scores, base, self.seen, self.fold)
        part = self._solved(np.setdiff1d(np.arange(len(self.pairs)), self.new), None)
        more, plain = self.problem.scores(self.new, part.centre, part.found, part.memory, choices)
        return _Tried(
            np.concatenate([scores, more], axis=1),
            np.concatenate([base, plain]),
            np.concatenate([self.seen, np.zeros(len(self.new), dtype=bool)]),
            np.concatenate([self.fold, self.fold[self.new]]),
        )

    def _solved(self, rows: Ints, finished: tuple[State, int] | None) -> _Fold:
        """What these queries teach; of an interrupted run, if it had got so far."""
        centre = self._centre(rows)
        found = self.problem.solve(rows, centre) if finished is None else _departure(*finished)
        return _Fold(centre, found, self.problem.memory(rows))

    def _centre(self, rows: Ints) -> LinearForm:
        """The whitened start of these queries; what was given, if that is no identity."""
        identity = self.given.up.size == 0 and not np.any(self.given.bias)
        if not identity or self.options.start == "identity":
            return self.given
        taught = self.pairs.take(rows)
        start = whitening(taught, self.documents, self.options, self.problem.sentences)
        return replace(whitened_form(start), bias=self.given.bias)

    def _module(self, part: _Fold, choice: Choice) -> BaseAdapter:
        form = self.problem.form(part.centre, part.found.at(choice)).compressed()
        if part.memory is None or not choice.pull:
            return linear_module(form, bias=self.bias)
        return remembering_module(form, part.memory, choice.pull)


def _state(found: Departure) -> State:
    """What is kept of a fold; where every document has questions, both maps are one."""
    state = {"strong": torch.from_numpy(found.strong)}
    if found.cautious is not found.strong:
        state["cautious"] = torch.from_numpy(found.cautious)
    return state


def _departure(state: State, steps: int) -> Departure:
    strong = state["strong"].numpy()
    return Departure(steps, strong, state["cautious"].numpy() if "cautious" in state else strong)


def _fit_by_gradient(
    make: MakeAdapter,
    pairs: Pairs,
    documents: Float32,
    options: AdapterOptions,
    keys: Sequence[Hashable],
    unlabelled: Pairs | None,
    device: str,
    watch: OnEpoch,
) -> Fitted:
    """Choose the number of passes on an inner split, then train on all `pairs`."""
    inner = inner_split(pairs, keys, options)
    scores: list[float] = []
    passes = None
    if inner.sum() >= MIN_INNER and inner.sum() < len(pairs):
        chosen = train_adapter(
            make(),
            pairs.take(np.flatnonzero(~inner)),
            documents,
            options,
            unlabelled=unlabelled,
            validation=pairs.take(np.flatnonzero(inner)),
            device=device,
            on_epoch=watch,
        )
        passes, scores = chosen.epochs, chosen.scores
    else:
        options = replace(options, max_steps=max(1, options.max_steps // 4))
    adapter = make()
    done = train_adapter(
        adapter, pairs, documents, options, unlabelled=unlabelled, epochs=passes, device=device
    )
    return Fitted(adapter, done.epochs, scores)


def working_set(
    pairs: Pairs,
    documents: Float32,
    options: AdapterOptions,
    unlabelled: Pairs | None = None,
    mined: Ints | None = None,
) -> tuple[Pairs, Float32, Pairs | None]:
    """Training's documents, as unit vectors in memory, and the pairs renumbered to match.

    All documents up to `options.max_documents`; above, the relevant ones, then those that are
    near the most queries (of as many as can fill the set), then random ones. Relevant documents
    are always kept.
    """
    total, limit = len(documents), options.max_documents
    if total <= limit:
        return pairs, unit_rows(documents), unlabelled
    relevant = [pairs.flat()[1]] + ([unlabelled.flat()[1]] if unlabelled is not None else [])
    chosen = np.unique(np.concatenate(relevant))
    if mined is None and options.mined_negatives:
        asking = np.random.default_rng([options.seed, 4]).permutation(len(pairs))
        asking = asking[: max(1, limit // options.mined_negatives)]
        mined, _ = top_k(pairs.vectors[asking], documents, options.mined_negatives)
    if mined is not None:
        near, counts = np.unique(mined, return_counts=True)
        near = near[np.argsort(-counts, kind="stable")]
        chosen = _filled(chosen, near, limit)
    drawn = np.random.default_rng([options.seed, 2]).permutation(total)
    chosen = np.sort(_filled(chosen, drawn, limit))
    kept = unit_rows(documents[chosen])
    sentences = unlabelled.renumbered(chosen) if unlabelled is not None else None
    return pairs.renumbered(chosen), kept, sentences


def _filled(chosen: Ints, more: Ints, limit: int) -> Ints:
    new = more[~np.isin(more, chosen)]
    return np.concatenate([chosen, new[: max(0, limit - len(chosen))]])


def _restored(adapter: BaseAdapter, state: State, epochs: int) -> Fitted:
    adapter.load_state_dict(state)
    return Fitted(adapter.eval(), epochs)
