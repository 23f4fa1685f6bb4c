"""Retrievers whose scores are distances: the smaller, the better.

Some vector stores hand them on as they are, such as FAISS and Qdrant with Euclidean distance.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from llama_index.tuning.rerankers.features import FloatArray

logger = logging.getLogger(__name__)

TURNED = (
    "the retriever's scores rise from its first node to its last, as distances do; they are "
    "taken with their sign turned, so that the larger is the better"
)
_LEAST = 3  # fewer may rise by chance


def rises(scores: ArrayLike) -> bool:
    """Whether one list's scores, in the order in which its nodes were found, are distances."""
    known = _known(scores)
    return bool(len(known) >= _LEAST and (np.diff(known) >= 0).all() and known[0] < known[-1])


def most_rise(lists: Sequence[ArrayLike]) -> bool:
    """Whether the scores of most lists that are long enough to tell are distances."""
    telling = [scores for scores in lists if len(_known(scores)) >= _LEAST]
    return 2 * sum(map(rises, telling)) > len(telling)


def similarities(scores: ArrayLike) -> FloatArray:
    """One list's scores, the larger the better: as given, or distances with their sign turned."""
    given = np.asarray(scores, dtype=np.float64)
    if not rises(given):
        return given
    _tell()
    return -given


def _known(scores: ArrayLike) -> FloatArray:
    given = np.asarray(scores, dtype=np.float64)
    return given[np.isfinite(given)]


@cache
def _tell() -> None:
    logger.warning(TURNED)
