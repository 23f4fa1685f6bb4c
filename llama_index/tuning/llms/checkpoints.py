"""Checkpoints that are known to be whole.

The trainer takes the highest number without a look inside; a checkpoint that lost its random
state, say, would be trained on from, silently, to other weights. So each one gets a last file
with the hashes of all others, and what has none, or does not match it, is not resumed from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index.tuning.datasets._files import write_text_atomic
from llama_index.tuning.llms.loading import hashes

logger = logging.getLogger(__name__)

MARKER = "complete.json"


def mark_complete(checkpoint: Path) -> None:
    """Write the marker: every file's hash. The last thing to happen to a checkpoint."""
    (checkpoint / MARKER).unlink(missing_ok=True)  # of an earlier life
    write_text_atomic(checkpoint / MARKER, json.dumps({"files": hashes(checkpoint)}, indent=2))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None: nothing."""
    try:
        expected = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "it was not finished"
    except (ValueError, KeyError, TypeError):
        return f"its {MARKER} is damaged"
    for name in expected:
        if not (folder / name).is_file():
            return f"{name} is missing"
    found = hashes(folder, expected)
    wrong = [name for name, hash_ in expected.items() if found[name] != hash_]
    return f"{wrong[0]} is damaged" if wrong else None


def newest_complete(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and a sentence for each newer one that is not.

    Those that are not whole are deleted, so that nothing resumes from them.
    """
    skipped: list[str] = []
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        found = damage(checkpoint)
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


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
