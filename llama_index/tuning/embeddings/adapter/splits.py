"""Which queries are held out: folds, and the inner split of training by gradient."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Ints
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.options import AdapterOptions


def assign_folds(groups: Sequence[Hashable], folds: int, seed: int) -> Ints:
    """A fold from 0 on for each item; equal keys share one, and sizes are nearly even."""
    order = list(dict.fromkeys(groups))
    folds = min(folds, len(order))
    if folds < 2:
        raise ValueError(f"cross-fitting needs at least 2 different queries, got {len(order)}")
    shuffled = np.random.default_rng(seed).permutation(len(order))
    of_key = {order[position]: place % folds for place, position in enumerate(shuffled)}
    return np.array([of_key[key] for key in groups], dtype=np.int64)


def whole_documents(pairs: Pairs, groups: Sequence[Hashable], seed: int) -> Ints:
    """Rows of about a third of the queries: all those of their documents, so that these are new.

    None, if the queries hang together too much through their documents. These rows serve choices
    alone. In a measurement they would make documents without training queries likelier to be right
    than they are.
    """
    together = _components(*pairs.flat(), _numbered(groups))
    chosen = np.zeros(len(pairs), dtype=bool)
    found: Ints = np.flatnonzero(
        _draw(together, chosen, len(pairs) / 3, np.random.default_rng([seed, 3]))
    )
    return found


def inner_split(
    pairs: Pairs, groups: Sequence[Hashable], options: AdapterOptions
) -> NDArray[np.bool_]:
    """The queries that decide when to stop, as a mask.

    Half are drawn by query, so that most of their documents have other queries; half together
    with all queries of their documents, so that their documents are new: both have to gain.
    """
    owner, documents = pairs.flat()
    count = len(pairs)
    by_query = _numbered(groups)
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


def _numbered(groups: Sequence[Hashable]) -> Ints:
    """A number for each key, in the order of their first item."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[key] for key in groups], dtype=np.int64)


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
