"""The training itself, by TRL's stable trainers, on rows that we tokenised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index.tuning._async import ThreadLock
from llama_index.tuning._checkpoints import mark_complete, training_curve
from llama_index.tuning._processes import (
    is_main_process,
    on_main,
    process_count,
    wait_for_all,
)
from llama_index.tuning._quiet import no_bars, no_telemetry
from llama_index.tuning.errors import MissingExtraError, TuningError
from llama_index.tuning.llms.checkpoints import (
    history_of,
    newest_complete,
    step_of,
)
from llama_index.tuning.llms.loading import Source, load_model
from llama_index.tuning.llms.options import HuggingFaceOptions
from llama_index.tuning.llms.rows import Row

_TRAINING = ThreadLock()
"""The random state belongs to the process: two trainings at once would draw from each other's."""


@dataclass
class Trained:
    """A trained model, its training curve, and what happened on the way."""

    model: Any
    history: list[dict[str, float]]
    notes: list[str] = field(default_factory=list)


def train(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    folder: Path,
    options: HuggingFaceOptions,
    *,
    max_length: int,
    show_progress: bool = False,
    callbacks: Sequence[Any] = (),
) -> Trained:
    """Train a loaded model; go on from the newest whole checkpoint in `folder`, if there is one.

    Threads train one after the other.

    Args:
        model: the base model; it is trained in place.
        tokenizer: its tokenizer.
        rows: what to learn from.
        folder: checkpoints of this run and of no other.
        options: how to train.
        max_length: longest row, which packing fills.
        show_progress: show a bar.
        callbacks: `TrainerCallback`s of transformers.
    """
    notes: list[str] = []
    start: Path | None = None
    if options.resume:
        found, notes = on_main(lambda: newest_complete(folder))
        start = found
    if start is not None and step_of(start)[0] >= step_of(start)[1]:
        notes.append("the training had been finished before; its last checkpoint was taken")
        return Trained(_weights_of(start, model, options), training_curve(history_of(start)), notes)
    with _TRAINING:
        trainer = _trainer(model, tokenizer, rows, folder, options, max_length, show_progress)
        for callback in [_marker(), *callbacks]:
            trainer.add_callback(callback)
        if start is not None:
            notes.append(f"resumed at step {step_of(start)[0]}")
        with no_bars():
            trainer.train(resume_from_checkpoint=None if start is None else str(start))
    return Trained(trainer.model, training_curve(trainer.state.log_history), notes)


def check_finite(model: Any) -> None:
    """A training that diverged leaves weights that are no numbers; nothing is to be had of them.

    Raises:
        TuningError: naming the first of them.
    """
    import torch

    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise TuningError(
                f"the training diverged: {name} holds values that are no numbers; nothing is "
                "saved. Try a lower learning_rate"
            )


def steps_of_run(n_rows: int, options: HuggingFaceOptions) -> int:
    """Steps that a run takes, all processes together."""
    if options.max_steps > 0:
        return options.max_steps
    batch = options.batch_size * process_count()
    per_epoch = math.ceil(math.ceil(n_rows / batch) / options.gradient_accumulation)
    return max(1, math.ceil(options.epochs * per_epoch))


def lora_config(options: HuggingFaceOptions) -> Any:
    """PEFT's description of the updates; None: all weights are trained."""
    if options.weights == "full":
        return None
    try:
        from peft import LoraConfig
    except ImportError as exc:
        raise MissingExtraError("weights='lora'", "peft", "llm") from exc
    targets = options.target_modules
    return LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def _trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    folder: Path,
    options: HuggingFaceOptions,
    max_length: int,
    show_progress: bool,
) -> Any:
    from datasets import Dataset
    from transformers import PrinterCallback

    arguments = _arguments(folder, options, model.device.type == "cpu", show_progress)
    with no_bars(), no_telemetry():
        if options.method == "dpo":
            columns = {
                "prompt_ids": [row.input_ids[: row.prompt_length] for row in rows],
                "chosen_ids": [row.input_ids[row.prompt_length :] for row in rows],
                "rejected_ids": [row.worse for row in rows],
            }
            trainer = _dpo_trainer(model, tokenizer, Dataset.from_dict(columns), options, arguments)
        else:
            columns = {
                "input_ids": [row.input_ids for row in rows],
                "labels": [row.labels for row in rows],
            }
            data = Dataset.from_dict(columns)
            trainer = _sft_trainer(model, tokenizer, data, options, arguments, max_length)
    trainer.remove_callback(PrinterCallback)  # the library does not print
    return trainer


def _sft_trainer(
    model: Any,
    tokenizer: Any,
    data: Any,
    options: HuggingFaceOptions,
    arguments: dict[str, Any],
    max_length: int,
) -> Any:
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined,unused-ignore]

    packing = (
        {"packing": True, "max_length": max_length}
        if options.packing
        else {
            "max_length": None,
            "dataset_kwargs": {"skip_prepare_dataset": True},  # ours is prepared
        }
    )
    return SFTTrainer(
        model=model,
        args=SFTConfig(**arguments, **packing),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora_config(options),
    )


def _dpo_trainer(
    model: Any, tokenizer: Any, data: Any, options: HuggingFaceOptions, arguments: dict[str, Any]
) -> Any:
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined,unused-ignore]

    class TokenizedDPOTrainer(DPOTrainer):  # type: ignore[misc,unused-ignore]
        """TRL's trainer on pairs that have been tokenised."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return TokenizedDPOTrainer(
        model=model,
        args=DPOConfig(**arguments, beta=options.beta, max_length=None),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora_config(options),
    )


def _arguments(
    folder: Path, options: HuggingFaceOptions, on_cpu: bool, show_progress: bool
) -> dict[str, Any]:
    """Every setting that has a surprising default is given explicitly."""
    import torch

    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not on_cpu
    return {
        "output_dir": str(folder),
        "num_train_epochs": options.epochs,
        "max_steps": options.max_steps,
        "per_device_train_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.gradient_accumulation,
        "learning_rate": options.learning_rate_used,
        "lr_scheduler_type": options.scheduler,
        "warmup_steps": options.warmup,
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "seed": options.seed,
        "data_seed": options.seed,
        "bf16": half,
        "fp16": False,
        "use_cpu": on_cpu,
        _checkpointing_name(): options.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": options.save_steps,
        "save_total_limit": 2,  # the one before stays until the newest is whole
        "logging_steps": 10,
        "disable_tqdm": not show_progress,
        "report_to": [],
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
    }


def _checkpointing_name() -> str:
    from trl import SFTConfig  # type: ignore[attr-defined,unused-ignore]

    new = "activation_checkpointing"  # since transformers 5
    return new if new in SFTConfig.__dataclass_fields__ else "gradient_checkpointing"


def _marker() -> Any:
    from transformers import TrainerCallback

    class MarkComplete(TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Marks each checkpoint once every process has written its part."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            wait_for_all()
            if is_main_process():
                mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            wait_for_all()

    return MarkComplete()


def _weights_of(checkpoint: Path, base: Any, options: HuggingFaceOptions) -> Any:
    """The model with a checkpoint's weights."""
    if options.weights == "full":
        device = str(base.device)
        return load_model(Source(str(checkpoint), local=True), device=device, train_all=True)
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(checkpoint), is_trainable=False)
