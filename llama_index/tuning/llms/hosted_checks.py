"""Arguments of the hosted engines, checked when an engine is made: later ones cost money."""

from __future__ import annotations

import math
import os
from typing import Any


def check_seconds(**seconds: Any) -> None:
    """Each is a time above 0; `timeout` may be None."""
    for name, value in seconds.items():
        if value is None and name == "timeout":
            continue
        if not (_is_number(value) and value > 0):
            raise ValueError(f"{name} must be > 0 seconds, got {value!r}")


def check_limits(
    price: Any, max_cost: Any, max_tokens: Any, min_examples: Any, tokenizer: Any
) -> None:
    """What the estimate and its limits are made of."""
    if max_cost is not None and price is None:
        raise ValueError("max_cost needs price, of a million trained tokens")
    for name, value in (("price", price), ("max_cost", max_cost)):
        # Nothing is above NaN: as a limit it would let every cost pass.
        if value is not None and not (_is_number(value) and 0 <= value < math.inf):
            raise ValueError(f"{name} must be a number >= 0, got {value!r}")
    for name, value in (("max_tokens", max_tokens), ("min_examples", min_examples)):
        whole = _is_number(value) and isinstance(value, int)
        if not (whole and value >= 1) and not (name == "max_tokens" and value is None):
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    if tokenizer is not None and not callable(tokenizer):
        raise TypeError(f"tokenizer must be a function, text to tokens, got {tokenizer!r}")


def check_texts(**texts: Any) -> None:
    """Each is a text that is not empty, or None. A value may be a key: it is not shown."""
    for name, value in texts.items():
        if value is not None and not (isinstance(value, str) and value.strip()):
            got = "an empty one" if isinstance(value, str) else type(value).__name__
            raise ValueError(f"{name} must be a text, got {got}")


def check_base_llm(base_llm: Any, evaluate: Any) -> None:
    """An LLM, and something to compare it by."""
    from llama_index.core.llms import LLM

    if not isinstance(base_llm, LLM):
        raise TypeError(f"base_llm must be an LLM of LlamaIndex, got {type(base_llm).__name__}")
    if evaluate is None:
        raise ValueError(
            "base_llm needs evaluate: without it nothing is compared, and none is kept"
        )


def check_path(name: str, value: Any) -> None:
    """A path, or None."""
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
