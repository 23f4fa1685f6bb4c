"""What a run sends: its files, their estimate, and the key that makes it one run."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from llama_index.tuning.datasets._files import PathLike
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.llms.hosted_estimate import JobEstimate, Tokenizer, estimate_job
from llama_index.tuning.llms.hosted_file import TrainingFile, shared_lines, training_file
from llama_index.tuning.llms.hosted_options import JobOptions

logger = logging.getLogger(__name__)

DataLike = PathLike | ChatDataset


@dataclass(frozen=True)
class Material:
    """Checked data.

    Attributes:
        training: the file to learn from.
        validation: the file that the server measures its loss on.
        estimate: tokens and cost.
        key: the run's key.
    """

    training: TrainingFile
    validation: TrainingFile | None
    estimate: JobEstimate
    key: str


def read_material(
    options: JobOptions,
    training: DataLike,
    validation: DataLike | None,
    *,
    validate: bool,
    min_examples: int,
    price: float | None,
    tokenizer: Tokenizer | None,
    max_tokens: int | None,
) -> Material:
    """Read, check and count; nothing is sent.

    Raises:
        DatasetError: naming each faulty line and field.
    """

    def read(data: DataLike, name: str, least: int) -> TrainingFile:
        return training_file(data, options.method, min_examples=least, validate=validate, name=name)

    file = read(training, "data_path", min_examples)
    val = None if validation is None else read(validation, "validation_data", 1)
    shared = 0 if val is None else shared_lines(file, val)
    if shared:
        logger.warning(
            "%d lines of validation_data are in data_path too: the server's validation loss will "
            "look better than it is",
            shared,
        )
    estimate = estimate_job(
        file, options.hyperparameters, price=price, tokenizer=tokenizer, max_tokens=max_tokens
    )
    return Material(
        file, val, estimate, options.run_key(file.sha256, None if val is None else val.sha256)
    )


def check_data(**given: Any) -> None:
    """Each is a path or a dataset, or None."""
    for name, data in given.items():
        if data is not None and not isinstance(data, str | os.PathLike | ChatDataset):
            kind = type(data).__name__
            raise TypeError(f"{name} must be a path or a ChatDataset, got {kind}")
