"""The training of a cross-encoder by sentence-transformers' trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from llama_index.tuning._quiet import no_bars
from llama_index.tuning.datasets.relevance import RelevanceList
from llama_index.tuning.rerankers.cross_options import CrossEncoderOptions
from llama_index.tuning.rerankers.cross_rows import positive_weight


def train(
    model: Any,
    rows: Mapping[str, list[Any]],
    held_out: Sequence[RelevanceList],
    folder: Path,
    options: CrossEncoderOptions,
    *,
    batch_size: int,
    epochs: float,
    evaluation_steps: int,
    identity: Mapping[str, Any],
    loss: Any = None,
    show_progress: bool = False,
) -> list[dict[str, float]]:
    """Train in place; the weights with the best nDCG@10 on `held_out` remain.

    Args:
        rows: of `training_rows`.
        held_out: lists to stop by.
        identity: names data and model, so that nothing goes on from another run's checkpoint.

    Returns:
        The training curve.
    """
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer
    from transformers import EarlyStoppingCallback

    from llama_index.tuning import _trainer
    from llama_index.tuning.rerankers.cross_evaluator import METRIC, RankingEvaluator

    class Trainer(_trainer.DurableCheckpoints, CrossEncoderTrainer):  # type: ignore[misc,unused-ignore]
        pass

    measurable = [item.top(options.depth) for item in held_out if item.relevant]
    lora = None
    if options.lora_rank:
        lora = _trainer.add_lora(model[0].auto_model, options.lora_rank, save=["classifier"])
    trainer = Trainer(
        model=model,
        args=arguments(
            folder, options, batch_size, epochs, evaluation_steps, show_progress, METRIC
        ),
        train_dataset=Dataset.from_dict(dict(rows)),
        loss=loss or make_loss(model, options.loss, rows["label"]),
        evaluator=RankingEvaluator(measurable, bf16=options.bf16),
        callbacks=[EarlyStoppingCallback(options.patience)],
    )
    whole = {
        **identity,
        **asdict(replace(options, resume=False)),
        "batch_size": batch_size,
        "epochs": epochs,
        "evaluation_steps": evaluation_steps,
    }
    with nullcontext() if show_progress else no_bars():  # of the checkpoints
        history = _trainer.train(trainer, folder, whole, resume=options.resume)
    if lora is not None:
        lora.merge_and_unload()
    return history


def make_loss(model: Any, name: str, labels: Sequence[Any]) -> Any:
    """The loss of that name, by sentence-transformers."""
    from sentence_transformers.cross_encoder import losses
    from torch import tensor

    if name == "bce":
        weight = tensor(positive_weight(labels))
        return losses.BinaryCrossEntropyLoss(model, pos_weight=weight.to(model.device))
    named = {
        "lambda": losses.LambdaLoss,
        "listnet": losses.ListNetLoss,
        "ranknet": losses.RankNetLoss,
        "margin_mse": losses.MarginMSELoss,
        "adr_mse": losses.ADRMSELoss,
    }
    return named[name](model)


def arguments(
    folder: Path,
    options: CrossEncoderOptions,
    batch_size: int,
    epochs: float,
    evaluation_steps: int,
    show_progress: bool,
    metric: str | None,
) -> Any:
    """The trainer's arguments; without `metric` the last weights remain, not the best."""
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    per_step = max(1, batch_size // 8) if options.loss not in ("bce", "margin_mse") else batch_size
    return CrossEncoderTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=per_step,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,
        seed=options.seed,
        data_seed=options.seed,
        eval_strategy="steps",
        eval_steps=evaluation_steps,
        save_strategy="steps",
        save_steps=evaluation_steps,
        save_total_limit=options.patience + 1,
        load_best_model_at_end=metric is not None,
        metric_for_best_model=None if metric is None else f"eval_{metric}",
        greater_is_better=True,
        logging_steps=evaluation_steps,
        disable_tqdm=not show_progress,
        report_to=[],
        use_cpu=options.device == "cpu",
        bf16=options.bf16,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
