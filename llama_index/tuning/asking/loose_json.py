"""JSON as LLMs write it: cut off by a token limit, quoted as Python does, with talk around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_DEEPEST = 30
_OPENS = re.compile(
    r"""^[^\S\n]*(?:[\w.]+[^\S\n]*=[^\S\n]*)?(?=[\[{][\s]*(?:["'“‘\[{]|\Z))""", re.MULTILINE
)
_TALK_THEN_OPENS = re.compile(r"""[:：]\s*(?=[\[{]\s*["'“‘{])""")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
_ENDS = re.compile(r"\s*(?:[,\]}:)]|\Z)")
_LINE_ENDS = re.compile(r"[^\S\n]*(?:\n|\Z)")
_BARE = re.compile(r"[^,\[\]{}:\n\"']*")
_SKIP = re.compile(r"(?:\s|,|//[^\n]*|\#[^\n]*)*")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SKIP_SPACE = re.compile(r"\s*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_WORDS = {"true": True, "false": False, "null": None, "none": None}


class CutOffError(Exception):
    """The text ended inside a value."""


def json_values(text: str) -> list[Any] | None:
    """The JSON values of a text; `None` if it holds none and does not look like JSON.

    What is whole in a value that was cut off is kept, what is not whole is dropped.

    Example:
        >>> json_values('{"questions": ["What is the fee?", "When is it d')
        [{'questions': ['What is the fee?']}]
        >>> json_values("It costs 5 euros [1].") is None
        True
    """
    text = text.strip()
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        pass
    found: list[Any] = []
    seen = False
    place = 0
    while start := _OPENS.search(text, place) or _TALK_THEN_OPENS.search(text, place):
        seen = True
        value, place = _whole_or_loose(text, start.end())
        found.append(value)
        if place >= len(text):
            break
    return found if seen else None


def _whole_or_loose(text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        reader = _Reader(text, start)
        found = reader.value()
        return found, len(text) if reader.ended else max(reader.place, start + 1)
    return value, end


class _Reader:
    """Reads one value as far as it goes."""

    def __init__(self, text: str, place: int) -> None:
        self.text, self.place, self.ended = text, place, False

    def value(self, depth: int = 0) -> Any:
        sign = self.text[self.place : self.place + 1]
        if depth > _DEEPEST:
            self.ended = True
            return None
        if sign == "[":
            return list(self._items(depth))
        if sign == "{":
            return dict(self._entries(depth))
        return self._scalar()

    def _items(self, depth: int) -> Iterator[Any]:
        self.place += 1
        while self._more("]}"):
            try:
                item = self.value(depth + 1)
            except CutOffError:
                return
            yield item

    def _entries(self, depth: int) -> Iterator[tuple[str, Any]]:
        self.place += 1
        while self._more("}]"):
            try:
                key = str(self._scalar())
                if self.text[self.place : self.place + 1] == ":":
                    self.place += 1
                if not self._more("}"):
                    return
                value = self.value(depth + 1)
            except CutOffError:
                return
            yield key, value

    def _more(self, ends: str) -> bool:
        """Whether another item follows; steps over commas and over the closing bracket."""
        found = _SKIP.match(self.text, self.place)
        self.place = found.end() if found else self.place
        if self.ended or self.place >= len(self.text):
            return False
        if self.text[self.place] in ends:
            self.place += 1
            return False
        return True

    def _scalar(self) -> Any:
        close = _QUOTES.get(self.text[self.place])
        if close is not None:
            text = self._string(close)
        else:
            found = _BARE.match(self.text, self.place)
            end = found.end() if found else self.place
            text = self.text[self.place : end].strip()
            self.place = max(end, self.place + (not text))
            return _WORDS.get(text.casefold(), text)
        space = _SKIP_SPACE.match(self.text, self.place)
        self.place = space.end() if space else self.place
        return text

    def _string(self, close: str) -> str:
        """A quoted text; a quote inside it that nothing closing follows is part of it."""
        at = self.place + 1
        while True:
            at = self.text.find(close, at)
            if at < 0:
                self.place, self.ended = len(self.text), True
                raise CutOffError
            if not self._escaped(at) and any(
                end.match(self.text, at + 1) for end in (_ENDS, _LINE_ENDS)
            ):
                break
            at += 1
        raw = self.text[self.place + 1 : at]
        self.place = at + 1
        return _ESCAPE.sub(_unescaped, raw)

    def _escaped(self, at: int) -> bool:
        slashes = 0
        while self.text[at - slashes - 1] == "\\":
            slashes += 1
        return slashes % 2 == 1


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        return chr(int(found[1], 16))
    return _ESCAPES.get(found[2], found[2])
