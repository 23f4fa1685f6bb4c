"""One run on the vectors: train, measure, and keep what a killed run goes on from.

<folder>/lock               held by the run
<folder>/vectors.sqlite     vectors embedded so far, if the user named no cache
<folder>/fold-0.safetensors weights of a finished fold, with the run that it belongs to
<folder>/step_400/          loadable adapters, as often as `checkpoint_save_steps` says
<folder>/interrupted/       a loadable adapter, left by Ctrl-C
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning._files import check_run_folder, locked, remove_locked_folder
from llama_index.tuning.embeddings.adapter.cross_fit import (
    FINAL,
    CrossFit,
    Fitted,
    cross_fit,
    fit,
    working_set,
)
from llama_index.tuning.embeddings.adapter.data import STAND_INS, Data, EmbeddedDataset
from llama_index.tuning.embeddings.adapter.fit import Epoch, map_vectors
from llama_index.tuning.embeddings.adapter.measure import gains
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.errors import TuningError
from llama_index.tuning.evaluate.retrieval import RetrievalScores, evaluate_vectors
from llama_index.tuning.report import FinetuneReport, Gains
from llama_index.tuning.text.passages import copies_in, copies_notes
from llama_index.tuning.vectors.learned import Learned, question_codes
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.embeddings.adapter import BaseAdapter


PRIMARY = "ndcg@10"
REPORTED = (PRIMARY, "mrr@10", "map@10", "recall@10", "hit_rate@1", "hit_rate@5", "hit_rate@10")
SEEN, UNSEEN = "documents with training queries", "documents without training queries"
Serve = Callable[..., Adapter]


class Tuning:
    """One run on the vectors.

    Args:
        make: dimension → a fresh module.
        problem: the vectors.
        options: how to train.
        run: where finished folds and checkpoints go.
        device: of torch.
    """

    def __init__(
        self,
        make: Callable[[int], BaseAdapter],
        problem: EmbeddedDataset,
        options: AdapterOptions,
        run: RunFolder,
        device: str,
    ) -> None:
        self.make: Callable[[], BaseAdapter] = lambda: make(problem.dim)
        self.problem, self.options, self.run, self.device = problem, options, run, device
        self.fitted: Fitted | CrossFit | None = None
        self.history: list[dict[str, float]] = []
        self._check_output()

    def train(self, serve: Serve, save_steps: int, show_progress: bool) -> None:
        """Cross-fit, or fit once if there is a validation set; Ctrl-C leaves a checkpoint."""
        watch = _Watch(self, serve, save_steps, show_progress)
        try:
            if self.problem.validation is not None:
                self.fitted = self._fit(watch)
            else:
                self.fitted = self._cross_fit(watch)
        except KeyboardInterrupt:
            watch.save("interrupted")
            raise
        finally:
            watch.close()

    def adapter(self) -> BaseAdapter:
        """The final module."""
        assert self.fitted is not None
        return self.fitted.adapter

    def learned(self, data: Data) -> Learned:
        """The questions that were learnt, and what the fold that had not learnt it makes of each.

        Not of documents that are mapped too: each fold would have its own.
        """
        parts = [part for part in (data.labelled, data.sentences) if part is not None]
        codes = question_codes(text for part in parts for text in part.queries.values())
        vectors = None
        if isinstance(self.fitted, CrossFit) and self.options.side == "query":
            vectors = unit_rows(self.fitted.queries).astype(np.float16)
        return Learned("the embedding adapter", codes, vectors)

    def report(self, data: Data) -> FinetuneReport:
        """Base against tuned on queries that were not trained on, without a verdict."""
        base, tuned = (scores.only(REPORTED) for scores in self._scores(data))
        measured, seed = data.measured, self.options.seed
        overall = gains(base, tuned, measured, seed)
        slices: dict[str, Gains] = {}
        seen = self.fitted.seen if isinstance(self.fitted, CrossFit) else None
        for name, rows in slices_of(self.problem, seen):
            if rows.size:
                slices[name] = gains(base.take(rows), tuned.take(rows), measured, seed)
        assert self.fitted is not None
        return FinetuneReport(
            title=f"embedding adapter ({_kind(self.make())}, {_SIDES[self.options.side]})",
            method=self._method(),
            primary=PRIMARY,
            gains=overall,
            slices=slices,
            measured_on=data.measured_on,
            guards=list(slices),
            data=_counts(data),
            options=asdict(self.options),
            seed=self.options.seed,
            history=self.history,
            notes=[*_chosen(self.fitted), *notes_on(data)],
            queries=base.changed(tuned, PRIMARY, data.measured),
        )

    def _check_output(self) -> None:
        probe = np.zeros((2, self.problem.dim), dtype=np.float32)
        try:
            mapped = map_vectors(self.make(), probe)
        except RuntimeError as exc:
            raise ValueError(
                f"adapter_model does not take vectors of dimension {self.problem.dim}: {exc}"
            ) from exc
        if mapped.shape != probe.shape:
            raise ValueError(
                f"adapter_model must map {self.problem.dim} dimensions to as many, since mapped "
                f"queries meet stored vectors; it gives {mapped.shape[-1]}"
            )

    def _fit(self, watch: _Watch) -> Fitted:
        problem = self.problem
        pairs, documents, sentences = working_set(
            problem.labelled, problem.documents, self.options, problem.sentences
        )
        return fit(
            self.make,
            pairs,
            documents,
            self.options,
            groups=problem.groups,
            unlabelled=sentences,
            device=self.device,
            on_epoch=functools.partial(watch, FINAL),
        )

    def _cross_fit(self, watch: _Watch) -> CrossFit:
        problem = self.problem
        name = run_hash(problem, self.options, self.make().state_dict())
        return cross_fit(
            self.make,
            problem.labelled,
            problem.documents,
            self.options,
            groups=problem.groups,
            unlabelled=problem.sentences,
            finished=self.run.finished_folds(name),
            device=self.device,
            on_epoch=watch,
            on_fold=functools.partial(self.run.save_fold, name),
        )

    def _scores(self, data: Data) -> tuple[RetrievalScores, RetrievalScores]:
        documents, positives = self.problem.measured_documents()
        queries = self.problem.measured.vectors
        ids = list(data.measured.queries)
        base = evaluate_vectors(queries, documents, positives, query_ids=ids)
        if self.options.side == "query":
            mapped = self._mapped(queries)
            return base, evaluate_vectors(mapped, documents, positives, query_ids=ids)
        return base, self._scores_both_sides(documents, positives, ids)

    def _mapped(self, queries: Float32) -> Float32:
        """Each measured query under an adapter that did not see it."""
        if isinstance(self.fitted, CrossFit):
            return self.fitted.queries
        return map_vectors(self.adapter(), queries, device=self.device)

    def _scores_both_sides(
        self, documents: Float32, positives: list[Ints], ids: list[str]
    ) -> RetrievalScores:
        if isinstance(self.fitted, CrossFit):
            fold, adapters = self.fitted.fold, self.fitted.adapters
        else:
            fold, adapters = np.zeros(len(ids), dtype=np.int64), [self.adapter()]
        queries = self.problem.measured.vectors
        values: dict[str, NDArray[np.float64]] = {}
        for number, adapter in enumerate(adapters):
            rows = np.flatnonzero(fold == number)
            part = evaluate_vectors(
                map_vectors(adapter, queries[rows], device=self.device),
                documents,
                [positives[row] for row in rows],
                map_documents=lambda block, a=adapter: map_vectors(a, block, device=self.device),  # type: ignore[misc]
            )
            for name, found in part.values.items():
                values.setdefault(name, np.zeros(len(ids)))[rows] = found
        return RetrievalScores(ids, values)

    def _method(self) -> str:
        if isinstance(self.fitted, CrossFit):
            return f"{len(self.fitted.adapters)}-fold cross-fitting"
        return "validation set"


def slices_of(problem: EmbeddedDataset, seen: NDArray[np.bool_] | None) -> list[tuple[str, Ints]]:
    """Measured queries on documents with training queries, and on others; none if all are alike.

    Args:
        problem: the vectors.
        seen: whether a document of each query has training queries; `None`: as a validation set's
            documents have them.
    """
    if seen is None:
        trained = np.unique(problem.labelled.flat()[1])
        seen = np.array([bool(np.isin(rows, trained).any()) for rows in problem.measured.positives])
    if seen.all() or not seen.any():
        return []
    return [(SEEN, np.flatnonzero(seen)), (UNSEEN, np.flatnonzero(~seen))]


class _Watch:
    """Follows training: history, progress, checkpoints of what is served in the end."""

    def __init__(self, tuning: Tuning, serve: Serve, save_steps: int, show_progress: bool) -> None:
        self.tuning, self.serve, self.save_steps = tuning, serve, save_steps
        self.saved_at = 0
        self.best: Callable[[], BaseAdapter] | None = None
        self.bar: Any = None
        if show_progress:
            from tqdm.auto import tqdm

            self.bar = tqdm(desc="Training", unit=" passes")

    def __call__(self, fold: int, epoch: Epoch) -> None:
        self.best = epoch.best
        entry = {"fold": float(fold), "epoch": float(epoch.number)}
        if epoch.score is not None:
            entry[epoch.metric] = epoch.score
        self.tuning.history.append(entry)
        if self.bar is not None:
            self.bar.update(1)
        due = fold == FINAL and epoch.steps - self.saved_at >= self.save_steps
        if due and self.tuning.run.keep:
            self.saved_at = epoch.steps
            self.save(f"step_{epoch.steps}")

    def save(self, name: str) -> None:
        """The best weights so far as an adapter that loads."""
        if self.best is None:
            return
        adapter = self.serve(self.best(), self.tuning.problem.dim, checkpoint=name)
        adapter.save(self.tuning.run.path / name)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


_SIDES = {"query": "query side", "both": "both sides"}


def _kind(module: BaseAdapter) -> str:
    names = {"LinearLayer": "linear", "LowRankLayer": "low-rank", "TwoLayerNN": "two-layer"}
    return names.get(type(module).__name__, type(module).__name__)


def _counts(data: Data) -> dict[str, Any]:
    taught = data.labelled or data.sentences
    assert taught is not None
    counts: dict[str, Any] = {"fingerprint": taught.fingerprint()}
    for name in ("labelled", "sentences", "validation"):
        part = getattr(data, name)
        if part is not None:
            counts[name] = {
                "queries": len(part),
                "documents": len(part.corpus),
                "fingerprint": part.fingerprint(),
            }
    return counts


def _chosen(fitted: Fitted | CrossFit) -> list[str]:
    """What the folds' held-out queries chose for the final adapter."""
    if not isinstance(fitted, CrossFit):
        return []
    said = ", ".join(f"{name} {value:g}" for name, value in fitted.chosen.items())
    return [f"chosen on held-out queries: {said}"]


def notes_on(data: Data) -> list[str]:
    """What a report says of the data."""
    notes = [*data.notes, *copies_notes(copies_in(data.measured.corpus))]
    if data.measured_on:
        notes.append(
            f"measured on {STAND_INS}: pass a few real questions as val_dataset to know the gain "
            "on questions"
        )
    return notes


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
        if not self.keep:
            check_run_folder(self.path, TuningError)
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


def run_hash(problem: EmbeddedDataset, options: AdapterOptions, start: State) -> str:
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
