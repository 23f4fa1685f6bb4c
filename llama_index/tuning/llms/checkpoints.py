"""Checkpoints that are known to be whole.

The trainer takes the highest number without a look inside; a checkpoint that lost its random
state, say, would be trained on from, silently, to other weights. So each one gets a last file
with the checksums of all others, and what has none, or does not match it, is not resumed from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index.tuning._checkpoints import fault_of, step_number

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
