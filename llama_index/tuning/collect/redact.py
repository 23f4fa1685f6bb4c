"""Secrets out of texts before they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from llama_index.tuning.collect.secret_formats import (
    FORMATS_WITHIN,
    NAMES_WITHIN,
    VENDORS,
    address_spans,
    assigned_spans,
    is_assigned_secret,
    random_spans,
    scheme_spans,
)

Redact = Callable[[str], str]

_NAMES = {"kind", "trace", "span", "id", "tool_call_id"}
_LONG_RUN = re.compile(rb"[A-Za-z0-9+/]{32}")


def mask_secrets(text: str) -> str:
    """The text with keys and tokens as `[API KEY]`, passwords as `[PASSWORD]` and e-mail
    addresses as `[EMAIL]`; docs/collect.md says what is found and what is not.

    The recorder's default `redact=` hook; a hook of one's own may call it first. It takes time in
    proportion to the length of the text, whatever the text is.

    Example:
        >>> mask_secrets("I am ann@example.com, my key is sk-abcdefghijklmnop1234")
        'I am [EMAIL], my key is [API KEY]'
        >>> mask_secrets("GROQ_API_KEY=gsk_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5 postgres://bob:pw@host/db")
        'GROQ_API_KEY=[API KEY] postgres://bob:[PASSWORD]@host/db'
    """
    for prefix, pattern in VENDORS:
        if prefix in text:
            text = _replaced(text, _vendor_spans(text, pattern))
    low = text.lower()
    text = _replaced(text, scheme_spans(text, low))
    if any(name in low for name in NAMES_WITHIN):
        text = _replaced(text, assigned_spans(text))
    text = _replaced(text, random_spans(text))
    return _replaced(text, address_spans(text))


def may_hold_secrets(text: bytes) -> bool:
    """Whether `mask_secrets` could change a UTF-8 text, or one in its JSON; never wrongly no."""
    low = text.lower()
    return (
        any(name in low for name in _NAMES_WITHIN)
        or any(part in text for part in _FORMATS_WITHIN)
        or _LONG_RUN.search(text) is not None
    )


_NAMES_WITHIN = [name.encode() for name in NAMES_WITHIN]
_FORMATS_WITHIN = [part.encode() for part in FORMATS_WITHIN]


def _vendor_spans(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int, str]]:
    for found in pattern.finditer(text):
        before = text[found.start() - 1 : found.start()]
        if not (before.isascii() and before.isalnum()):
            yield found.start(), found.end(), "[API KEY]"


def _replaced(text: str, spans: Iterator[tuple[int, int, str]]) -> str:
    parts: list[str] = []
    end = 0
    for start, stop, label in spans:
        if start >= end:
            parts += [text[end:start], label]
            end = stop
    return "".join([*parts, text[end:]]) if parts else text


def redacted(value: Any, redact: Redact) -> Any:
    """Plain data with `redact` applied to every string in it; keys and ids stay as they are.

    By `mask_secrets`, a value whose key names a secret (`{"password": "…"}`) goes as a whole.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _entry(key, item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, redact) for item in value]
    return value


def _entry(key: Any, item: Any, redact: Redact) -> Any:
    if key in _NAMES:
        return item
    if redact is mask_secrets and isinstance(item, str) and isinstance(key, str):
        label = is_assigned_secret(key, item)
        if label:
            return label
    return redacted(item, redact)
