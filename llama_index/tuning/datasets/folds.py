"""Queries that must stay on one side of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from llama_index.tuning._arrays import Ints

K = TypeVar("K", bound=Hashable)


def tied_groups(items: Iterable[K], ties: Iterable[Sequence[K]]) -> list[list[K]]:
    """Items that hang together, directly or through others, in the items' order.

    Args:
        items: each once.
        ties: items that share something, such as a relevant document.

    Example:
        >>> tied_groups("abcd", ["ac", "cd"])
        [['a', 'c', 'd'], ['b']]
    """
    parent = {item: item for item in items}

    def root(item: K) -> K:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for tie in ties:
        for other in tie[1:]:
            parent[root(other)] = root(tie[0])
    groups: dict[K, list[K]] = defaultdict(list)
    for item in parent:
        groups[root(item)].append(item)
    return list(groups.values())


def fold_numbers(groups: Sequence[Sequence[int]], folds: int, seed: int) -> Ints:
    """A fold for each list, groups kept together, folds of about equal size."""
    count = min(folds, len(groups))
    order = np.random.default_rng(seed).permutation(len(groups))
    sizes = np.zeros(count, dtype=np.int64)
    numbers = np.zeros(sum(map(len, groups)), dtype=np.int64)
    for group in sorted((groups[i] for i in order), key=len, reverse=True):
        fold = int(sizes.argmin())
        numbers[list(group)] = fold
        sizes[fold] += len(group)
    return numbers
