"""The parts of a query that may each ask for something else."""

from __future__ import annotations

import re

MIN_WORDS = 3
MAX_CLAUSES = 8

_BREAKS = re.compile(
    r"(?<=[.?!;。？！；])\s*|\s*[,;]?\s+(?:and also|and then|and|as well as|then|also|plus)\s+"
    r"|,\s+(?=(?:can|could|what|how|where|when|who|which|why|please|i|is|are|do|does)\b)",
    re.IGNORECASE,
)


def clauses(query: str) -> list[str]:
    """The parts of a query, at least three words each; empty where there is only one.

    Example:
        >>> clauses("Show me the weather in Rome and find a cheap hotel there.")
        ['Show me the weather in Rome', 'find a cheap hotel there.']
    """
    parts: list[str] = []
    for part in _BREAKS.split(query):
        text = part.strip(" ,;")
        if not text:
            continue
        if parts and (len(text.split()) < MIN_WORDS or len(parts[-1].split()) < MIN_WORDS):
            parts[-1] = f"{parts[-1]} {text}"
        else:
            parts.append(text)
    return parts[:MAX_CLAUSES] if len(parts) > 1 else []
