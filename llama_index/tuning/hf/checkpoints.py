"""Checkpoints of a Hugging Face trainer that can be trusted after a kill.

<output>.checkpoints/lock           held by the run
<output>.checkpoints/run.json       which run the checkpoints belong to
<output>.checkpoints/checkpoint-50  as the trainer writes it, and last of all `complete.json`
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.tuning._files import (
    check_run_folder,
    locked,
    read_json,
    remove_locked_folder,
    write_text_atomic,
)
from llama_index.tuning._running import is_main_process
from llama_index.tuning.errors import TuningError

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20

WEIGHTS = "weights.safetensors"


RUN = "run.json"


COMPLETE = "complete.json"


@contextlib.contextmanager
def beside(output: Path | None, prefix: str) -> Iterator[Path]:
    """A run's folder of checkpoints: beside its output, or without one a place for this run alone.

    Args:
        output: `model_output_path` of an engine.
        prefix: of the temporary place's name.
    """
    if output is not None:
        yield Path(f"{output}.checkpoints")
        return
    with tempfile.TemporaryDirectory(prefix=prefix) as place:
        yield Path(place) / "checkpoints"


@contextlib.contextmanager
def held(folder: Path, *, keep: bool) -> Iterator[None]:
    """Hold a run's folder of checkpoints; of several processes, the first one does.

    Args:
        folder: made if it is not there.
        keep: whether it stays when the run succeeds. Where it fails, it stays if there is
            anything in it to go on from.

    Raises:
        TuningError: another run holds it.
    """
    if not is_main_process():
        yield
        return
    busy = TuningError(f"another run is at work on {folder}; give each run its own output")
    check_run_folder(folder, TuningError)
    lock = folder / "lock"
    with locked(lock, busy):
        try:
            yield
        except BaseException:
            keep = any(folder.rglob("checkpoint-*"))
            raise
        finally:
            if not keep:
                remove_locked_folder(lock)


def prepare(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Empty the folder for a new run, or check that its checkpoints are this run's.

    Args:
        folder: of the checkpoints; made if it is not there.
        identity: what decides the weights: data, model, options. Plain JSON values.
        resume: keep what is there.

    Raises:
        TuningError: `resume`, and the checkpoints belong to another run; it says what differs.
    """
    ours = json.loads(json.dumps(dict(identity)))
    file = folder / RUN
    if resume and file.is_file():
        theirs = read_json(file, TuningError)
        differ = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        if differ:
            raise TuningError(
                f"the checkpoints in {folder} belong to another run; different: "
                f"{', '.join(differ)}. Run it as it was, or without resuming"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    write_text_atomic(file, json.dumps(ours, ensure_ascii=False, indent=2))


def clear(folder: Path) -> None:
    """Remove the folder's checkpoints, if there are any."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)


def mark_complete(checkpoint: Path) -> None:
    """Note each file's size and checksum; the last thing that is written to a checkpoint."""
    sums = {
        str(path.relative_to(checkpoint)): _checksum(path)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != COMPLETE
    }
    write_text_atomic(checkpoint / COMPLETE, json.dumps(sums))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; what is skipped is logged with its fault."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_number, reverse=True):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint
        logger.warning("%s is skipped: %s", checkpoint, fault)
        # It will be written anew; until then nothing may take it for whole.
        (checkpoint / COMPLETE).unlink(missing_ok=True)
    return None


def fault_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, to follow on its name; None: it is whole."""
    try:
        sums = dict(read_json(checkpoint / COMPLETE))
    except FileNotFoundError:
        return "it was not finished"
    except (ValueError, TypeError):
        return f"its {COMPLETE} is damaged"
    for name, expected in sums.items():
        path = checkpoint / name
        if not path.is_file():
            return f"its {name} is missing"
        if _checksum(path) != expected:
            return f"its {name} is damaged"
    return None


def training_curve(log: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The numbers of a trainer's log."""
    return [
        {key: float(value) for key, value in entry.items() if isinstance(value, (int, float))}
        for entry in log
    ]


def _checksum(path: Path) -> str:
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return f"{path.stat().st_size}-{total:08x}"


def step_number(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1: there is none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
