"""The training of an encoder judge by sentence-transformers' trainer; imported while training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from sentence_transformers.util import batch_to_device
from torch.nn.functional import binary_cross_entropy_with_logits

from llama_index.tuning.hf import trainer as _trainer
from llama_index.tuning.hf.cross_encoders import training_arguments
from llama_index.tuning.judges.encoder.options import EncoderOptions

METRIC = "log_loss"
CHECKPOINTS = 4


class Trainer(_trainer.DurableCheckpoints, CrossEncoderTrainer):  # type: ignore[misc,unused-ignore]
    """Its last weights are taken: the verdicts of the curve must not choose."""

    def _load_best_model(self) -> None:
        """There is none."""


class WeightedCrossEntropy(torch.nn.Module):
    """Binary cross-entropy of rows that count differently; labels may lie between 0 and 1."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        inputs: list[list[str]],
        labels: list[torch.Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> torch.Tensor:
        """The weighted mean; `labels` holds a verdict and a weight for each row."""
        pairs = list(zip(*inputs, strict=True))
        features = self.model.preprocess(pairs, prompt=prompt, task=task)
        logits = self.model(batch_to_device(features, self.model.device))["scores"].view(-1)
        said, weights = torch.stack(labels).to(logits.device, logits.dtype).unbind(1)
        losses = binary_cross_entropy_with_logits(logits, said, reduction="none")
        return (losses * weights).mean()


class HeldOutLoss(BaseEvaluator):
    """The log loss of held-out verdicts, for the curve."""

    def __init__(self, loss_now: Callable[[], float], *, bf16: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.loss_now, self.bf16 = loss_now, bf16
        self.primary_metric = METRIC

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The metric, as the trainer wants it."""
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.bf16):
            return {METRIC: self.loss_now()}


def train(
    model: Any,
    rows: Mapping[str, list[Any]],
    loss_now: Callable[[], float],
    folder: Path,
    options: EncoderOptions,
    *,
    seed: int,
    identity: Mapping[str, Any],
    callbacks: Sequence[Any],
    show_progress: bool,
) -> list[dict[str, float]]:
    """Train in place; the training curve."""
    trainer = Trainer(
        model=model,
        args=training_arguments(
            folder,
            batch_size=options.batch_size,
            epochs=options.epochs,
            max_steps=options.max_steps,
            learning_rate=options.learning_rate,
            warmup=options.warmup,
            evaluation_steps=options.evaluation_steps,
            checkpoints=CHECKPOINTS,
            metric=None,
            seed=seed,
            device=options.device,
            bf16=options.bf16,
            show_progress=show_progress,
        ),
        train_dataset=Dataset.from_dict(dict(rows)),
        loss=WeightedCrossEntropy(model),
        evaluator=HeldOutLoss(loss_now, bf16=options.bf16),
        callbacks=list(callbacks),
    )
    return _trainer.train(trainer, folder, identity, resume=options.resume)
