"""Training of the query side: cross-entropy over stored document vectors, which never change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.full.data import ANCHOR, Rows
from llama_index.tuning.embeddings.full.model import (
    cloned,
    encode,
    load_model,
    merge_at,
    merge_best,
    shortened,
)
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.embeddings.full.settings import Prompts, Settings
from llama_index.tuning.embeddings.full.train import METRIC, Evaluator, train, train_again
from llama_index.tuning.evaluate.retrieval import evaluate_vectors


@dataclass(frozen=True, eq=False)
class Lesson:
    """Questions that teach.

    Attributes:
        texts: the questions.
        pairs: their relevant documents, rows of `documents`, and their weights.
        documents: unit vectors of the softmax's documents, shape `(N, dim)`.
    """

    texts: Sequence[str]
    pairs: Pairs
    documents: Float32

    def rows(self) -> Rows:
        """For the trainer: each question, and its number in this lesson."""
        rows = Rows()
        for number, text in enumerate(self.texts):
            rows.add_scored(**{ANCHOR: text, "label": number})
        return rows


@dataclass(frozen=True, eq=False)
class Deciding:
    """Questions that decide, over all stored vectors.

    Attributes:
        texts: the questions.
        positives: rows of each one's relevant documents.
        documents: all stored vectors.
    """

    texts: Sequence[str]
    positives: Sequence[Ints]
    documents: Float32


@dataclass(frozen=True)
class Course:
    """What deciding questions chose.

    Attributes:
        learning_rate: of the candidates.
        share: of the schedule's steps after which training stops.
        merge: share of the tuned weights.
        score: nDCG@10 of the deciding questions with it.
        parameters: how many are trained.
        precision: of the arithmetic.
    """

    learning_rate: float
    share: float
    merge: float
    score: float
    parameters: int
    precision: str


class StoredVectorsLoss(torch.nn.Module):
    """Cross-entropy of softmax(scale · cosine) over stored vectors.

    Relevant documents share the target's mass. `label` is a question's number in the lesson.
    """

    documents: Tensor

    def __init__(self, model: Any, lesson: Lesson, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        self.positives = lesson.pairs.positives
        self.weights = lesson.pairs.weight_column()[:, 0]
        self.register_buffer("documents", torch.from_numpy(lesson.documents), persistent=False)

    def forward(self, features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """The weighted mean over the batch."""
        (asked,) = features
        queries = self.model(asked)["sentence_embedding"].float()
        numbers = [int(number) for number in labels.tolist()]
        rows = [torch.from_numpy(self.positives[number]).to(queries.device) for number in numbers]
        weights = torch.from_numpy(self.weights[numbers]).to(queries.device)
        with torch.autocast(queries.device.type, enabled=False):
            cosines = torch.nn.functional.normalize(queries, dim=1) @ self.documents.T
            chances = (self.scale * cosines).log_softmax(1)
            losses = -torch.stack(
                [chance[own].mean() for chance, own in zip(chances, rows, strict=True)]
            )
            return (weights * losses).sum() / weights.sum()


class StoredVectorsEvaluator(Evaluator):
    """nDCG@10 of deciding questions over all stored vectors: only questions are embedded."""

    def __init__(self, deciding: Deciding, prompts: Prompts) -> None:
        super().__init__()
        self.deciding, self.prompts = deciding, prompts

    def scores(self, model: Any) -> NDArray[np.float64]:
        """The metric of each question."""
        with self.arithmetic(model):
            queries = encode(model, self.deciding.texts, self.prompts.query)
        found = evaluate_vectors(queries, self.deciding.documents, self.deciding.positives, ks=[10])
        return found.values[METRIC]


class Trainings:
    """Trainings from one base model.

    Args:
        settings: of the run.
        candidates: options to choose among.
        prompts: of questions and documents.
        scale: factor of the softmax.
        identity: what decides the weights of all of them.
    """

    def __init__(
        self,
        settings: Settings,
        candidates: Sequence[SentenceTransformersOptions],
        prompts: Prompts,
        scale: float,
        identity: dict[str, Any],
    ) -> None:
        self.settings, self.candidates = settings, candidates
        self.prompts, self.scale, self.identity = prompts, scale, identity
        self.history: list[dict[str, float]] = []

    def choose(self, name: str, lesson: Lesson, deciding: Deciding) -> tuple[Any, Course]:
        """Train with each candidate; the deciding questions choose.

        Args:
            name: of the folder for checkpoints.
            lesson: what is learnt.
            deciding: who decides.

        Returns:
            The model, and how it came about.
        """
        best: tuple[Any, Course] | None = None
        for number, options in enumerate(self.candidates):
            settings = self._settings(f"{name}-{number}", lesson, options)
            model = self.fresh()
            base = cloned(model)
            with shortened(model, options.max_length):
                done = train(
                    model,
                    lesson.rows(),
                    StoredVectorsEvaluator(deciding, self.prompts),
                    settings,
                    prompts=self.prompts,
                    guide=_no_guide,
                    identity={**self.identity, "training": name, "candidate": number},
                )
            mean = _mean(done.scores)
            share, found = merge_best(model, base, options.merge, mean)
            course = Course(
                options.learning_rate,
                done.steps / done.planned,
                share,
                found[share],
                done.parameters,
                done.precision,
            )
            self.history += [{**entry, "candidate": float(number)} for entry in done.history]
            if best is None or course.score > best[1].score:
                best = model, course
        assert best is not None
        return best

    def follow(self, name: str, lesson: Lesson, course: Course) -> Any:
        """Train from the base as far as was chosen, with nothing left to decide."""
        (options,) = [o for o in self.candidates if o.learning_rate == course.learning_rate]
        model = self.fresh()
        base = cloned(model)
        with shortened(model, options.max_length):
            train_again(
                model,
                lesson.rows(),
                self._settings(name, lesson, options),
                share=course.share,
                prompts=self.prompts,
                guide=_no_guide,
                identity={**self.identity, "training": name, "share": course.share},
            )
        merge_at(model, base, course.merge)
        return model

    def fresh(self) -> Any:
        """The base model, to be trained."""
        settings = self.settings
        return load_model(settings.model_id, settings.device, settings.trust_remote_code)

    def _settings(
        self, name: str, lesson: Lesson, options: SentenceTransformersOptions
    ) -> Settings:
        schedule = self.settings.schedule
        passes = max(1, len(lesson.texts) // schedule.batch_size)
        return replace(
            self.settings,
            checkpoints=self.settings.checkpoints / name,
            loss=lambda model: StoredVectorsLoss(model, lesson, self.scale),
            options=options,
            schedule=replace(schedule, evaluation_steps=max(1, passes // 2)),
        )


def _mean(scores: Callable[[Any], NDArray[np.float64]]) -> Callable[[Any], float]:
    return lambda model: float(scores(model).mean())


def _no_guide() -> Any:
    raise AssertionError("only a GIST loss asks a guide")
