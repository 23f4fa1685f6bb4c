"""Cross-encoders of sentence-transformers: loading, raw outputs, training arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llama_index.tuning._arrays import Float64
from llama_index.tuning.errors import ArtifactError, MissingExtraError
from llama_index.tuning.hf.processes import BUILDING, no_bars


def cross_encoder_class() -> Any:
    """The class of sentence-transformers.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as exc:
        raise MissingExtraError(
            "a cross-encoder", "sentence-transformers", "sentence-transformers"
        ) from exc
    return CrossEncoder


def load_cross_encoder(model: Any, *, device: str | None, trust_remote_code: bool) -> Any:
    """A sentence-transformers cross-encoder with one output.

    Args:
        model: name or folder.
        device: what it runs on; chosen by sentence-transformers by default.
        trust_remote_code: run code that the model brings along.
    """
    made_of = cross_encoder_class()
    try:
        with BUILDING, no_bars():
            return made_of(
                str(model),
                num_labels=1,
                device=device,
                trust_remote_code=trust_remote_code,
            )
    except (OSError, ValueError, RuntimeError) as exc:  # the last: a head with other outputs
        outputs = _outputs_of(model, trust_remote_code)
        if outputs > 1:
            raise ArtifactError(
                f"{model} is a classifier of {outputs} outputs, and a re-ranker gives one score: "
                "choose a model with one output (num_labels 1), or an encoder, whose head is new"
            ) from exc
        raise ArtifactError(f"{model} holds no cross-encoder that loads: {exc}") from exc


def _outputs_of(model: Any, trust_remote_code: bool) -> int:
    """Outputs of a classifier by its configuration; 0 if there is none."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return 0
    return int(getattr(config, "num_labels", 0) or 0)


def predict(model: Any, pairs: Sequence[tuple[str, str]], batch_size: int) -> Float64:
    """The model's raw outputs, shape `(n,)`.

    Raises:
        ArtifactError: it gives something else than one finite number a pair.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": False}
    if hasattr(model, "activation_fn"):
        from torch.nn import Identity

        options["activation_fn"] = Identity()
    scores = np.asarray(model.predict(list(pairs), **options), dtype=np.float64)
    if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
        raise ArtifactError(
            f"the cross-encoder must give one finite number for each of {len(pairs)} pairs, got "
            f"shape {scores.shape}{'' if np.isfinite(scores).all() else ' with NaN or infinity'}"
        )
    return scores


def training_arguments(
    folder: Path,
    *,
    batch_size: int,
    epochs: float,
    max_steps: int,
    learning_rate: float,
    warmup: float,
    evaluation_steps: int,
    checkpoints: int,
    metric: str | None,
    seed: int,
    device: str | None,
    bf16: bool,
    show_progress: bool,
) -> Any:
    """The arguments of sentence-transformers' cross-encoder trainer.

    Args:
        folder: of the checkpoints.
        batch_size: rows in a step.
        epochs: passes over the rows.
        max_steps: steps instead of `epochs`; -1 for none.
        learning_rate: the highest.
        warmup: share of the steps, or a number of them.
        evaluation_steps: steps between two evaluations, each with a checkpoint.
        checkpoints: how many are kept at most.
        metric: the checkpoint that is best by it is loaded at the end; without, the last stays.
        seed: of the weights that are new, and of the order of the rows.
        device: `"cpu"` keeps to it.
        bf16: compute in bfloat16 if that is safe.
        show_progress: show bars.
    """
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    return CrossEncoderTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        max_steps=max_steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup,
        seed=seed,
        data_seed=seed,
        eval_strategy="steps",
        eval_steps=evaluation_steps,
        save_strategy="steps",
        save_steps=evaluation_steps,
        save_total_limit=checkpoints,
        load_best_model_at_end=metric is not None,
        metric_for_best_model=None if metric is None else f"eval_{metric}",
        greater_is_better=True,
        logging_steps=evaluation_steps,
        disable_tqdm=not show_progress,
        report_to=[],
        use_cpu=device == "cpu",
        bf16=bf16,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
