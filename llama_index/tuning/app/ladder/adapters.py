"""Adapters, each fold's by itself, kept as they are finished so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.questions import LEAST, Questions, bodies_of
from llama_index.tuning.app.see import SeenApp
from llama_index.tuning.embeddings.adapter.data import Pairs, parts_of
from llama_index.tuning.embeddings.adapter.maps import VectorMap
from llama_index.tuning.embeddings.adapter.measure import positive_rows
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.search import unit_rows

SENTENCES = 2000
"""Of the documents, that teach beside the questions, or alone."""

State = dict[str, Any]
"""Tensors of torch, by name."""
Watch = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class LearntAdapter:
    """An adapter, and its questions as adapters that had not seen them map them.

    Attributes:
        map: of questions.
        queries: unit vectors of the app's questions, in their order.
    """

    map: VectorMap
    queries: Float32


class OutOfTime(Exception):  # noqa: N818 - ends what is learnt, never seen by callers
    """There is no time to learn more."""


class Adapters:
    """Learns adapters from parts of the questions; each fold is kept in a folder, and learnt once.

    Args:
        pairs: what teaches: the questions, or sentences of the documents.
        documents: unit vectors, shape `(N, dim)`.
        sentences: pairs that teach beside the questions.
        folder: where finished ones are kept; `None` keeps nothing.
        seed: of the run.
    """

    def __init__(
        self,
        pairs: Pairs,
        documents: Float32,
        sentences: Pairs | None,
        folder: Path | None,
        seed: int,
    ) -> None:
        self.pairs = pairs
        self.documents, self.sentences, self.folder = documents, sentences, folder
        self.options = AdapterOptions(seed=seed)

    def alone(self, queries: Float32, watch: Watch | None = None) -> LearntAdapter:
        """The adapter of sentences, and what it makes of questions, which taught it nothing.

        How strong it is, sentences of other parts of the documents say.
        """
        parts = np.unique(parts_of(self.pairs, self.documents), return_inverse=True)[1]
        found = self.learn(parts, watch)
        return LearntAdapter(found.map, unit_rows(found.map(unit_rows(queries))))

    def learn(self, fold: Ints, watch: Watch | None = None) -> LearntAdapter:
        """The adapter of all pairs, and each as the adapter of its fold's others maps it.

        Args:
            fold: of each pair.
            watch: called with the number of finished folds and of all, the first time with 0.
        """
        from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
        from llama_index.tuning.embeddings.adapter.fit import make_adapter
        from llama_index.tuning.embeddings.adapter.modules import map_of_module

        pairs, dim = self.pairs, self.documents.shape[1]
        folds = min(self.options.folds, len(np.unique(fold)))
        options = replace(self.options, folds=folds)
        name = self._name(pairs, fold)
        finished = self._read(name, folds)
        done = len(finished)

        def keep(number: int, state: State, steps: int) -> None:
            nonlocal done
            done += 1
            self._write(f"{name}-{number}", state, steps)
            if watch is not None:
                watch(done, folds)

        if watch is not None:
            watch(done, folds)
        found = cross_fit(
            lambda: make_adapter(dim, options),
            pairs,
            self.documents,
            options,
            groups=fold.tolist(),  # some hold documents of their own: no more new ones are drawn
            unlabelled=self.sentences,
            finished=finished,
            on_fold=keep,
        )
        return LearntAdapter(map_of_module(found.adapter, dim=dim), unit_rows(found.queries))

    def _name(self, pairs: Pairs, fold: Ints) -> str:
        """A hash of all that decides the weights."""
        digest = hashlib.sha256(json.dumps(asdict(self.options), sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.documents).tobytes())
        digest.update(fold.tobytes())
        for part in (pairs, self.sentences):
            if part is not None:
                digest.update(np.ascontiguousarray(part.vectors).tobytes())
                digest.update(np.concatenate(list(part.positives)).tobytes())
                digest.update(str([len(rows) for rows in part.positives]).encode())
        return f"adapter-{digest.hexdigest()[:16]}"

    def _write(self, name: str, state: State, steps: int) -> None:
        from safetensors.torch import save_file

        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{name}.new"
        arrays = {key: value.contiguous() for key, value in state.items()}
        save_file(arrays, draft, {"steps": str(steps)})
        os.replace(draft, self.folder / f"{name}.safetensors")

    def _read(self, name: str, folds: int) -> dict[int, tuple[State, int]]:
        """Finished folds of an earlier run."""
        from safetensors import safe_open

        found: dict[int, tuple[State, int]] = {}
        for number in range(folds):
            file = None if self.folder is None else self.folder / f"{name}-{number}.safetensors"
            if file is None or not file.exists():
                continue
            with safe_open(file, framework="pt") as saved:
                state = {key: saved.get_tensor(key) for key in saved.keys()}  # noqa: SIM118
                found[number] = state, int(saved.metadata()["steps"])
        return found


def adapters_for(
    seen: SeenApp,
    asked: Questions,
    search: Search,
    vectors: Float32 | None,
    folder: Path | None,
    seed: int,
    *,
    prose: bool,
) -> Adapters | None:
    """What learns adapters; `None` if none could be taught, or served."""
    if vectors is None or search.embedder is None or (asked.kind == "stand-ins" and not prose):
        return None
    kept = None if folder is None else folder / "adapters"
    sentences = _sentences(seen, search.embedder, set(asked.texts), seed)
    if asked.teach:
        pairs = Pairs(unit_rows(vectors), positive_rows(asked.dataset))
        return Adapters(pairs, search.documents, sentences, kept, seed)
    if sentences is None or len({int(rows[0]) for rows in sentences.positives}) < LEAST:
        return None
    return Adapters(sentences, search.documents, None, kept, seed)


def _sentences(
    seen: SeenApp, embedder: Embedder, asked: Collection[str], seed: int
) -> Pairs | None:
    """Sentences of the nodes that nobody asked, which teach about documents without questions."""
    try:
        found = generate_sentence_queries(bodies_of(seen), seed=seed)
    except DatasetError:  # no text has a sentence: questions teach alone
        return None
    ids = [id_ for id_, text in found.queries.items() if text not in asked]
    if not ids:
        return None
    chosen = np.random.default_rng([seed, 3]).permutation(len(ids))[:SENTENCES]
    dataset = found.subset([ids[place] for place in sorted(chosen.tolist())])
    rows = {id_: row for row, id_ in enumerate(seen.nodes)}
    vectors = embedder.queries(list(dataset.queries.values()))
    return Pairs(unit_rows(vectors), positive_rows(dataset, rows))
