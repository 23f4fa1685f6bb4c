"""Which queries are held out: folds, and the inner split of training by gradient."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Ints
from llama_index.tuning.datasets.folds import fold_numbers
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.options import AdapterOptions


def assign_folds(pairs: Pairs, groups: Sequence[Hashable], folds: int, seed: int) -> Ints:
    """A fold from 0 on for each query, of nearly even sizes; equal keys share one.

    A third of the queries share their fold with all queries of their documents, as far as these are
    few, so that what a map does to documents without training queries is always measured.
    """
    by_key = _numbered(groups)
    together = _components(*pairs.flat(), by_key)
    count = int(by_key.max()) + 1
    if count < 2:
        raise ValueError(f"cross-fitting needs at least 2 different queries, got {count}")
    whole = np.zeros(len(pairs), dtype=bool)
    few = len(pairs) / (2 * folds)
    rng = np.random.default_rng([seed, 3])
    for part in rng.permutation(int(together.max()) + 1):
        members = together == part
        if members.sum() <= few and whole.sum() < len(pairs) / 3:
            whole |= members
    _, units = np.unique(np.where(whole, together, by_key + len(pairs)), return_inverse=True)
    order = np.argsort(units, kind="stable")
    ends = np.cumsum(np.bincount(units))[:-1]
    return fold_numbers([rows.tolist() for rows in np.split(order, ends)], folds, seed)


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
