"""One run: what `finetune()` does between the checks and the saved folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.tuning import artifacts
from llama_index.tuning._processes import is_main_process
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.full.data import Parts, deciding_corpus
from llama_index.tuning.embeddings.full.losses import loss_name
from llama_index.tuning.embeddings.full.measuring import Vectors, compare, cost_notes, costs
from llama_index.tuning.embeddings.full.merging import merge_best
from llama_index.tuning.embeddings.full.model import (
    check_dims,
    encode,
    load_model,
    shortened,
)
from llama_index.tuning.embeddings.full.prompts import prompts_of, set_prompts
from llama_index.tuning.embeddings.full.rows import (
    Rows,
    binary_rows,
    list_rows,
    margin_rows,
    pair_rows,
    scored_pairs,
    teaching_lists,
)
from llama_index.tuning.embeddings.full.saving import base_name, write_model
from llama_index.tuning.embeddings.full.settings import Settings
from llama_index.tuning.embeddings.full.training import Trained, train
from llama_index.tuning.embeddings.vectors import Embedder
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.negatives import mine_hard_negatives
from llama_index.tuning.report import FinetuneReport, installed_versions

_FROM_SCORES = {"MarginMSELoss": margin_rows, "DistillKLDivLoss": list_rows}


class Tuning:
    """One run of the engine: train, merge, report, save, in this order.

    Args:
        settings: the engine's.
        parts: which queries teach, decide and are measured.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self.settings, self.parts, self.options = settings, parts, settings.options
        self.seconds: dict[str, float] = {}
        self.model = self._load(settings.model_id)
        check_dims(self.model, self.options.matryoshka_dims)
        self.prompts = prompts_of(self.model, settings.model_id, self.options)
        set_prompts(self.model, self.prompts)
        self.base = Embedder(
            settings.embedding(settings.model_id, self.prompts, embed_batch_size=32),
            cache=settings.vector_cache,
            show_progress=settings.schedule.show_progress,
        )
        self.pairs = 0
        self.trained: Trained | None = None
        self.merged: tuple[float, dict[float, float]] | None = None

    def train(self) -> None:
        """Train the model; its best checkpoint remains."""
        with self._step("rows"):
            rows = self._rows()
        self.pairs = len(rows)
        corpus = deciding_corpus(
            self.parts.decide, self.options.deciding_documents, self.options.seed
        )
        with self._step("train"), shortened(self.model, self.options.max_length):
            self.trained = train(
                self.model,
                rows,
                corpus,
                self.settings,
                prompts=self.prompts,
                guide=lambda: self._load(self.options.guide or self.settings.model_id),
                identity=self._identity(),
            )

    def merge(self) -> None:
        """Average base and tuned weights, where that is asked for."""
        assert self.trained is not None
        if self.options.merge:
            with self._step("merge"):
                base = self._load(self.settings.model_id).state_dict()
                self.merged = merge_best(self.model, base, self.options.merge, self.trained.score)

    def report(self) -> FinetuneReport:
        """Base against tuned on queries that neither taught nor decided."""
        assert self.trained is not None
        dataset = self.parts.measured
        with self._step("measure base"):
            before = self._base_vectors(dataset)
        with self._step("measure tuned"):
            after = Vectors(
                encode(self.model, list(dataset.queries.values()), self.prompts.query),
                encode(self.model, list(dataset.corpus.values()), self.prompts.document),
            )
        measured = compare(
            before,
            after,
            dataset,
            {doc for docs in self.parts.teach.relevant_docs.values() for doc in docs},
            dims=self.options.matryoshka_dims,
            seed=self.options.seed,
            accept=self.settings.accept,
        )
        embedded = len(dataset) + len(dataset.corpus)
        found = costs(
            self.model, self.trained.parameters, 1000 * self.seconds["measure tuned"] / embedded
        )
        return FinetuneReport(
            title=f"embedding model ({base_name(self.settings.model_id)}, {self._kind()})",
            method=self.parts.method,
            primary="ndcg@10",
            gains=measured.gains,
            slices=measured.slices,
            accepted=measured.verdict.accepted,
            reason=measured.verdict.reason,
            data={**self._counts(), "costs": found, **self._merge_data()},
            options={**self.settings.described(), "trained_in": self.trained.precision},
            seed=self.options.seed,
            seconds=self.seconds,
            history=self.trained.history,
            notes=[*cost_notes(found, self.prompts), *self.parts.notes],
            versions=installed_versions(
                "sentence-transformers", "transformers", "torch", "peft", "numpy"
            ),
        )

    def save(self, report: FinetuneReport) -> None:
        """Write the output folder: what the gate chose, its card, the report."""
        if not is_main_process():
            return
        settings = self.settings
        with artifacts.replacing_folder(settings.output) as folder:
            tuned = folder
            if not report.accepted:
                tuned = folder / "candidate"
                tuned.mkdir()
                base = self._load(settings.model_id)
                set_prompts(base, self.prompts)
                write_model(folder, base, settings.model_id, self.prompts, report)
            write_model(tuned, self.model, settings.model_id, self.prompts, report)

    def _rows(self) -> Rows:
        settings, parts = self.settings, self.parts
        name, count = loss_name(settings.loss), settings.hard_negatives
        if settings.scores is not None:
            lists = teaching_lists(settings.scores, parts.teach, [parts.decide, parts.measured])
            rows = _FROM_SCORES.get(name, scored_pairs)(lists)
        else:
            rows = pair_rows(
                [part for part in (parts.teach, parts.sentences) if part is not None],
                self._negatives() if count else {},
                count,
                all_docs=settings.use_all_docs,
                seed=self.options.seed,
            )
            rows = binary_rows(rows) if name == "CoSENTLoss" else rows
        if len(rows) < settings.schedule.batch_size:
            raise DatasetError(
                f"batch_size is {settings.schedule.batch_size}, but only {len(rows)} training "
                "pairs are left beside those that decide and measure; choose a smaller one, "
                "or add data"
            )
        return rows

    def _negatives(self) -> Mapping[str, Sequence[str]]:
        if self.settings.negatives is not None:
            return self.settings.negatives
        vectors = self._base_vectors(self.parts.teach)
        mined = mine_hard_negatives(
            self.parts.teach,
            vectors=vectors.documents,
            query_vectors=vectors.queries,
            num_negatives=self.settings.hard_negatives,
            show_progress=self.settings.schedule.show_progress,
        )
        return mined.negatives

    def _base_vectors(self, dataset: RetrievalDataset) -> Vectors:
        return Vectors(
            self.base.queries(list(dataset.queries.values())),
            self.base.documents(list(dataset.corpus.values())),
        )

    def _load(self, model_id: str) -> Any:
        return load_model(model_id, self.settings.device, self.settings.trust_remote_code)

    def _identity(self) -> dict[str, Any]:
        """What decides the weights: a run can only go on as it began."""
        scores = self.settings.scores
        return {
            "model_id": self.settings.model_id,
            **self.settings.described(),
            **self._counts(),
            "scores": None if scores is None else scores.fingerprint(),
        }

    def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = {"pairs": self.pairs}
        for name in ("teach", "sentences", "decide", "measured"):
            part = getattr(self.parts, name)
            if part is not None:
                counts[name] = {
                    "queries": len(part),
                    "documents": len(part.corpus),
                    "fingerprint": part.fingerprint(),
                }
        return counts

    def _merge_data(self) -> dict[str, Any]:
        if self.merged is None:
            return {}
        share, found = self.merged
        return {
            "merge": {"share": share, "deciding_ndcg@10": {str(s): v for s, v in found.items()}}
        }

    def _kind(self) -> str:
        rank = self.options.lora_rank
        return f"LoRA of rank {rank}" if rank else "its own weights"

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def together() -> None:
    """Wait for the other processes, where there are any."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
