"""Secrets out of texts before they are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Redact = Callable[[str], str]

_KEY = re.compile(
    r"\b(?:sk-[\w-]{16,}|gh[pousr]_\w{20,}|hf_\w{20,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}"
    r"|(?P<name>(?:[Bb]earer|BEARER) +"
    r"|(?i:api|access|secret)[ _-]?(?:key|Key|KEY)[\"']?\s*[:=]\s*[\"']?)"
    r"(?=[\w.~+/-]*\d)[\w.~+/-]{12,}=*)"
)
_NAMES = {"kind", "trace", "span", "id", "tool_call_id"}
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


def mask_secrets(text: str) -> str:
    """The text with API keys as `[API KEY]` and e-mail addresses as `[EMAIL]`.

    The recorder's default `redact=` hook; a hook of one's own may call it first.

    Example:
        >>> mask_secrets("I am ann@example.com, my key is sk-abcdefghijklmnop1234")
        'I am [EMAIL], my key is [API KEY]'
    """
    if "@" in text:
        text = _EMAIL.sub("[EMAIL]", text)
    if _may_hold_key(text.encode(errors="surrogatepass")):
        text = _KEY.sub(lambda found: f"{found['name'] or ''}[API KEY]", text)
    return text


def may_hold_secrets(text: bytes) -> bool:
    """Whether `mask_secrets` could change a UTF-8 text, or one in its JSON; never wrongly no."""
    return b"@" in text or _may_hold_key(text)


def _may_hold_key(text: bytes) -> bool:
    # Nearly every text holds no key, and plain search tells so in a tenth of the pattern's time;
    # in lower-case bytes, since those are searched once for all ways of writing. One byte is
    # searched twenty times faster than three, so it goes first where it is rare.
    if len(text) < 14:
        return False
    low = text.lower()
    return (
        b"key" in low
        or b"earer " in low
        or (b"-" in low and (b"sk-" in low or b"xox" in low))
        or (b"_" in low and (b"hf_" in low or b"gh" in low))
        or (b"K" in text and b"AKIA" in text)
        or b"AIza" in text
    )


def redacted(value: Any, redact: Redact) -> Any:
    """Plain data with `redact` applied to every string in it; keys and ids stay as they are."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {
            key: item if key in _NAMES else redacted(item, redact) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(item, redact) for item in value]
    return value
