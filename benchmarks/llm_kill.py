"""SIGKILL a tuning run again and again, during saving too: resumed, it ends as if nothing had been.

    python benchmarks/llm_kill.py [--kills 10] [--weights full lora]

A tiny Llama is tuned in a child process that is killed at random moments, every second time while
it writes a checkpoint or its result. Then it may finish. The weights must be those, bit for bit,
of a run that nothing interrupted; after every third kill the newest checkpoint is damaged too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llama_index.tuning import ChatDataset, HuggingFaceFinetuneEngine  # noqa: E402
from llama_index.tuning.llms import HuggingFaceOptions  # noqa: E402
from llama_index.tuning.report import FinetuneReport  # noqa: E402
from tests.llms.tiny import save_tiny  # noqa: E402


def chats() -> ChatDataset:
    """Sums, which need no meaning here."""
    return ChatDataset.from_messages(
        [
            [
                {"role": "user", "content": f"What is {a} plus {b}?"},
                {"role": "assistant", "content": f"{a} plus {b} is {a + b}."},
            ]
            for a in range(12)
            for b in range(12)
        ]
    )


def run(model: Path, out: Path, weights: str) -> FinetuneReport:
    """One run of 60 steps with a checkpoint every 3."""
    options = HuggingFaceOptions(
        weights=weights,  # type: ignore[arg-type]
        device="cpu",
        max_steps=60,
        save_steps=3,
        learning_rate=3e-3,
        lora_dropout=0.1,
    )
    return HuggingFaceFinetuneEngine(
        chats(), model, model_output_path=out, options=options, accept="always"
    ).finetune()


def child(model: Path, out: Path, weights: str, phase: Any) -> None:
    """Run, and tell the parent when something is being written."""
    import transformers

    from llama_index.tuning.llms.local import engine

    def told(work: Callable[..., Any], name: bytes) -> Callable[..., Any]:
        def during(*args: Any, **kwargs: Any) -> Any:
            before, phase.value = phase.value, name
            try:
                return work(*args, **kwargs)
            finally:
                phase.value = before

        return during

    trainer: Any = transformers.Trainer
    trainer._save_checkpoint = told(trainer._save_checkpoint, b"checkpoint")
    engine.write_llm = told(engine.write_llm, b"result")  # type: ignore[assignment]
    trainer.training_step = told(trainer.training_step, b"step")
    run(model, out, weights)
    os._exit(0)


def one_life(model: Path, out: Path, weights: str, want_saving: bool) -> str:
    """Start a child and kill it; where it was then, or `finished`."""
    phase = multiprocessing.Array("c", 16)
    process = multiprocessing.get_context("fork").Process(
        target=child, args=(model, out, weights, phase)
    )
    process.start()
    deadline = time.monotonic() + random.uniform(0.3, 3.0)
    while process.is_alive():
        saving = phase.value in (b"checkpoint", b"result")
        if time.monotonic() >= deadline and (saving or not want_saving):
            if want_saving:
                time.sleep(random.uniform(0, 0.02))
            where = phase.value.decode() or "between"
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            return where
        time.sleep(0.0005)
    if process.exitcode:
        raise RuntimeError(f"the run failed on its own, with exit code {process.exitcode}")
    return "finished"


def damage(out: Path) -> str | None:
    """Cut the random state of the newest checkpoint short; its name."""
    found = sorted(
        out.parent.glob(f"{out.name}.checkpoints/*/checkpoint-*/rng_state.pth"),
        key=lambda file: int(file.parent.name.split("-")[1]),
    )
    if not found:
        return None
    found[-1].write_bytes(found[-1].read_bytes()[:100])
    return found[-1].parent.name


def weights_hash(out: Path) -> str:
    """Of the tuned weights."""
    (file,) = out.glob("*model.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def trial(model: Path, folder: Path, weights: str, kills: int) -> dict[str, Any]:
    """Uninterrupted, then killed and resumed."""
    run(model, folder / "whole", weights)
    out, where, damaged = folder / "killed", Counter[str](), 0
    while sum(where.values()) < kills:
        place = one_life(model, out, weights, want_saving=sum(where.values()) % 2 == 1)
        if place == "finished":  # so it begins anew, until it was killed often enough
            shutil.rmtree(out)
            continue
        where[place] += 1
        if sum(where.values()) % 3 == 0 and damage(out):
            damaged += 1
    report = run(model, out, weights)
    skipped = [note for note in report.notes if "skipped" in note]
    return {
        "weights": weights,
        "kills": kills,
        "killed_during": dict(where),
        "checkpoints_damaged_by_hand": damaged,
        "last_resume": [note for note in report.notes if "resumed" in note],
        "skipped_in_the_last_life": skipped,
        "identical": weights_hash(out) == weights_hash(folder / "whole"),
        "left_behind": sorted(p.name for p in folder.iterdir() if p.name.startswith(".killed.new")),
    }


def main() -> None:
    """Kill, resume, compare; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", nargs="+", default=["full", "lora"])
    given = parser.parse_args()
    random.seed(given.seed)
    logging.disable(logging.INFO)
    results = []
    with tempfile.TemporaryDirectory() as name:
        texts = [str(message["content"]) for e in chats().examples for message in e.messages]
        model = save_tiny(Path(name) / "model", texts, hidden=64)
        for weights in given.weights:
            folder = Path(name) / weights
            folder.mkdir()
            results.append(trial(model, folder, weights, given.kills))
    print(json.dumps(results, indent=2))
    if not all(result["identical"] for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
