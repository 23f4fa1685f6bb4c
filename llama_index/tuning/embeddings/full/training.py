"""Training by sentence-transformers' trainer; imported while training only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed

from llama_index.tuning import _trainer
from llama_index.tuning._processes import process_count
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.full.evaluator import METRIC, DecidingEvaluator
from llama_index.tuning.embeddings.full.losses import make_loss
from llama_index.tuning.embeddings.full.model import (
    Arithmetic,
    freeze,
    freeze_unreached,
    precision_of,
    trainable,
)
from llama_index.tuning.embeddings.full.prompts import Prompts
from llama_index.tuning.embeddings.full.rows import Rows
from llama_index.tuning.embeddings.full.sampler import ApartBatchSampler
from llama_index.tuning.embeddings.full.settings import Settings


@dataclass(frozen=True)
class Trained:
    """What training left beside the model.

    Attributes:
        history: the training curve.
        parameters: how many were trained.
        steps: how many steps were made.
        precision: of the arithmetic.
        score: nDCG@10 of a model on the deciding queries.
    """

    history: list[dict[str, float]]
    parameters: int
    steps: int
    precision: Arithmetic
    score: Callable[[Any], float]


class Trainer(_trainer.DurableCheckpoints, SentenceTransformerTrainer):  # type: ignore[misc,unused-ignore]
    """sentence-transformers' trainer with checkpoints that can be trusted."""


def train(
    model: Any,
    rows: Rows,
    decide: RetrievalDataset,
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
        decide: the deciding queries and the documents that they search.
        settings: of the run.
        prompts: of queries and documents.
        guide: makes the guide of a GIST loss.
        identity: what a checkpoint must have come from to go on from it.
    """
    options, schedule = settings.options, settings.schedule
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
    parameters = trainable(model)
    precision = precision_of(options, model.device)
    evaluator = DecidingEvaluator(decide, prompts, bf16=precision == "bf16")
    trainer = Trainer(
        model=model,
        args=_arguments(settings, precision, model, rows, prompts),
        train_dataset=Dataset.from_dict(rows.columns),
        loss=make_loss(model, settings.loss, options, guide, together=process_count() > 1),
        evaluator=evaluator,
        callbacks=[EarlyStoppingCallback(options.patience), *settings.callbacks],
    )
    trainer.tolerance = options.tolerance
    if schedule.save_checkpoints:
        trainer.loadable = True
        trainer.add_callback(_SaveEvery(schedule.save_steps))
    history = _trainer.train(trainer, settings.checkpoints, identity, resume=schedule.resume)
    if lora is not None:
        lora.merge_and_unload()
    return Trained(
        history,
        parameters,
        int(trainer.state.global_step),
        precision,
        lambda tuned: evaluator(tuned)[METRIC],
    )


def _arguments(
    settings: Settings, precision: Arithmetic, model: Any, rows: Rows, prompts: Prompts
) -> SentenceTransformerTrainingArguments:
    options, schedule = settings.options, settings.schedule

    def sampler(dataset: Any, **arguments: Any) -> ApartBatchSampler:
        return ApartBatchSampler(
            dataset,
            shown=rows.shown,
            barred=rows.barred,
            processes=process_count(),
            **arguments,
        )

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(settings.checkpoints),
        num_train_epochs=schedule.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=schedule.batch_size // process_count(),
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=options.warmup,
        seed=options.seed,
        data_seed=options.seed,
        batch_sampler=sampler,  # type: ignore[arg-type,unused-ignore]
        prompts=prompts.columns(list(rows.columns)) or None,  # type: ignore[arg-type,unused-ignore]
        eval_strategy="steps",
        eval_steps=schedule.evaluation_steps,
        save_strategy="steps",
        save_steps=schedule.evaluation_steps,
        # The best one and the last are needed; the user may want more.
        save_total_limit=schedule.save_limit if schedule.save_checkpoints else 2,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{METRIC}",
        greater_is_better=True,
        logging_steps=schedule.evaluation_steps,
        disable_tqdm=not schedule.show_progress,
        report_to=list(options.report_to),
        use_cpu=model.device.type == "cpu",
        dataloader_drop_last=True,
        dataloader_pin_memory=model.device.type == "cuda",
        ddp_find_unused_parameters=False,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
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
