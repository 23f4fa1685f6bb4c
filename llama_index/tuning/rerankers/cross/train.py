"""The training of a cross-encoder: its rows, in the shape that the loss wants, and the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_index.tuning.datasets.records import RelevanceList
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.hf.cross_encoders import training_arguments
from llama_index.tuning.hf.processes import no_bars
from llama_index.tuning.rerankers.cross.options import CrossEncoderOptions

WARMUP = 0.1
"""Share of the steps spent warming up."""
PATIENCE = 3
"""Evaluations of nDCG@10 without a gain before training stops."""


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
    callbacks: Sequence[Any] = (),
    show_progress: bool = False,
) -> list[dict[str, float]]:
    """Train in place; the weights with the best nDCG@10 on `held_out` remain.

    Args:
        rows: of `training_rows`.
        held_out: lists to stop by.
        identity: names data and model, so that nothing goes on from another run's checkpoint.
        callbacks: `TrainerCallback`s of transformers.

    Returns:
        The training curve.
    """
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer
    from transformers import EarlyStoppingCallback

    from llama_index.tuning.hf import trainer as _trainer
    from llama_index.tuning.rerankers.cross.evaluator import METRIC, RankingEvaluator

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
        loss=make_loss(model, loss or options.loss, rows["label"]),
        evaluator=RankingEvaluator(measurable, bf16=options.bf16),
        callbacks=[EarlyStoppingCallback(PATIENCE), *callbacks],
    )
    whole = {
        **identity,
        **asdict(replace(options, resume=False)),
        "batch_size": batch_size,
        "epochs": epochs,
        "evaluation_steps": evaluation_steps,
    }
    with (
        nullcontext() if show_progress else no_bars(),  # of the checkpoints
        nullcontext() if lora else _trainer.full_precision(model),
    ):
        history = _trainer.train(trainer, folder, whole, resume=options.resume)
    if lora is not None:
        lora.merge_and_unload()
    return history


def make_loss(model: Any, name: Any, labels: Sequence[Any]) -> Any:
    """The loss of that name, by sentence-transformers; or an object or function of the user's."""
    from sentence_transformers.cross_encoder import losses
    from torch import tensor
    from torch.nn import Module

    from llama_index.tuning.hf.trainer import on_model

    if not isinstance(name, str):
        return on_model(name, model) if isinstance(name, Module) else name(model)
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
    by_pair = options.loss in ("bce", "margin_mse")
    return training_arguments(
        folder,
        batch_size=batch_size if by_pair else max(1, batch_size // 8),
        epochs=epochs,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        warmup=WARMUP,
        evaluation_steps=evaluation_steps,
        checkpoints=PATIENCE + 1,
        metric=metric,
        seed=options.seed,
        device=options.device,
        bf16=options.bf16,
        show_progress=show_progress,
    )


Graded = tuple[str, list[str], list[float]]


def graded_lists(lists: Sequence[RelevanceList], options: CrossEncoderOptions) -> list[Graded]:
    """(query, texts, scores): what is relevant, hard negatives, random negatives.

    A list with several grades (a teacher's) keeps all its candidates.
    """
    rng = np.random.default_rng(options.seed)
    # What a teacher would give a text that it was never shown is not known, but hardly more than
    # the least it gave to any that was found. Where its scale does not begin at 0 (cosines,
    # grades from 1), a 0 would be a margin that it never showed. A single grade makes no scale.
    grades = {c.score for item in lists for c in item.candidates}
    least = min(grades) if len(grades) > 1 else 0.0
    # No set: its order, and with it the draw, would change from process to process.
    everything = list(dict.fromkeys(c.text for item in lists for c in item.candidates))
    found = []
    for item in lists:
        scores = {c.text: c.score for c in item.candidates}
        kept = [text for text, score in scores.items() if score > 0]
        if not kept:
            continue
        hard = [text for text, score in scores.items() if score == 0]
        teacher = len(set(scores.values())) > 2
        kept += hard if teacher else hard[: options.hard_negatives]
        for place in rng.choice(len(everything), options.random_negatives):
            if everything[place] not in scores:
                kept.append(everything[place])
        texts = list(dict.fromkeys(kept))
        found.append((item.query, texts, [float(scores.get(text, least)) for text in texts]))
    if not any(len(set(scores)) > 1 for _, _, scores in found):
        raise DatasetError("there is nothing to learn: no query has a negative beside its answer")
    return found


def training_rows(lists: Sequence[Graded], loss: str) -> dict[str, list[Any]]:
    """Columns of a training set; the last one is the label."""
    if loss == "bce":
        # As calibrated: scores up to 1 as they are, grades beyond as shares of the highest.
        top = max(1.0, *(score for _, _, scores in lists for score in scores))
        return {
            "query": [query for query, texts, _ in lists for _ in texts],
            "text": [text for _, texts, _ in lists for text in texts],
            "label": [s / top for _, _, scores in lists for s in scores],
        }
    if loss == "margin_mse":
        triplets = [
            (query, one, other, a - b)
            for query, texts, scores in lists
            for one, a in zip(texts, scores, strict=True)
            for other, b in zip(texts, scores, strict=True)
            if a > b
        ]
        names = ("query", "one", "other", "label")
        return dict(zip(names, map(list, zip(*triplets, strict=True)), strict=True))
    return {
        "query": [query for query, _, _ in lists],
        "texts": [texts for _, texts, _ in lists],
        "label": [scores for _, _, scores in lists],
    }


def positive_weight(labels: Sequence[float]) -> float:
    """Negatives per positive."""
    positives = sum(labels)
    return max(1.0, (len(labels) - positives) / max(positives, 1e-9))
