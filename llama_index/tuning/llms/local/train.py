"""The training itself, by TRL's stable trainers, on rows that we tokenised.

Checkpoints that are known to be whole.

The trainer takes the highest number without a look inside; a checkpoint that lost its random
state, say, would be trained on from, silently, to other weights. So each one gets a last file
with the checksums of all others, and what has none, or does not match it, is not resumed from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index.tuning._running import ThreadLock, is_main_process, process_count
from llama_index.tuning.errors import MissingExtraError, TuningError
from llama_index.tuning.hf.checkpoints import fault_of, mark_complete, step_number, training_curve
from llama_index.tuning.hf.processes import no_bars, no_telemetry, on_main, wait_for_all
from llama_index.tuning.llms.local.data import Row
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.serving.loading import Source, load_model

_TRAINING = ThreadLock()
"""The random state belongs to the process: two trainings at once would draw from each other's."""


@dataclass
class Trained:
    """A trained model, its training curve, and what happened on the way."""

    model: Any
    history: list[dict[str, float]]
    notes: list[str] = field(default_factory=list)


LORA_ALPHA = 32
"""The updates are scaled by this over their rank."""


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
        lora_alpha=LORA_ALPHA,
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
        "lr_scheduler_type": "cosine",
        "warmup_steps": options.warmup,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
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


logger = logging.getLogger(__name__)


def newest_complete(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and a sentence for each newer one that is not.

    Those that are not whole are deleted, so that nothing resumes from them.
    """
    skipped: list[str] = []
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_number, reverse=True):
        found = fault_of(checkpoint)
        if found is None:
            return checkpoint, skipped
        skipped.append(f"{checkpoint.name} is skipped: {found}")
        logger.warning("%s in %s", skipped[-1], folder)
        shutil.rmtree(checkpoint)
    return None, skipped


def step_of(checkpoint: Path) -> tuple[int, int]:
    """(steps done, steps of the whole run) of a checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state["global_step"]), int(state["max_steps"])


def history_of(checkpoint: Path) -> list[dict[str, Any]]:
    """The training curve up to a checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return list(state["log_history"])


def run_fingerprint(parts: Mapping[str, Any]) -> str:
    """A short hash of all that decides the weights: a checkpoint belongs to one run."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
