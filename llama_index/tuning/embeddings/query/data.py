"""What a query encoder learns from: the stored vectors, all of them, and the questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32
from llama_index.tuning.embeddings.adapter.data import (
    SAME,
    Data,
    EmbeddedDataset,
    embed_problem,
    likeness,
)
from llama_index.tuning.errors import StoreError, VectorError
from llama_index.tuning.vectors.embedder import Embedder, check_matrix


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


def _check_same_model(corpus: Mapping[str, str], documents: Float32, embedder: Embedder) -> None:
    """A few documents, embedded by the model, lie near their stored vectors."""
    cosines = likeness(corpus, documents, embedder)
    if np.median(cosines) < SAME:
        told = ", ".join(f"{cosine:.2f}" for cosine in cosines)
        raise VectorError(
            f"the stored vectors are not this model's: {len(cosines)} documents embedded by it lie "
            f"at cosine {told} to theirs. model_id must be the model that filled the index"
        )
