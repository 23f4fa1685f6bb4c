"""Several processes of one run, as `torchrun` or `accelerate launch` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from llama_index.tuning.errors import TuningError

T = TypeVar("T")


def process_count() -> int:
    """How many processes run together; 1 where none was launched as a group."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that measures and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def join_processes(device: str | None) -> None:
    """Connect the processes, by gloo on a CPU and by NCCL on GPUs, where there are several."""
    if process_count() == 1:
        return
    import torch
    from accelerate import PartialState  # type: ignore[import-untyped,unused-ignore]

    PartialState(cpu=device == "cpu" or not torch.cuda.is_available())


def wait_for_all() -> None:
    """Until all processes of the run are here."""
    if process_count() > 1:
        import torch.distributed as distributed

        distributed.barrier()


def on_main(work: Callable[[], T]) -> T:
    """What the main process makes, in all of them; the others wait for it.

    Raises:
        TuningError: in the others, where the main process fails.
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
