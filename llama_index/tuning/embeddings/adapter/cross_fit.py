"""Cross-fitting: honest scores for every query, and the final weights, from one set of queries.

Each fold's adapter is trained without the fold. When to stop is decided on an inner split of the
training part, after which training is repeated on all of that part; the fold itself is only
ever mapped, never looked at. (Nested cross-validation: Varma and Simon 2006.)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from llama_index.embeddings.adapter.utils import BaseAdapter, LinearLayer
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.fit import Epoch, State, map_vectors, train_adapter
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.vectors.search import top_k, unit_rows

MakeAdapter = Callable[[], BaseAdapter]
OnEpoch = Callable[[Epoch], None]
MIN_INNER = 10
"""With fewer queries in the inner split, its score says nothing."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained adapter.

    Attributes:
        adapter: in evaluation mode, on the CPU.
        epochs: passes it was trained for.
        scores: log-likelihood of the inner split after each pass, the start first.
    """

    adapter: BaseAdapter
    epochs: int
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The final adapter and what is needed to measure it honestly.

    Attributes:
        adapter: linear maps: mean of the folds' weights; others: trained on all queries.
        epochs: passes of each fold.
        fold: fold of each query, shape `(n,)`.
        adapters: each fold's adapter, trained without the fold.
        queries: each query mapped by its fold's adapter, shape `(n, dim)`, not normalised.
        seen: whether a relevant document of the query had queries outside its fold, `(n,)`.
    """

    adapter: BaseAdapter
    epochs: list[int]
    fold: Ints
    adapters: list[BaseAdapter]
    queries: Float32
    seen: NDArray[np.bool_]


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
    on_fold: Callable[[int, Fitted], None] | None = None,
) -> CrossFit:
    """Train one adapter for each fold and combine them.

    Args:
        make: a new adapter at its starting weights.
        pairs: labelled queries.
        documents: unit vectors, shape `(N, dim)`, in memory or memory-mapped.
        options: how to train.
        groups: queries with equal keys stay in one fold; each query by itself by default.
        unlabelled: sentences with their documents; they teach in every fold.
        mined: nearest documents of each query, `(n, k)`, where the caller has them.
        finished: fold → weights and epochs of an earlier, interrupted run with equal arguments.
        device: of torch.
        on_epoch: called with the fold and its state after each pass.
        on_fold: called with each finished fold; what it saves is what `finished` takes.
    """
    keys = list(range(len(pairs))) if groups is None else list(groups)
    fold = assign_folds(keys, options.folds, options.seed)
    seen = seen_documents(pairs, fold)
    pairs, documents, unlabelled = working_set(pairs, documents, options, unlabelled, mined)
    fits: list[Fitted] = []
    for number in range(int(fold.max()) + 1):
        rows = np.flatnonzero(fold != number)
        if finished and number in finished:
            fits.append(_restored(make(), *finished[number]))
            continue
        fits.append(
            fit(
                make,
                pairs.take(rows),
                documents,
                replace(options, seed=options.seed + number),
                groups=[keys[row] for row in rows],
                unlabelled=unlabelled,
                device=device,
                on_epoch=_for_fold(on_epoch, number),
            )
        )
        if on_fold is not None:
            on_fold(number, fits[-1])
    queries = np.empty_like(pairs.vectors)
    for number, done in enumerate(fits):
        rows = np.flatnonzero(fold == number)
        queries[rows] = map_vectors(done.adapter, pairs.vectors[rows])
    adapters = [done.adapter for done in fits]
    epochs = [done.epochs for done in fits]
    final = make()
    if isinstance(final, LinearLayer):
        average(final, adapters)
    else:
        passes = int(np.median(epochs))
        train_adapter(
            final, pairs, documents, options, unlabelled=unlabelled, epochs=passes, device=device
        )
    return CrossFit(final.eval(), epochs, fold, adapters, queries, seen)


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
    """Choose the number of passes on an inner split, then train on all `pairs`.

    For use by itself where a validation set measures the result. `documents` lie in memory
    (see `working_set`); the other arguments are those of `cross_fit`.
    """
    keys = list(range(len(pairs))) if groups is None else list(groups)
    inner = inner_split(pairs, keys, options)
    scores: list[float] = []
    passes = max(1, options.max_epochs // 4)
    if inner.sum() >= MIN_INNER and inner.sum() < len(pairs):
        chosen = train_adapter(
            make(),
            pairs.take(np.flatnonzero(~inner)),
            documents,
            options,
            unlabelled=unlabelled,
            validation=pairs.take(np.flatnonzero(inner)),
            device=device,
            on_epoch=on_epoch,
        )
        passes, scores = chosen.epochs, chosen.scores
    adapter = make()
    train_adapter(
        adapter, pairs, documents, options, unlabelled=unlabelled, epochs=passes, device=device
    )
    return Fitted(adapter, passes, scores)


def assign_folds(groups: Sequence[Hashable], folds: int, seed: int) -> Ints:
    """A fold from 0 on for each item; equal keys share one, and sizes are nearly even."""
    order = list(dict.fromkeys(groups))
    folds = min(folds, len(order))
    if folds < 2:
        raise ValueError(f"cross-fitting needs at least 2 different queries, got {len(order)}")
    shuffled = np.random.default_rng(seed).permutation(len(order))
    of_key = {order[position]: place % folds for place, position in enumerate(shuffled)}
    return np.array([of_key[key] for key in groups], dtype=np.int64)


def inner_split(
    pairs: Pairs, groups: Sequence[Hashable], options: AdapterOptions
) -> NDArray[np.bool_]:
    """The queries that decide when to stop, as a mask.

    Half are drawn by query, so that most of their documents have other queries; half together
    with all queries of their documents, so that their documents are new: both have to gain.
    """
    owner, documents = pairs.flat()
    count = len(pairs)
    keys = {key: number for number, key in enumerate(dict.fromkeys(groups))}
    by_query = np.array([keys[key] for key in groups], dtype=np.int64)
    by_document = _components(owner, documents, by_query)
    rng = np.random.default_rng([options.seed, 1])
    quota = options.inner_share * count
    chosen = _draw(by_document, np.zeros(count, dtype=bool), quota / 2, rng)
    return _draw(by_query, chosen, quota, rng)


def seen_documents(pairs: Pairs, fold: Ints) -> NDArray[np.bool_]:
    """Whether a relevant document of each query also has queries of other folds."""
    folds_of: dict[int, set[int]] = {}
    for number, rows in zip(fold.tolist(), pairs.positives, strict=True):
        for row in rows.tolist():
            folds_of.setdefault(row, set()).add(number)
    return np.array(
        [
            any(folds_of[row] - {number} for row in rows.tolist())
            for number, rows in zip(fold.tolist(), pairs.positives, strict=True)
        ],
        dtype=bool,
    )


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


def average(adapter: LinearLayer, adapters: Sequence[BaseAdapter]) -> None:
    """Set a linear map to the mean of several: its scores are the mean of theirs."""
    states = [one.state_dict() for one in adapters]
    mean = {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}
    adapter.load_state_dict(mean)


def _components(owner: Ints, documents: Ints, by_query: Ints) -> Ints:
    """Number of each query's group: queries that share a document or a key are in one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    keys = int(by_query.max()) + 1
    _, rows = np.unique(documents, return_inverse=True)
    size = keys + int(rows.max()) + 1
    links = coo_matrix((np.ones(len(owner)), (by_query[owner], keys + rows)), (size, size))
    _, labels = connected_components(links, directed=False)
    return np.asarray(labels[by_query], dtype=np.int64)


def _draw(
    groups: Ints, chosen: NDArray[np.bool_], quota: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Add whole groups in random order, none that would exceed the quota."""
    chosen = chosen.copy()
    count = int(chosen.sum())
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(~chosen).tolist():
        members.setdefault(int(groups[row]), []).append(row)
    names = list(members)
    for position in rng.permutation(len(names)):
        rows = members[names[position]]
        if count + len(rows) <= quota:
            chosen[rows] = True
            count += len(rows)
    return chosen


def _filled(chosen: Ints, more: Ints, limit: int) -> Ints:
    new = more[~np.isin(more, chosen)]
    return np.concatenate([chosen, new[: max(0, limit - len(chosen))]])


def _restored(adapter: BaseAdapter, state: State, epochs: int) -> Fitted:
    adapter.load_state_dict(state)
    return Fitted(adapter.eval(), epochs)


def _for_fold(on_epoch: Callable[[int, Epoch], None] | None, number: int) -> OnEpoch | None:
    return None if on_epoch is None else lambda epoch: on_epoch(number, epoch)
