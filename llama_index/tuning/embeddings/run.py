"""What survives a kill: vectors, finished folds, and a checkpoint that loads.

<folder>/lock               held by the run
<folder>/vectors.sqlite     vectors embedded so far, where the user named no cache
<folder>/fold-0.safetensors weights of a finished fold, with the run that it belongs to
<folder>/step_400/          loadable adapters, as often as `checkpoint_save_steps` says
<folder>/interrupted/       a loadable adapter, left by Ctrl-C
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from llama_index.tuning._locks import locked, remove_locked_folder
from llama_index.tuning.embeddings.options import AdapterOptions
from llama_index.tuning.embeddings.problem import Problem
from llama_index.tuning.errors import TuningError

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
_SAMPLE = 4096  # document rows that the run's hash looks at


class RunFolder:
    """The folder of one run. Use as a context manager: it holds the folder's lock.

    Args:
        path: the folder.
        keep: whether it stays when the run succeeds (the user named it).
    """

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self.keep = keep

    @contextlib.contextmanager
    def held(self) -> Iterator[RunFolder]:
        """Hold the lock; after success the folder goes, unless it is to be kept."""
        busy = TuningError(f"another run is at work on {self.path}; give each run its own output")
        lock = self.path / "lock"
        with locked(lock, busy):
            try:
                yield self
            except BaseException:
                if [entry.name for entry in self.path.iterdir()] == ["lock"]:
                    remove_locked_folder(lock)  # it failed before there was anything to keep
                raise
            if self.keep:
                for fold in self.path.glob("fold-*.safetensors"):
                    fold.unlink()
            else:
                remove_locked_folder(lock)

    def finished_folds(self, run: str) -> dict[int, tuple[State, int]]:
        """Fold → weights and epochs, of an interrupted run with this hash."""
        from safetensors import SafetensorError, safe_open

        found: dict[int, tuple[State, int]] = {}
        for file in sorted(self.path.glob("fold-*.safetensors")):
            try:
                with safe_open(file, framework="pt") as saved:
                    head = saved.metadata() or {}
                    if head.get("run") == run:
                        state = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118
                        found[int(head["fold"])] = state, int(head["epochs"])
            except (SafetensorError, KeyError, ValueError):
                logger.warning("%s is damaged; its fold is trained again", file)
        return found

    def save_fold(self, run: str, fold: int, state: State, epochs: int) -> None:
        """Keep a finished fold, atomically."""
        from safetensors.torch import save_file

        file = self.path / f"fold-{fold}.safetensors"
        draft = file.with_suffix(".new")
        head = {"run": run, "fold": str(fold), "epochs": str(epochs)}
        save_file({name: value.contiguous() for name, value in state.items()}, draft, head)
        os.replace(draft, file)


def run_hash(problem: Problem, options: AdapterOptions, start: State) -> str:
    """A hash of all that decides the weights: the vectors, the pairs, the options, the start."""
    digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    rows = np.unique(np.linspace(0, len(problem.documents) - 1, _SAMPLE).astype(np.int64))
    digest.update(np.ascontiguousarray(problem.documents[rows]).tobytes())
    for pairs in (problem.labelled, problem.sentences):
        if pairs is not None:
            digest.update(np.ascontiguousarray(pairs.vectors).tobytes())
            digest.update(np.concatenate(list(pairs.positives)).tobytes())
            digest.update(str([len(rows) for rows in pairs.positives]).encode())
    digest.update("\0".join(problem.groups).encode())
    for name, value in sorted(start.items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
