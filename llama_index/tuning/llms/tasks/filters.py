"""What decides an evaluator's verdicts, as a text: with another one, verdicts are asked anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator


def evaluator_key(evaluator: BaseEvaluator) -> str:
    """Class, prompts, model, thresholds, weights and functions of an evaluator.

    Whatever it holds as an attribute counts, a counter too. Of other objects, and of functions,
    the name is all that is seen: a change inside them is not.
    """
    from llama_index.tuning.judges.teacher import identity

    held = {name: _plain(value) for name, value in sorted(vars(evaluator).items())}
    text = json.dumps([_name(type(evaluator)), identity(evaluator), held], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON that is the same in every process."""
    from llama_index.core.llms import LLM

    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, LLM):
        return [_name(type(value)), value.metadata.model_name, getattr(value, "temperature", None)]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if is_dataclass(value) and not isinstance(value, type):
        return [_name(type(value)), [_plain(getattr(value, f.name)) for f in fields(value)]]
    if isinstance(value, Mapping):
        return sorted([str(key), _plain(one)] for key, one in value.items())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _name(value if hasattr(value, "__qualname__") else type(value))


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
