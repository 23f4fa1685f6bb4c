"""Memory of single questions: who asks nearly the same is led to the same documents.

A linear map that learns single questions by heart turns all others with them. So what holds for
one question alone is kept beside the map: a question is pulled towards the relevant documents of
the training questions that it is nearer to than questions about other documents are. All others
stay where the map puts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from llama_index.tuning._arrays import Float32
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.maps import LinearForm
from llama_index.tuning.embeddings.adapter.modules import RememberingLayer

MOST = 4096
"""Questions that are remembered; of more, none: then there are enough to learn from."""
FOREIGN = 0.75
"""Share of the questions that no question about other documents is too near to."""
LEAST, UTMOST = 0.05, 0.98
"""Bounds of the cosine from which on a question is near."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What is remembered.

    Attributes:
        questions: unit vectors, shape `(n, dim)`.
        answers: mean of each one's relevant documents, shape `(n, dim)`.
        near: cosine from which on a question is near to another.
    """

    questions: Float32
    answers: Float32
    near: float

    @classmethod
    def of(cls, pairs: Pairs, documents: Float32) -> Memory:
        """All questions; how near is near, they say themselves."""
        from scipy.sparse import coo_matrix

        owners, rows = pairs.flat()
        shape = len(pairs), len(documents)
        about = coo_matrix((np.ones(len(owners), np.float32), (owners, rows)), shape).tocsr()
        cosines = pairs.vectors @ pairs.vectors.T
        one, other = (about @ about.T).nonzero()
        cosines[one, other] = -1  # about the same document, or the question itself
        near = float(np.quantile(cosines.max(1), FOREIGN))
        answers = pairs.mean_positive(documents)
        return cls(pairs.vectors, answers, float(np.clip(near, LEAST, UTMOST)))

    def __call__(self, vectors: Float32) -> Float32:
        """Where unit vectors are pulled, both of shape `(rows, dim)`."""
        shares = np.maximum(vectors @ self.questions.T - np.float32(self.near), 0)
        pulled: Float32 = (shares / np.float32(1 - self.near)) @ self.answers
        return pulled


def remembering_module(form: LinearForm, memory: Memory, pull: float) -> RememberingLayer:
    """A linear map and a memory in one; vectors keep their direction, not their length."""
    dim, rank = form.up.shape
    module = RememberingLayer(dim, rank, len(memory.questions), form.bias is not None)
    weights = {
        "up": form.up,
        "down": form.down,
        "questions": memory.questions,
        "answers": memory.answers * (pull / form.factor / (1 - memory.near)),
        "near": np.array([memory.near]),
    }
    if form.bias is not None:
        weights["bias"] = form.bias / form.factor
    module.load_state_dict({n: torch.from_numpy(w.astype(np.float32)) for n, w in weights.items()})
    return module.eval()
