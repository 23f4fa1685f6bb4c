"""LoRA where it must help and can hurt: a text-to-SQL model, adapted to SQL templates it never saw.

    python benchmarks/llm_lora.py [--base-steps 322] [--steps 210] [--seed 0]

A tiny Llama is trained from scratch on the GeoQuery questions of some SQL templates; an adapter
then on those of the others. Scored is execution accuracy on test questions of both groups, none of
which was trained on: the gain on the new templates, and through `protect=` what was forgotten on
the old ones, which the gate refuses. Merged and unmerged weights are compared by their logits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _llm import Row, geoquery, training  # noqa: E402

from llama_index.tuning import (  # noqa: E402
    ChatDataset,
    HuggingFaceFinetuneEngine,
    TunedHuggingFaceLLM,
)
from llama_index.tuning.llms import (  # noqa: E402
    ExecutionScorer,
    execution_scorer,
    sql_dataset,
    text_to_sql_prompt,
)
from tests.llms.tiny import save_tiny  # noqa: E402

PROMPT = text_to_sql_prompt(schema=False)


def rows(folder: Path, *splits: str) -> tuple[list[Row], list[Row]]:
    """Questions whose SQL template is one of the base's, and the others."""
    found = geoquery(folder, *splits)
    old = [row for row in found if row["query_split"] == "train"]
    return old, [row for row in found if row["query_split"] != "train"]


def make_base(
    model: Path, out: Path, train: ChatDataset, val: ChatDataset, steps: int, seed: int
) -> None:
    """A text-to-SQL model for the old templates, from random weights."""
    options = training(learning_rate=2e-3, steps=steps, seed=seed)
    HuggingFaceFinetuneEngine(
        train, model, model_output_path=out, val_dataset=val, options=options, accept="always"
    ).finetune()


def logits_difference(folder: Path, question: str) -> float:
    """Largest difference between the logits of the adapter beside and in the weights."""
    import torch

    apart = TunedHuggingFaceLLM.load(folder, device="cpu")
    merged = TunedHuggingFaceLLM.load(folder, device="cpu", merged=True)
    ids = torch.tensor([apart.tokenizer(question)["input_ids"]])
    with torch.no_grad():
        return float((apart.model(ids).logits - merged.model(ids).logits).abs().max())


def adapt(
    base: Path,
    out: Path,
    train: ChatDataset,
    new: ExecutionScorer,
    protect: dict[str, Callable[[Any], Sequence[float]]],
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """The adapter's run and what its report says."""
    options = training(learning_rate=4e-3, steps=steps, seed=seed, weights="lora", merge=True)
    started = time.process_time()
    engine = HuggingFaceFinetuneEngine(
        train, base, model_output_path=out, options=options, evaluate=new, protect=protect
    )
    report = engine.finetune()
    print(report, file=sys.stderr)
    return {
        "cpu_seconds": round(time.process_time() - started),
        "new_templates": vars(report.gains["score"]),
        **{name: vars(gains["score"]) for name, gains in report.slices.items()},
        "accepted": report.accepted,
        "reason": report.reason,
        "notes": report.notes,
        "logits_difference_when_merged": logits_difference(
            out, train.examples[0].messages[0]["content"]
        ),
    }


def main() -> None:
    """Train the base, adapt it with and without the old templates protected; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--base-steps", type=int, default=322)
    parser.add_argument("--steps", type=int, default=210)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.data / "geoquery"
    old, new = rows(folder, "train", "val")
    old_test, new_test = rows(folder, "test")
    database = folder / "db.sqlite"

    def chats(given: list[Row]) -> ChatDataset:
        return sql_dataset(given, database, prompt=PROMPT)[0]

    score_old, score_new = (
        execution_scorer(part, database, prompt=PROMPT, max_tokens=150)
        for part in (old_test, new_test)
    )
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        texts = [str(m["content"]) for e in chats([*old, *new]).examples for m in e.messages]
        shape = {"vocabulary": 700, "hidden": 160, "layers": 3, "seed": given.seed}
        model = save_tiny(here / "random", texts, **shape)
        started = time.process_time()
        make_base(model, here / "base", chats(old), chats(old_test), given.base_steps, given.seed)
        seconds = round(time.process_time() - started)
        result = adapt(
            here / "base",
            here / "tuned",
            chats(new),
            score_new,
            {"old templates": score_old},
            given.steps,
            given.seed,
        )
    print(
        json.dumps({"train": [len(old), len(new)], "base_cpu_seconds": seconds, **result}, indent=2)
    )


if __name__ == "__main__":
    main()
