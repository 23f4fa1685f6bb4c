"""Whether questions and answers belong together: wrong ones teach, and measure, nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

FEW = 10
"""Below so many questions nothing can be said."""
ENOUGH = 100
"""From so many on, tuned parts gained on every public set."""
DOUBTFUL = 0.01
"""A larger probability is a doubt."""
FIRST = 10
MOST, DRAWS = 1000, 999


def by_chance(
    found: Sequence[Sequence[str]], relevant: Sequence[Sequence[str]], seed: int = 0
) -> float:
    """How probable it is that questions find their answers as often by chance.

    A permutation test (Fisher 1935): how many questions have an answer among the first ten, against
    how many have one of another question's, over 999 random exchanges of the answers.

    Args:
        found: the ids of the nodes that each question finds, best first.
        relevant: ids of the nodes that answer each.
        seed: of the exchanges, and of the thousand questions that are drawn of more.

    Example:
        >>> found = [[str(i)] for i in range(20)]
        >>> by_chance(found, found)
        0.001
        >>> by_chance(found, found[1:] + found[:1])
        1.0
    """
    draw = np.random.default_rng([seed, 23])
    rows = draw.permutation(len(found))[:MOST].tolist()
    askers: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        for id_ in relevant[row]:
            askers[id_].append(place)
    hits = np.zeros((len(rows), len(rows)), dtype=bool)
    for place, row in enumerate(rows):
        for id_ in found[row][:FIRST]:
            hits[place, askers.get(id_, [])] = True
    every = np.arange(len(rows))
    own = int(hits[every, every].sum())
    as_good = sum(int(hits[every, draw.permutation(every)].sum()) >= own for _ in range(DRAWS))
    return (1 + as_good) / (1 + DRAWS)
