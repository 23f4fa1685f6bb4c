"""One run: train, merge, measure, and train once more on all pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from llama_index.tuning._arrays import Float32
from llama_index.tuning._running import is_main_process
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.base import Clock, decided
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.full.data import (
    DECIDING_DOCUMENTS,
    Parts,
    Rows,
    TrainingPairs,
    deciding_corpus,
    training_rows,
)
from llama_index.tuning.embeddings.full.measure import Vectors, compare, cost_notes, costs
from llama_index.tuning.embeddings.full.model import (
    base_name,
    check_dims,
    cloned,
    encode,
    load_model,
    merge_at,
    merge_best,
    shortened,
)
from llama_index.tuning.embeddings.full.settings import Settings, prompts_of, set_prompts
from llama_index.tuning.embeddings.full.train import DecidingEvaluator, Trained, train, train_again
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.generate.negatives import mine_hard_negatives
from llama_index.tuning.hf.checkpoints import clear
from llama_index.tuning.hf.processes import on_main
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.learned import Learned, question_codes


class Tuning:
    """One run of the engine: train, merge and report, in this order.

    Args:
        settings: the engine's.
        parts: which queries teach, decide and are measured.
        clock: of the run.
    """

    def __init__(self, settings: Settings, parts: Parts, clock: Clock) -> None:
        self.settings, self.parts, self.clock = settings, parts, clock
        self.options = settings.options
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
        self.refitted: Refitted | None = None
        self.embedded: tuple[list[str], Float32] | None = None

    def train(self) -> None:
        """Train the model; its best checkpoint remains."""
        if is_main_process() and not self.settings.schedule.resume:
            clear(self.settings.refit_checkpoints)
        with self.clock.step("rows"):
            rows = self._rows(self.parts.first)
        self.pairs = len(rows)
        corpus = deciding_corpus(self.parts.decide, DECIDING_DOCUMENTS, self.options.seed)
        with self.clock.step("train"), shortened(self.model, self.options.max_length):
            self.trained = train(
                self.model,
                rows,
                DecidingEvaluator(corpus, self.prompts),
                self.settings,
                prompts=self.prompts,
                guide=self._guide,
                identity=self._identity(),
            )

    def merge(self) -> None:
        """Average base and tuned weights, if that is asked for."""
        assert self.trained is not None
        if self.options.merge:
            with self.clock.step("merge"):
                base = self._load(self.settings.model_id).state_dict()
                scores = self.trained.scores
                self.merged = merge_best(
                    self.model, base, self.options.merge, lambda model: float(scores(model).mean())
                )

    def refit(self) -> None:
        """Train once more from the base on all pairs, as far as was decided and merged alike.

        Nothing is left that could choose its checkpoint. But it has learnt the deciding queries:
        if it is shown to rank them worse than the model that has not, the training went wrong,
        and that model stays.
        """
        trained = self.trained
        assert trained is not None
        with self.clock.step("refit"):
            rows = self._rows(self.parts.everything)
            # Each process decided for itself, and may differ in the last bits.
            steps, share = on_main(lambda: (trained.steps, self.merged[0] if self.merged else 1.0))
            fresh = self._load(self.settings.model_id)
            set_prompts(fresh, self.prompts)
            base = cloned(fresh) if share != 1.0 else {}
            with shortened(fresh, self.options.max_length):
                made = train_again(
                    fresh,
                    rows,
                    self.settings,
                    share=steps / trained.planned,
                    prompts=self.prompts,
                    guide=self._guide,
                    identity={**self._identity(), "refit": {"pairs": len(rows), "after": steps}},
                )
            if share != 1.0:
                merge_at(fresh, base, share)
            decided, scores = trained.scores(self.model), trained.scores(fresh)
            change = on_main(lambda: paired_gain(decided, scores, seed=self.options.seed))
            kept = change.high >= 0
            if kept:
                self.model = fresh
            self.refitted = Refitted(len(rows), made, change.base, change.tuned, kept)

    def learned(self, name: str) -> Learned:
        """The questions that the saved model has learnt or was chosen by.

        Args:
            name: of the model.
        """
        parts = [self.parts.first.queries, self.parts.decide]
        if self.refitted is not None and self.refitted.kept:
            parts = [self.parts.everything.queries]
        return Learned(name, question_codes(t for part in parts for t in part.queries.values()))

    def report(self) -> FinetuneReport:
        """Base against tuned on queries that neither taught nor decided, without a verdict.

        A validation set measures the refitted model. Without one, the report is about the model
        that has not seen the measured queries, and a refit follows if the gate accepts it.
        """
        when = self.parts.refit
        if when == "before measuring":
            self.refit()
        report = self._measured()
        if when == "after accepting" and on_main(lambda: self._accepted(report)):
            self.refit()
        return report if self.refitted is None else with_refit(report, self.refitted, self.parts)

    def _accepted(self, report: FinetuneReport) -> bool:
        return decided(report, self.settings.accept, self.clock).accepted

    def _measured(self) -> FinetuneReport:
        assert self.trained is not None
        dataset = self.parts.measured
        with self.clock.step("measure base"):
            before = self._base_vectors(dataset)
        with self.clock.step("measure tuned"):
            after = Vectors(
                encode(self.model, list(dataset.queries.values()), self.prompts.query),
                encode(self.model, list(dataset.corpus.values()), self.prompts.document),
            )
        measured = compare(
            before,
            after,
            dataset,
            (self.parts.first if self.refitted is None else self.parts.everything).documents,
            dims=self.options.matryoshka_dims,
            seed=self.options.seed,
        )
        embedded = len(dataset) + len(dataset.corpus)
        found = costs(
            self.model,
            self.trained.parameters,
            1000 * self.clock.seconds["measure tuned"] / embedded,
        )
        return FinetuneReport(
            title=f"embedding model ({base_name(self.settings.model_id)}, {self._kind()})",
            method=self.parts.method,
            model=base_name(self.settings.model_id),
            primary="ndcg@10",
            gains=measured.gains,
            queries=measured.queries,
            slices=measured.slices,
            measured_on=self.parts.measured_on,
            guards=measured.guards,
            data={
                "fingerprint": self.parts.everything.queries.fingerprint(),
                **self._counts(),
                "costs": found,
                **self._merge_data(),
            },
            options={**self.settings.described(), "trained_in": self.trained.precision},
            seed=self.options.seed,
            history=self.trained.history,
            notes=[*cost_notes(found, self.prompts), *self.parts.notes],
        )

    def _rows(self, lessons: TrainingPairs) -> Rows:
        return training_rows(lessons, self.settings, self._mine)

    def _mine(self, queries: RetrievalDataset) -> Mapping[str, Sequence[str]]:
        vectors = self._base_vectors(queries)
        mined = mine_hard_negatives(
            queries,
            vectors=vectors.documents,
            query_vectors=vectors.queries,
            num_negatives=self.settings.hard_negatives,
            run=RunOptions(show_progress=self.settings.schedule.show_progress),
        )
        return mined.negatives

    def _base_vectors(self, dataset: RetrievalDataset) -> Vectors:
        texts = list(dataset.corpus.values())
        if self.embedded is None or self.embedded[0] != texts:
            self.embedded = texts, self.base.documents(texts)
        return Vectors(self.base.queries(list(dataset.queries.values())), self.embedded[1])

    def _guide(self) -> Any:
        return self._load(self.options.guide or self.settings.model_id)

    def _load(self, model_id: str) -> Any:
        return load_model(model_id, self.settings.device, self.settings.trust_remote_code)

    def _identity(self) -> dict[str, Any]:
        """What decides the weights: a run can only go on as it began."""
        scores, described = self.settings.scores, self.settings.described()
        del described["refit"]  # it comes after what these checkpoints are of
        return {
            "model_id": self.settings.model_id,
            **described,
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


@dataclass(frozen=True)
class Refitted:
    """What came of training once more on all pairs.

    Attributes:
        pairs: it learnt from.
        steps: it made.
        decided: nDCG@10 on the deciding queries of the model that had not learnt them.
        score: that of the refitted model, which had.
        kept: whether the refitted model took the other's place.
    """

    pairs: int
    steps: int
    decided: float
    score: float
    kept: bool


def with_refit(report: FinetuneReport, found: Refitted, parts: Parts) -> FinetuneReport:
    """The report, with what the saved model is."""
    return replace(
        report,
        data={**report.data, "refit": asdict(found)},
        notes=[_note(found, parts), *report.notes],
    )


def _note(found: Refitted, parts: Parts) -> str:
    told = f"{found.pairs} pairs ({found.steps} steps)"
    if not found.kept:
        return (
            f"the model that was trained once more, on all {told}, is not kept: it ranks the "
            f"deciding queries, which it learnt, at {found.score:.4f} nDCG@10, and the model "
            f"that never saw them at {found.decided:.4f}"
        )
    if parts.refit == "before measuring":
        return f"measured and saved is the model that was trained once more, on all {told}"
    return (
        "measured on the model that was trained without the measured queries; what is saved is "
        f"trained once more in the same way, on all {told}"
    )
