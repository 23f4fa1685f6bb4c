"""The training of a cross-encoder by sentence-transformers' trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.tuning.datasets.relevance import RelevanceList
from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.rerankers.cross_options import CrossEncoderOptions
from llama_index.tuning.rerankers.cross_rows import graded_lists, positive_weight, training_rows


def train(
    model: Any,
    lists: Sequence[RelevanceList],
    held_out: Sequence[RelevanceList],
    folder: Path,
    options: CrossEncoderOptions,
    *,
    batch_size: int,
    epochs: float,
    evaluation_steps: int,
    loss: Any = None,
    show_progress: bool = False,
) -> list[dict[str, float]]:
    """Train in place; the weights with the best nDCG@10 on `held_out` remain.

    Returns:
        The training curve.
    """
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer
    from transformers import EarlyStoppingCallback, PrinterCallback

    from llama_index.tuning.rerankers.cross_evaluator import METRIC, RankingEvaluator

    rows = training_rows(graded_lists(lists, options), options.loss)
    measurable = [item.top(options.depth) for item in held_out if item.relevant]
    adapted = _with_lora(model, options)
    trainer = CrossEncoderTrainer(
        model=model,
        args=_arguments(
            folder, options, batch_size, epochs, evaluation_steps, show_progress, METRIC
        ),
        train_dataset=Dataset.from_dict(rows),
        loss=loss or make_loss(model, options.loss, rows["label"]),
        evaluator=RankingEvaluator(measurable, bf16=options.bf16),
        callbacks=[EarlyStoppingCallback(options.patience)],
    )
    trainer.remove_callback(PrinterCallback)  # the library does not print
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder) if options.resume else None)
    if adapted is not None:
        model[0].auto_model = adapted.merge_and_unload()
    return [
        {key: float(value) for key, value in entry.items() if isinstance(value, (int, float))}
        for entry in trainer.state.log_history
    ]


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


def _arguments(
    folder: Path,
    options: CrossEncoderOptions,
    batch_size: int,
    epochs: float,
    evaluation_steps: int,
    show_progress: bool,
    metric: str,
) -> Any:
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
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{metric}",
        greater_is_better=True,
        logging_steps=evaluation_steps,
        disable_tqdm=not show_progress,
        report_to=[],
        use_cpu=options.device == "cpu",
        bf16=options.bf16,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )


def _with_lora(model: Any, options: CrossEncoderOptions) -> Any:
    if not options.lora_rank:
        return None
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as exc:
        raise MissingExtraError("lora_rank", "peft", "lora") from exc
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=2 * options.lora_rank,
        target_modules="all-linear",
        modules_to_save=["classifier"],
    )
    adapted = get_peft_model(model[0].auto_model, config)
    model[0].auto_model = adapted
    return adapted


def _last_checkpoint(folder: Path) -> str | None:
    steps = [int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")]
    return str(folder / f"checkpoint-{max(steps)}") if steps else None
