"""Tuned LLMs: on this machine, or by a hosted job."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_index.tuning.llms.tool_parsers import (
        HermesToolParser,
        ParsedReply,
        ToolCall,
        ToolParser,
    )

__all__ = ["HermesToolParser", "ParsedReply", "ToolCall", "ToolParser"]

_HOMES = dict.fromkeys(__all__, "tool_parsers")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
