"""Callbacks and trackers of transformers' trainers, alike for every engine that trains in steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.tuning.errors import MissingExtraError

TENSORBOARD = ".tensorboard"
"""Of the folder beside the output folder, to which `report_to="tensorboard"` writes."""


def named_trackers(report_to: Any) -> tuple[str, ...]:
    """The names of `report_to`, one or several.

    Raises:
        TypeError: it is neither a name nor a tuple of names.
    """
    names = (report_to,) if isinstance(report_to, str) else report_to
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"report_to must be a tracker's name or a tuple of names, got {report_to!r}"
        )
    return tuple(names)


def trainer_callbacks(
    callbacks: Sequence[Any], report_to: Sequence[str] = (), output: Path | None = None
) -> list[Any]:
    """What a trainer is given: the caller's callbacks, and those of the trackers that are named.

    Both are looked at before anything is measured: the trainer would fail only after that.

    Args:
        callbacks: `TrainerCallback`s of transformers, or their classes.
        report_to: names of transformers' integrations, such as `"tensorboard"`, `"mlflow"`,
            `"wandb"`. They read their own environment variables.
        output: the folder that the run writes. TensorBoard's files lie beside it, in
            `<output>.tensorboard`, or without it in `runs`, unless `TENSORBOARD_LOGGING_DIR` says
            where.

    Raises:
        TypeError: one is no callback.
        ValueError: a tracker is not known, or its library is not installed.
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as exc:
        extra = "sentence-transformers"
        raise MissingExtraError("training a model's own weights", extra, extra) from exc
    for callback in callbacks:
        made = isinstance(callback, type) and issubclass(callback, TrainerCallback)
        if not (made or isinstance(callback, TrainerCallback)):
            raise TypeError(f"callbacks must be TrainerCallbacks of transformers, got {callback!r}")
    return [*callbacks, *(_tracker(name, output) for name in report_to)]


def _tracker(name: str, output: Path | None) -> Any:
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    if name not in known:
        choices = ", ".join(sorted(known))
        raise ValueError(f"unknown report_to {name!r}; choose among: {choices}")
    try:
        return _tensorboard(output) if name == "tensorboard" else known[name]()
    except (RuntimeError, ImportError) as exc:
        raise ValueError(f"report_to={name!r} cannot start: {exc}") from exc


def _tensorboard(output: Path | None) -> Any:
    """Its own place would be the folder of the checkpoints, which goes when the run is over."""
    import os

    from transformers.integrations.integration_utils import TensorBoardCallback

    stock: Any = TensorBoardCallback
    beside = None if output is None else str(output.with_name(output.name + TENSORBOARD))
    folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or beside

    class Beside(stock):  # type: ignore[misc,unused-ignore]
        tb_writer: Any

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.tb_writer is None and state.is_world_process_zero:
                self.tb_writer = self._SummaryWriter(log_dir=folder)
            super().on_train_begin(args, state, control, **given)

    return Beside()
