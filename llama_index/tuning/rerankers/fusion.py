"""Several rankings made into one."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.tuning.rerankers.features import RRF_K


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]], *, k: int = RRF_K) -> list[str]:
    """Ids by the sum of 1 / (k + rank) over the rankings (Cormack et al. 2009).

    Args:
        rankings: each best first.
        k: the larger, the less the first places count.

    Example:
        >>> reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
        ['b', 'a', 'c']
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id_ in enumerate(dict.fromkeys(ranking), start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda id_: -scores[id_])
