"""What the benchmarks of text-to-SQL share: GeoQuery's rows, and how a tiny model is trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from llama_index.tuning.llms import HuggingFaceOptions

Row = dict[str, Any]


def geoquery(folder: Path, *splits: str) -> list[Row]:
    """Questions and queries, with short aliases: `CITYalias0` is four tokens more."""
    return [
        {**row, "sql": re.sub(r"alias(\d)", r"_\1", row["sql"])}
        for split in splits
        for row in map(json.loads, (folder / f"{split}.jsonl").read_text().splitlines())
    ]


def training(*, learning_rate: float, steps: int, seed: int, **more: Any) -> HuggingFaceOptions:
    """A model of random weights is trained in all of them, on one CPU, unless `more` says else."""
    options: dict[str, Any] = {
        "weights": "full",
        "device": "cpu",
        "learning_rate": learning_rate,
        "batch_size": 16,
        "max_steps": steps,
        "warmup": 0.05,
        "save_steps": 1000,
        "seed": seed,
        **more,
    }
    return HuggingFaceOptions(**options)
