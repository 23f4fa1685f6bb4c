"""The kinds of judges there are on disk."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from llama_index.tuning import artifacts
from llama_index.tuning.judges.light import KIND
from llama_index.tuning.judges.student import JudgeModel

LOADERS = {
    KIND: "light:load_judge",
    "judge_encoder": "encoder:load_encoder_judge",
}
"""Kind in `tuning.json` → what reads such a folder: `module:function` of this package."""


def load_model(path: artifacts.PathLike, **options: Any) -> JudgeModel:
    """The judge of a folder, of whatever kind.

    Args:
        path: the folder.
        **options: for the kind's loader.

    Raises:
        ArtifactError: no judge, or a damaged one.
        TypeError: an option that this kind does not have.
    """
    module, name = LOADERS[_kind(path)].split(":")
    load = getattr(import_module(f"llama_index.tuning.judges.{module}"), name)
    model: JudgeModel = load(path, **options)
    return model


def _kind(path: artifacts.PathLike) -> str:
    """The kind that a folder says it holds; the light one's loader tells what is wrong with it."""
    try:
        kind = json.loads((Path(path) / artifacts.CONFIG).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, TypeError, KeyError):
        return KIND
    return kind if isinstance(kind, str) and kind in LOADERS else KIND
