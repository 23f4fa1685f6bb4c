"""Training by sentence-transformers' trainer, with batches free of false negatives."""

from __future__ import annotations

import contextlib
import logging
import random
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.sampler import DefaultBatchSampler
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed

from llama_index.tuning._running import process_count
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.adapter.measure import positive_rows
from llama_index.tuning.embeddings.full.data import Rows
from llama_index.tuning.embeddings.full.model import (
    Arithmetic,
    encode,
    freeze,
    freeze_unreached,
    precision_of,
    trainable,
)
from llama_index.tuning.embeddings.full.settings import Prompts, Settings, make_loss
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.evaluate.retrieval import evaluate_vectors
from llama_index.tuning.hf import trainer as _trainer

WARMUP = 0.1
"""Share of the steps."""
PATIENCE = 3
"""Evaluations without a better nDCG@10 before training stops."""


@dataclass(frozen=True)
class Trained:
    """What training left beside the model.

    Attributes:
        history: the training curve.
        parameters: how many were trained.
        steps: how many steps the weights that remained have made.
        planned: steps of the whole schedule.
        precision: of the arithmetic.
        scores: nDCG@10 of a model on each of the deciding queries.
    """

    history: list[dict[str, float]]
    parameters: int
    steps: int
    planned: int
    precision: Arithmetic
    scores: Callable[[Any], NDArray[np.float64]]


class Trainer(_trainer.DurableCheckpoints, SentenceTransformerTrainer):  # type: ignore[misc,unused-ignore]
    """sentence-transformers' trainer with checkpoints that can be trusted."""


def train(
    model: Any,
    rows: Rows,
    evaluator: Evaluator,
    settings: Settings,
    *,
    prompts: Prompts,
    guide: Callable[[], Any],
    identity: dict[str, Any],
) -> Trained:
    """Train in place; the checkpoint that is best on the deciding queries remains.

    Args:
        model: the SentenceTransformer.
        rows: what it learns from.
        evaluator: scores the deciding queries.
        settings: of the run.
        prompts: of queries and documents.
        guide: makes the guide of a GIST loss.
        identity: what a checkpoint must have come from to go on from it.
    """
    options = settings.options
    precision = precision_of(options, model.device)
    evaluator.bf16 = precision == "bf16"
    decides = _steps(rows, settings) > settings.schedule.evaluation_steps
    # The best one and the last are needed; the user may want more.
    arguments: dict[str, Any] = {"output_dir": str(settings.checkpoints), "save_total_limit": 2}
    with _prepared(model, settings) as parameters:
        trainer = _trainer_of(
            model,
            rows,
            settings,
            prompts=prompts,
            guide=guide,
            evaluator=evaluator if decides else None,
            **(arguments | _looks(settings) if decides else arguments),
        )
        # A single look, at the end, would decide nothing: it is not worth its cost.
        trainer.add_callback(EarlyStoppingCallback(PATIENCE) if decides else _StopAt(1.0))
        trainer.tolerance = options.tolerance
        history = _trainer.train(
            trainer, settings.checkpoints, identity, resume=settings.schedule.resume
        )
    # A callback of the user's may have stopped it before the first look.
    steps = int(trainer.state.global_step) if trainer.kept is None else trainer.kept
    return Trained(
        history, parameters, steps, int(trainer.state.max_steps), precision, evaluator.scores
    )


def train_again(
    model: Any,
    rows: Rows,
    settings: Settings,
    *,
    share: float,
    prompts: Prompts,
    guide: Callable[[], Any],
    identity: dict[str, Any],
) -> int:
    """Train in place as far as was decided, with nothing left to decide on.

    Args:
        model: a fresh base.
        rows: what it learns from.
        settings: of the run.
        share: of the schedule's steps after which training stops: the schedule is longer with
            more pairs, and what was decided is a place in it.
        prompts: of queries and documents.
        guide: makes the guide of a GIST loss.
        identity: what a checkpoint must have come from to go on from it.

    Returns:
        How many steps were made.
    """
    folder = settings.refit_checkpoints
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "eval_strategy": "no",
        "save_total_limit": 1,
    }
    with _prepared(model, settings):
        trainer = _trainer_of(model, rows, settings, prompts=prompts, guide=guide, **arguments)
        trainer.add_callback(_StopAt(share))
        _trainer.train(trainer, folder, identity, resume=settings.schedule.resume)
    return int(trainer.state.global_step)


def _looks(settings: Settings) -> dict[str, Any]:
    """Arguments of a trainer that keeps its best checkpoint."""
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.schedule.evaluation_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{METRIC}",
        "greater_is_better": True,
    }


def _steps(rows: Rows, settings: Settings) -> int:
    """Of the whole schedule."""
    if settings.options.max_steps > 0:
        return settings.options.max_steps
    return settings.schedule.epochs * -(-len(rows) // settings.schedule.batch_size)


@contextmanager
def _prepared(model: Any, settings: Settings) -> Iterator[int]:
    """The model as it is trained, and how many of its parameters are; plain again afterwards."""
    options = settings.options
    set_seed(options.seed)  # low-rank updates start at random
    freeze(model, options.freeze)
    lora = None
    if options.lora_rank:
        lora = _trainer.add_lora(model.transformers_model, options.lora_rank)
    if options.gradient_checkpointing:
        transformer = model.transformers_model
        # The older name goes in transformers 6, the newer came late in 5.
        newer = getattr(transformer, "activation_checkpointing_enable", None)
        (newer or transformer.gradient_checkpointing_enable)()
    freeze_unreached(model)
    with contextlib.nullcontext() if lora else _trainer.full_precision(model):
        yield trainable(model)
    if lora is not None:
        lora.merge_and_unload()


def _trainer_of(
    model: Any,
    rows: Rows,
    settings: Settings,
    *,
    prompts: Prompts,
    guide: Callable[[], Any],
    evaluator: Evaluator | None = None,
    **arguments: Any,
) -> Trainer:
    """A trainer that is set up but for what only one of the two trainings wants."""
    options, schedule = settings.options, settings.schedule
    if schedule.save_checkpoints:
        arguments["save_total_limit"] = schedule.save_limit
    trainer = Trainer(
        model=model,
        args=_arguments(settings, model, rows, prompts, **arguments),
        train_dataset=Dataset.from_dict(rows.columns),
        loss=make_loss(model, settings.loss, options, guide, together=process_count() > 1),
        evaluator=evaluator,
        callbacks=list(settings.callbacks),
    )
    if schedule.save_checkpoints:
        trainer.loadable = True
        trainer.add_callback(_SaveEvery(schedule.save_steps))
    return trainer


def _arguments(
    settings: Settings, model: Any, rows: Rows, prompts: Prompts, **more: Any
) -> SentenceTransformerTrainingArguments:
    options, schedule = settings.options, settings.schedule
    precision = precision_of(options, model.device)

    def sampler(dataset: Any, **arguments: Any) -> ApartBatchSampler:
        return ApartBatchSampler(
            dataset,
            shown=rows.shown,
            barred=rows.barred,
            processes=process_count(),
            **arguments,
        )

    arguments = SentenceTransformerTrainingArguments(
        num_train_epochs=schedule.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=schedule.batch_size // process_count(),
        learning_rate=options.learning_rate,
        warmup_steps=WARMUP,
        seed=options.seed,
        data_seed=options.seed,
        batch_sampler=sampler,  # type: ignore[arg-type,unused-ignore]
        prompts=prompts.columns(list(rows.columns)) or None,  # type: ignore[arg-type,unused-ignore]
        save_strategy="steps",
        save_steps=schedule.evaluation_steps,
        logging_steps=schedule.evaluation_steps,
        disable_tqdm=not schedule.show_progress,
        report_to=[],
        use_cpu=model.device.type == "cpu",
        dataloader_drop_last=True,
        dataloader_pin_memory=model.device.type == "cuda",
        ddp_find_unused_parameters=False,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        **more,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs: one process each, by torchrun
    return arguments


class _SaveEvery(TrainerCallback):
    """Checkpoints between the evaluations."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.steps == 0:
            control.should_save = True


class _StopAt(TrainerCallback):
    """Stops at a share of the schedule, with a checkpoint."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= max(1, round(self.share * state.max_steps)):
            control.should_save = control.should_training_stop = True


logger = logging.getLogger(__name__)


class ApartBatchSampler(DefaultBatchSampler):
    """Batches in which no row holds a document that is relevant to another row's query.

    A batch is made for all processes together and cut in the order of their ranks, so the rule
    holds across them, and several processes see the batches that one would see. Where fewer fit
    together than a batch has, such as with fewer documents than that, the batch is smaller.

    Args:
        dataset: the rows.
        batch_size: rows of one process.
        shown: for each row the documents in it.
        barred: for each row what must not be shown in another.
        processes: how many processes train together.
        seed: of the order; each epoch has its own.
    """

    def __init__(
        self,
        dataset: object,
        batch_size: int,
        *,
        shown: Sequence[frozenset[bytes]],
        barred: Sequence[frozenset[bytes]],
        processes: int = 1,
        seed: int = 0,
        **_: object,  # what else the trainer hands to a sampler
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=True, seed=seed)
        self.shown, self.barred = shown, barred
        self.processes = processes
        self._said = False

    def __len__(self) -> int:
        return self.batches * self.processes

    @property
    def batches(self) -> int:
        """Of a pass: the last is filled up, so that no row is left out."""
        return -(-len(self.shown) // self.whole)

    @property
    def whole(self) -> int:
        """Rows of all processes' batches of one step."""
        return int(self.batch_size) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self.seed}/{self.epoch}")
        waiting: deque[int] = deque()
        for _ in range(self.batches):
            batch = self._batch(waiting)
            if len(batch) < self.whole:
                # What is left of a pass need not fit together: a fresh one fills up.
                fresh = list(range(len(self.shown)))
                draw.shuffle(fresh)
                waiting.extendleft(reversed(batch))
                waiting.extend(fresh)
                batch = self._batch(waiting)
            if len(batch) < self.whole:
                self._smaller(len(batch))
                waiting.clear()
            for start in range(0, len(batch), int(self.batch_size)):
                yield batch[start : start + int(self.batch_size)]

    def _smaller(self, size: int) -> None:
        """A batch that holds all that fit together is taken, if it teaches anything.

        Raises:
            DatasetError: it does not, or several processes wait for rows of it.
        """
        if size < 2 or self.processes > 1:
            raise DatasetError(
                f"no {self.whole} training pairs can stand in one batch without sharing relevant "
                f"documents, at most {size} can; choose a smaller batch_size, or add documents"
            )
        if not self._said:
            self._said = True
            logger.warning(
                "batches hold about %d pairs, not %d: others share relevant documents with them",
                size,
                self.whole,
            )

    def _batch(self, waiting: deque[int]) -> list[int]:
        """Take the first rows that fit together; the others keep their order."""
        batch: list[int] = []
        shown: set[bytes] = set()
        barred: set[bytes] = set()
        later: list[int] = []
        while waiting and len(batch) < self.whole:
            row = waiting.popleft()
            if shown.isdisjoint(self.barred[row]) and barred.isdisjoint(self.shown[row]):
                batch.append(row)
                shown |= self.shown[row]
                barred |= self.barred[row]
            else:
                later.append(row)
        waiting.extendleft(reversed(later))
        return batch


METRIC = "ndcg@10"


class Evaluator(BaseEvaluator):
    """nDCG@10 of deciding queries, as the trainer asks for it.

    Attributes:
        bf16: embed in that precision, as training does: it only compares.
    """

    bf16 = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.primary_metric = METRIC

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The metric, as the trainer wants it."""
        return {METRIC: float(self.scores(model).mean())}

    @abstractmethod
    def scores(self, model: Any) -> NDArray[np.float64]:
        """The metric of each query."""

    def arithmetic(self, model: Any) -> contextlib.AbstractContextManager[Any]:
        """The precision that texts are embedded in."""
        import torch

        low = torch.autocast(model.device.type, torch.bfloat16)
        return low if self.bf16 else contextlib.nullcontext()


class DecidingEvaluator(Evaluator):
    """nDCG@10 of exact search, on queries that are not trained on.

    Args:
        dataset: the queries, and the documents that they search.
        prompts: of queries and documents.
    """

    def __init__(self, dataset: RetrievalDataset, prompts: Prompts) -> None:
        super().__init__()
        self.dataset, self.prompts = dataset, prompts
        self.positives = positive_rows(dataset)

    def scores(self, model: Any) -> NDArray[np.float64]:
        """The metric of each query."""
        with self.arithmetic(model):
            queries = encode(model, list(self.dataset.queries.values()), self.prompts.query)
            documents = encode(model, list(self.dataset.corpus.values()), self.prompts.document)
        return evaluate_vectors(queries, documents, self.positives, ks=[10]).values[METRIC]
