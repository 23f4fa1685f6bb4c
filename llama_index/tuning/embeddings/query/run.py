"""One run: cross-fit the query encoder, measure it on what it had not seen, train it on all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.base import Clock
from llama_index.tuning.embeddings.adapter.cross_fit import working_set
from llama_index.tuning.embeddings.adapter.data import Data, EmbeddedDataset, Pairs
from llama_index.tuning.embeddings.adapter.measure import gains
from llama_index.tuning.embeddings.adapter.run import PRIMARY, REPORTED, notes_on, slices_of
from llama_index.tuning.embeddings.adapter.solved.start import softmax_scale
from llama_index.tuning.embeddings.adapter.splits import (
    assign_folds,
    inner_split,
    seen_documents,
)
from llama_index.tuning.embeddings.full.model import base_name, encode
from llama_index.tuning.embeddings.full.settings import Prompts, Settings
from llama_index.tuning.embeddings.query.options import QueryEncoderOptions
from llama_index.tuning.embeddings.query.train import Course, Deciding, Lesson, Trainings
from llama_index.tuning.evaluate.retrieval import RetrievalScores, evaluate_vectors
from llama_index.tuning.report import FinetuneReport, Gains
from llama_index.tuning.vectors.learned import Learned, question_codes


class Tuning:
    """One run on stored vectors.

    Args:
        settings: the engine's, for the model's trainer.
        data: the questions.
        problem: the same as vectors, and the stored documents.
        options: of the engine.
        prompts: of questions and documents.
    """

    def __init__(
        self,
        settings: Settings,
        data: Data,
        problem: EmbeddedDataset,
        options: QueryEncoderOptions,
        prompts: Prompts,
    ) -> None:
        self.data, self.problem, self.options, self.prompts = data, problem, options, prompts
        self.given = softmax_scale(options.on_vectors(), problem.labelled, problem.documents)
        taught = data.labelled or data.sentences
        assert taught is not None
        self.taught = list(taught.queries.values())
        assert self.given.scale is not None
        self.trainings = Trainings(
            settings, options.trainings(), prompts, self.given.scale, self._identity(settings)
        )
        self.model: Any = None
        self.courses: list[Course] = []
        self.course: Course | None = None
        self.fold: Ints | None = None
        self.queries: Float32 | None = None

    def train(self) -> None:
        """Cross-fit and train on all; with a validation set decide once and train on all."""
        everything = np.arange(len(self.taught))
        if self.problem.validation is None:
            self._cross_fit(everything)
        else:
            _, course = self._choose("deciding", everything)
            self.courses.append(course)
        self.course = _typical(self.courses)
        self.model = self.trainings.follow("all", self._lesson(everything), self.course)
        if self.queries is None:
            self.queries = self._encoded(self.data.measured.queries.values())

    def learned(self) -> Learned:
        """The questions that were learnt, and each by the fold that had not learnt it."""
        parts = [part for part in (self.data.labelled, self.data.sentences) if part is not None]
        codes = question_codes(text for part in parts for text in part.queries.values())
        vectors = None
        if self.fold is not None and self.queries is not None:
            vectors = self.queries.astype(np.float16)
        return Learned("the query encoder", codes, vectors)

    def report(self, clock: Clock) -> FinetuneReport:
        """Base against tuned on questions that were not trained on, without a verdict."""
        with clock.step("measure"):
            base, tuned = self._scores()
        measured, seed = self.data.measured, self.options.seed
        slices: dict[str, Gains] = {}
        seen = None if self.fold is None else seen_documents(self.problem.labelled, self.fold)
        for name, rows in slices_of(self.problem, seen):
            slices[name] = gains(base.take(rows), tuned.take(rows), measured, seed)
        settings = self.trainings.settings
        return FinetuneReport(
            title=f"query encoder ({base_name(settings.model_id)}, {self._kind()})",
            method="validation set" if self.fold is None else f"{self._folds()}-fold cross-fitting",
            model=base_name(settings.model_id),
            primary=PRIMARY,
            gains=gains(base, tuned, measured, seed),
            slices=slices,
            guards=list(slices),
            measured_on=self.data.measured_on,
            data={**self._counts(), "costs": self._costs()},
            options={**asdict(self.options), **self._called(settings)},
            seed=seed,
            history=self.trainings.history,
            notes=self._notes(),
            queries=base.changed(tuned, PRIMARY, self.data.measured),
        )

    def _cross_fit(self, everything: Ints) -> None:
        pairs, groups = self.problem.labelled, self.problem.groups
        self.fold = assign_folds(groups, self.options.folds, self.options.seed)
        found = np.zeros((len(pairs), self.problem.dim), dtype=np.float32)
        for number in range(self._folds()):
            held = np.flatnonzero(self.fold == number)
            model, course = self._choose(f"fold-{number}", np.setdiff1d(everything, held))
            self.courses.append(course)
            found[held] = encode(model, [self.taught[row] for row in held], self.prompts.query)
        self.queries = found

    def _choose(self, name: str, rows: Ints) -> tuple[Any, Course]:
        """A part of these questions decides, the others teach."""
        pairs = self.problem.labelled.take(rows)
        inner = inner_split(pairs, [self.problem.groups[row] for row in rows], self.given)
        deciding = rows[inner]
        asked = Deciding(
            [self.taught[row] for row in deciding],
            [self.problem.labelled.positives[row] for row in deciding],
            self.problem.documents,
        )
        return self.trainings.choose(name, self._lesson(rows[~inner]), asked)

    def _lesson(self, rows: Ints) -> Lesson:
        """These questions and, beside them, the sentences."""
        texts, sentences = [self.taught[row] for row in rows], self.problem.sentences
        pairs, documents, others = working_set(
            self.problem.labelled.take(rows), self.problem.documents, self.given, sentences
        )
        if others is None or not self.options.unlabelled_weight:
            return Lesson(texts, pairs, documents)
        assert self.data.sentences is not None
        weights = np.ones(len(pairs) + len(others), dtype=np.float32)
        weights[len(pairs) :] = self.options.unlabelled_weight
        both = Pairs(
            np.concatenate([pairs.vectors, others.vectors]),
            [*pairs.positives, *others.positives],
            weights,
        )
        return Lesson([*texts, *self.data.sentences.queries.values()], both, documents)

    def _encoded(self, texts: Any) -> Float32:
        return encode(self.model, list(texts), self.prompts.query)

    def _scores(self) -> tuple[RetrievalScores, RetrievalScores]:
        documents, positives = self.problem.measured_documents()
        ids = list(self.data.measured.queries)
        assert self.queries is not None
        return (
            evaluate_vectors(
                self.problem.measured.vectors, documents, positives, query_ids=ids
            ).only(REPORTED),
            evaluate_vectors(self.queries, documents, positives, query_ids=ids).only(REPORTED),
        )

    def _folds(self) -> int:
        assert self.fold is not None
        return int(self.fold.max()) + 1

    def _kind(self) -> str:
        rank = self.options.lora_rank
        return f"LoRA of rank {rank}" if rank else "its own weights"

    def _called(self, settings: Settings) -> dict[str, Any]:
        schedule = settings.schedule
        return {
            "batch_size": schedule.batch_size,
            "epochs": schedule.epochs,
            "scale": self.given.scale,
            "trained_in": self.courses[0].precision,
        }

    def _identity(self, settings: Settings) -> dict[str, Any]:
        """What decides the weights: a run can only go on as it began."""
        return {
            "model_id": settings.model_id,
            "batch_size": settings.schedule.batch_size,
            "epochs": settings.schedule.epochs,
            **asdict(self.options),
            **self._counts(),
            "stored": _hash(self.problem.documents),
        }

    def _counts(self) -> dict[str, Any]:
        taught = self.data.labelled or self.data.sentences
        assert taught is not None
        counts: dict[str, Any] = {
            "fingerprint": taught.fingerprint(),
            "stored_vectors": len(self.problem.documents),
        }
        for name in ("labelled", "sentences", "validation"):
            part = getattr(self.data, name)
            if part is not None:
                counts[name] = {"queries": len(part), "fingerprint": part.fingerprint()}
        return counts

    def _costs(self) -> dict[str, Any]:
        parameters = list(self.model.parameters())
        return {
            "documents_must_be_embedded_again": False,
            "parameters": sum(p.numel() for p in parameters),
            "trained_parameters": self.courses[0].parameters,
            "megabytes": round(sum(p.numel() * p.element_size() for p in parameters) / 1e6, 1),
        }

    def _notes(self) -> list[str]:
        assert self.course is not None
        chosen = self.course
        notes = [
            f"no stored vector changes; questions are embedded by a model of their own, "
            f"{self._costs()['megabytes']:.0f} MB beside the one for documents",
            f"chosen on held-out questions: learning rate {chosen.learning_rate:g}, "
            f"{chosen.share:.0%} of the schedule, {chosen.merge:.0%} of the tuned weights",
        ]
        if len(self.problem.documents) > self.options.max_documents:
            notes.append(
                f"trained against {self.options.max_documents:,} of the "
                f"{len(self.problem.documents):,} stored vectors (the relevant, the nearest and "
                "random ones), measured against all"
            )
        return [*notes, *notes_on(self.data)]


def _typical(courses: Sequence[Course]) -> Course:
    """What most folds chose; of the place in the schedule and the merge, the middle."""
    rates = [course.learning_rate for course in courses]
    rate = max(set(rates), key=lambda one: (rates.count(one), -one))
    same = [course for course in courses if course.learning_rate == rate]
    merges = sorted(course.merge for course in same)
    return replace(
        same[0],
        share=float(np.median([course.share for course in same])),
        merge=merges[(len(merges) - 1) // 2],
    )


def _hash(documents: Float32) -> str:
    import hashlib

    rows = np.unique(np.linspace(0, len(documents) - 1, 4096).astype(np.int64))
    return hashlib.sha256(np.ascontiguousarray(documents[rows]).tobytes()).hexdigest()[:16]
