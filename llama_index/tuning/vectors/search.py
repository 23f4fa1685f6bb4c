"""Exact nearest-neighbour search in blocks: bounded memory for any number of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning._checks import callable_or_none, plain_arguments, whole_number

QUERY_BLOCK = 1024
DOCUMENT_BLOCK = 16_384


@plain_arguments
def top_k(
    queries: Float32,
    documents: Float32,
    k: int,
    *,
    map_documents: Callable[[Float32], Float32] | None = None,
    on_block: Callable[[int], None] | None = None,
) -> tuple[Ints, Float32]:
    """The `k` documents with the largest cosine to each query.

    Ties go to the document that comes first. Documents are read once, block by block, so a
    memory-mapped array never has to fit in memory.

    Args:
        queries: shape `(n, dim)`; need not be of unit length.
        documents: shape `(N, dim)`, in memory or memory-mapped; need not be of unit length.
        k: how many; at most `N` are returned.
        map_documents: applied to each block of documents, `(rows, dim)` → `(rows, dim)`.
        on_block: called with the number of documents done, for progress.

    Returns:
        Indices of documents, shape `(n, k)`, best first, and their cosines.
    """
    for name, given in {"queries": queries, "documents": documents}.items():
        if getattr(given, "ndim", 0) != 2:
            raise TypeError(f"{name} must be an array of shape (n, dim), got {given!r:.100}")
    callable_or_none("map_documents", map_documents)
    callable_or_none("on_block", on_block)
    k = min(whole_number("k", k, 0), len(documents))
    queries = unit_rows(queries)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    indices = np.full((len(queries), k), len(documents), dtype=np.int64)
    for start, stop in _blocks(len(documents)):
        block = unit_rows(np.asarray(documents[start:stop], dtype=np.float32))
        if map_documents is not None:
            block = unit_rows(map_documents(block))
        for first in range(0, len(queries), QUERY_BLOCK):
            rows = slice(first, first + QUERY_BLOCK)
            _merge(scores[rows], indices[rows], queries[rows] @ block.T, start)
        if on_block is not None:
            on_block(stop)
    return indices, scores


def unit_rows(matrix: Float32) -> Float32:
    """Each row divided by its length; a zero row stays zero."""
    matrix = np.asarray(matrix, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))[:, None]
    scaled: Float32 = np.divide(matrix, norms, out=np.zeros_like(matrix), where=norms > 0)
    return scaled


def _blocks(total: int) -> Iterator[tuple[int, int]]:
    # Blocks grow with what was seen: then at most about k documents of each block beat the
    # best so far, and merging stays cheap beside the matrix product.
    start = 0
    while start < total:
        stop = min(total, start + min(DOCUMENT_BLOCK, max(1024, start)))
        yield start, stop
        start = stop


def _merge(scores: Float32, indices: Ints, block: Float32, offset: int) -> None:
    """Update the running best (in place) with a block's scores, shape `(n, rows)`."""
    k = scores.shape[1]
    rows, columns = np.nonzero(block > scores[:, -1:])
    if not rows.size:
        return
    touched = np.unique(rows)
    owner = np.concatenate([np.repeat(touched, k), rows])
    value = np.concatenate([scores[touched].ravel(), block[rows, columns]])
    index = np.concatenate([indices[touched].ravel(), columns + offset])
    order = np.lexsort((index, -value, owner))
    first = np.searchsorted(owner[order], touched)
    best = order[first[:, None] + np.arange(k)]
    scores[touched], indices[touched] = value[best], index[best]


_BLOCK = 2048


def near_duplicates(vectors: NDArray[np.float32], threshold: float) -> list[int]:
    """Rows to drop: those whose cosine to an earlier row that is kept reaches the threshold.

    Args:
        vectors: shape `(n, dim)`.
        threshold: a cosine, above 0 and up to 1.
    """
    unit = unit_rows(vectors)
    dropped: set[int] = set()
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        close = np.argwhere(block @ unit[: start + len(block)].T >= threshold)
        for row, earlier in zip((close[:, 0] + start).tolist(), close[:, 1].tolist(), strict=True):
            if earlier < row and earlier not in dropped:
                dropped.add(row)
    return sorted(dropped)
