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
FIRST = 30
MOST, DRAWS = 1000, 999


def by_chance(
    found: Sequence[Sequence[str]], relevant: Sequence[Sequence[str]], seed: int = 0
) -> float:
    """How probable it is that questions find their answers as often by chance.

    A permutation test (Fisher 1935): the mean reciprocal rank of their answers among the first
    thirty, against that of answers of other questions, over 999 random exchanges.

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
    near = np.zeros((len(rows), len(rows)))
    for place, row in enumerate(rows):
        for rank in range(min(FIRST, len(found[row])), 0, -1):  # the best rank is written last
            near[place, askers.get(found[row][rank - 1], [])] = 1 / rank
    every = np.arange(len(rows))
    own = near[every, every].sum()
    as_good = sum(near[every, draw.permutation(every)].sum() > own - 1e-9 for _ in range(DRAWS))
    return float((1 + as_good) / (1 + DRAWS))
