"""What a query encoder learns from: the stored vectors, all of them, and the questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning.embeddings.adapter.data import Data, EmbeddedDataset, embed_problem
from llama_index.tuning.errors import StoreError, VectorError
from llama_index.tuning.vectors.embedder import Embedder, check_matrix
from llama_index.tuning.vectors.search import unit_rows

SAME = 0.5
"""Cosine below which a stored vector and the model's own of that text are not of one model. The
text that was embedded may have had metadata around it, which moves it, though not so far."""


def embed_questions(data: Data, vectors: Any, embedder: Embedder) -> EmbeddedDataset:
    """The data as vectors, over everything that an index or store holds.

    Documents of the dataset come first; vectors that an index holds beside them follow: they have
    no questions, but the app finds them.

    Raises:
        VectorError: the stored vectors are another model's.
    """
    problem = embed_problem(data, vectors, embedder, None)
    _check_same_model(data.corpus(), problem.documents, embedder)
    others = _others(data.corpus(), vectors)
    if not len(others):
        return problem
    if others.shape[1] != problem.dim:
        raise VectorError(
            f"vectors holds {others.shape[1]} dimensions, the dataset's documents {problem.dim}"
        )
    searched = problem.searched
    if searched is not None:
        more = np.arange(len(problem.documents), len(problem.documents) + len(others))
        searched = np.concatenate([searched, more])
    documents = np.concatenate([np.asarray(problem.documents, np.float32), others])
    return replace(problem, documents=documents, searched=searched)


def _others(corpus: Mapping[str, str], vectors: Any) -> Float32:
    """Vectors of an index or store that are not of the corpus."""
    nothing = np.empty((0, 0), dtype=np.float32)
    if vectors is None or isinstance(vectors, (np.ndarray, str, Mapping)) or _is_path(vectors):
        return nothing
    from llama_index.tuning.vectors.stores import open_store

    store = open_store(vectors)
    try:
        ids = [id_ for id_ in store.ids() if id_ not in corpus]
    except StoreError:  # it cannot list what it holds: the dataset's documents are what there is
        return nothing
    found, matrix = store.get(ids)
    check_matrix(matrix, [f"the stored vector of {id_!r}" for id_ in found])
    return matrix


def _is_path(vectors: Any) -> bool:
    return hasattr(vectors, "__fspath__")


def _check_same_model(
    corpus: Mapping[str, str], documents: Float32, embedder: Embedder, count: int = 3
) -> None:
    """A few documents, embedded by the model, lie near their stored vectors."""
    rows = np.unique(np.linspace(0, len(corpus) - 1, count).astype(np.int64))
    texts = list(corpus.values())
    own = unit_rows(embedder.documents([texts[row] for row in rows]))
    stored = unit_rows(np.asarray(documents[rows], dtype=np.float32))
    if own.shape[1] != stored.shape[1]:
        raise VectorError(
            f"the model gives {own.shape[1]} dimensions, the stored vectors have "
            f"{stored.shape[1]}; were they made by another model?"
        )
    cosines = np.einsum("ij,ij->i", own, stored)
    if np.median(cosines) < SAME:
        told = ", ".join(f"{cosine:.2f}" for cosine in cosines)
        raise VectorError(
            f"the stored vectors are not this model's: {len(rows)} documents embedded by it lie at "
            f"cosine {told} to theirs. model_id must be the model that filled the index"
        )
