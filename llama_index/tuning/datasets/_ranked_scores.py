"""A re-ranker's answer as relevance: what the recorder saw, and what a teacher is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def ranked_scores(
    ranked: Iterable[tuple[str, float | None]], given: Mapping[str, float | None]
) -> dict[str, float]:
    """How relevant a re-ranker finds each node that it returned; one that it left out is at 0.

    A re-ranker that hands out no scores gives the reciprocal of the rank; one with scores below
    0 has them all raised, so that none is.

    Args:
        ranked: ids with their scores, best first; where one comes twice the first counts.
        given: the scores that they came with. A re-ranker that leaves all of them as they were,
            such as `RankGPTRerank`, handed out none.
    """
    scores: dict[str, float | None] = {}
    for id_, score in ranked:
        scores.setdefault(id_, score)
    own = {id_: score for id_, score in scores.items() if score is not None}
    untouched = all(id_ in given and given[id_] == score for id_, score in own.items())
    if untouched or len(own) < len(scores):
        return {id_: 1 / rank for rank, id_ in enumerate(scores, start=1)}
    lowest = min([0.0, *own.values()])
    return {id_: score - lowest for id_, score in own.items()}
