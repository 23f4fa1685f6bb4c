"""Several processes of one run, as `torchrun` starts them, and what libraries do unasked."""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from llama_index.tuning._running import ThreadLock, is_main_process, process_count
from llama_index.tuning.errors import TuningError

T = TypeVar("T")


def join_processes(device: str | None) -> None:
    """Connect the processes, by gloo on a CPU and by NCCL on GPUs, if there are several."""
    if process_count() == 1:
        return
    import torch
    import torch.distributed as distributed
    from accelerate import PartialState  # type: ignore[import-untyped,unused-ignore]

    connected = distributed.is_initialized()
    PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    if not connected:
        # A process that ends while its group's threads still run is aborted, now and then.
        atexit.register(_leave_processes)


def _leave_processes() -> None:
    import torch.distributed as distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Until all processes of the run are here."""
    if process_count() > 1:
        import torch.distributed as distributed

        distributed.barrier()


def on_main(work: Callable[[], T]) -> T:
    """What the main process makes, in all of them; the others wait for it.

    Raises:
        TuningError: in the others, if the main process fails.
    """
    if process_count() == 1:
        return work()
    import torch.distributed as distributed

    box: list[Any] = [None, None]
    if is_main_process():
        try:
            box[0] = work()
        except BaseException as exc:
            distributed.broadcast_object_list([None, f"{type(exc).__name__}: {exc}"], src=0)
            raise
    distributed.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise TuningError(f"the main process failed: {box[1]}")
    made: T = box[0]
    return made


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """No progress bars inside the block; afterwards they are as they were."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    datasets = sys.modules.get("datasets")
    also = datasets is not None and not datasets.are_progress_bars_disabled()
    if datasets is not None and also:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
        if datasets is not None and also:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def no_telemetry() -> Iterator[None]:
    """TRL's trainers report each use to their hub; ours do not."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


BUILDING = ThreadLock()
"""Held while a model is built: transformers patches itself meanwhile, and two threads that do so at
once leave it patched, after which every model lacks its tied weights."""
