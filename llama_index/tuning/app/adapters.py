"""Adapters that had not seen the question: what is stacked on them must not know it either."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.maps import MAPS, VectorMap
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.vectors.search import unit_rows

INNER_FOLDS = 4
LEAST = 30
"""Questions from which on an adapter is tried."""


@dataclass(frozen=True, eq=False)
class LearntAdapter:
    """An adapter, and its questions as adapters that had not seen them map them.

    Attributes:
        map: of questions.
        queries: unit vectors, in the order of the questions it was learnt from.
    """

    map: VectorMap
    queries: Float32


class Adapters:
    """Learns adapters from parts of the questions; each is kept in a folder, and learnt once.

    Args:
        queries: vectors of all questions, shape `(n, dim)`.
        positives: rows of the documents that answer each.
        documents: unit vectors, shape `(N, dim)`.
        sentences: pairs that teach beside the questions.
        folder: where finished ones are kept; `None` keeps nothing.
        seed: of the run.
    """

    def __init__(
        self,
        queries: Float32,
        positives: Sequence[Ints],
        documents: Float32,
        sentences: Pairs | None,
        folder: Path | None,
        seed: int,
    ) -> None:
        self.pairs = Pairs(unit_rows(queries), positives)
        self.documents, self.sentences, self.folder = documents, sentences, folder
        self.options = AdapterOptions(folds=INNER_FOLDS, seed=seed)

    def learn(self, rows: Ints) -> LearntAdapter:
        """The adapter of some of the questions, by row."""
        pairs = self.pairs.take(rows)
        file = None if self.folder is None else self.folder / f"{self._name(pairs)}.safetensors"
        if file is not None and (kept := _read(file)) is not None:
            return kept
        learnt = self._learn(pairs)
        if file is not None:
            _write(file, learnt)
        return learnt

    def _learn(self, pairs: Pairs) -> LearntAdapter:
        from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
        from llama_index.tuning.embeddings.adapter.fit import make_adapter
        from llama_index.tuning.embeddings.adapter.modules import map_of_module

        options = replace(self.options, folds=min(self.options.folds, len(pairs)))
        dim = self.documents.shape[1]
        found = cross_fit(
            lambda: make_adapter(dim, options),
            pairs,
            self.documents,
            options,
            unlabelled=self.sentences,
        )
        return LearntAdapter(map_of_module(found.adapter, dim=dim), unit_rows(found.queries))

    def _name(self, pairs: Pairs) -> str:
        """A hash of all that decides the weights."""
        digest = hashlib.sha256(json.dumps(asdict(self.options), sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.documents).tobytes())
        for part in (pairs, self.sentences):
            if part is not None:
                digest.update(np.ascontiguousarray(part.vectors).tobytes())
                digest.update(np.concatenate(list(part.positives)).tobytes())
                digest.update(str([len(rows) for rows in part.positives]).encode())
        return f"adapter-{digest.hexdigest()[:16]}"


def _write(file: Path, learnt: LearntAdapter) -> None:
    from safetensors.numpy import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"map/{name}": array for name, array in learnt.map.state().items()}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    draft = file.with_suffix(".new")
    head = {"kind": learnt.map.kind, "config": json.dumps(learnt.map.config())}
    save_file({**arrays, "queries": np.ascontiguousarray(learnt.queries)}, draft, head)
    os.replace(draft, file)


def _read(file: Path) -> LearntAdapter | None:
    from safetensors import safe_open

    if not file.exists():
        return None
    with safe_open(file, framework="np") as saved:
        head = saved.metadata()
        arrays = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118
    queries = arrays.pop("queries")
    state = {name.removeprefix("map/"): array for name, array in arrays.items()}
    return LearntAdapter(MAPS[head["kind"]](json.loads(head["config"]), state), queries)
