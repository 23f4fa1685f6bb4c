"""The sentences, clauses and words of a text in any script.

Sentences are `sentencex`'s (Wikimedia: Unicode's marks, abbreviations of many languages); what it
knows no mark of, and scripts that write none, are cut by spaces and length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINES = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_MARKS_OR_SPACE = re.compile(r"[\s.!?。！？।۔]")
_AT_ONCE = 2_000
"""Characters that `sentencex`, whose time grows with the square of many marks, gets at once."""
# Tibetan, Khmer, Lao, Javanese and older marks that end a sentence.
_MORE_ENDS = re.compile(r"(?<=[།༎༏༐༑។៕៖ຯ᭟᭞꧈꧉᱾᱿꓿꛳꛷])\s*(?=\S)")
# Text taken from PDF and HTML loses the space: "… each year.The company". Only sentences that
# are too long are cut there, since "collections.OrderedDict" looks the same.
_GLUED = re.compile(r"(?<=[a-z0-9)\]\"”][.!?])(?=[A-Z“•])")
# Written without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3040-\u30ff"
    "\u3400-\u9fff\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LETTERS_A_WORD = 3
# The scripts among them that end a sentence with a space or with nothing.
_UNMARKED = re.compile("[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df]")

MIN_CLAUSE_WORDS = 3
MAX_CLAUSES = 8
_LONGEST_QUERY = 4_000
_BREAKS = re.compile(
    r"(?<=[.?!;。？！；؟؛۔।॥՞።፧])\s*|[，、；]\s*"
    r"|\s*[,;،]?\s+(?:and also|and then|and|as well as|then|also|plus)\s+"
    r"|(?:，|、|\s)*(?:并且|而且|然后|以及|同时|還有|还有|另外|それから|そして|また|และ|แล้วก็)\s*"
    r"|,\s+(?=(?:can|could|what|how|where|when|who|which|why|please|i|is|are|do|does)\b)",
    re.IGNORECASE,
)


def sentences(text: str, max_words: int = 40, *, language: str = "en") -> list[str]:
    """The sentences and headings of a text, in order; glued ones apart where they are too long.

    Args:
        text: in any script.
        max_words: parts of more words are cut at missing spaces; in scripts that mark no
            sentences, at spaces and then by length.
        language: code whose abbreviations end no sentence ("z. B." with `"de"`). Marks of all
            languages count in any case.

    Example:
        >>> sentences("भारत एक देश है। क्या यह सच है? Dr. Smith agrees.")
        ['भारत एक देश है।', 'क्या यह सच है?', 'Dr. Smith agrees.']
    """
    from sentencex import segment  # type: ignore[import-untyped]

    found: list[str] = []
    for line in _pieces(text):
        for sentence in segment(language, line):
            for part in _MORE_ENDS.split(sentence):
                found += _shorter(part, max_words)
    return [" ".join(part.split()) for part in found if part.strip()]


def count_words(text: str) -> int:
    """Words between spaces; in scripts without spaces three letters are one."""
    unspaced = len(_UNSPACED.findall(text))
    if unspaced < len(text) / 3:
        return len(text.split())
    return max(1, unspaced // _LETTERS_A_WORD)


def clauses(query: str) -> list[str]:
    """The parts of a query, at least three words each; empty where there is only one, and for
    a text of more than 4,000 characters, which is no query.

    Example:
        >>> clauses("Show me the weather in Rome and find a cheap hotel there.")
        ['Show me the weather in Rome', 'find a cheap hotel there.']
        >>> clauses("帮我查一下明天的天气，然后预订一家便宜的酒店")
        ['帮我查一下明天的天气', '预订一家便宜的酒店']
    """
    parts: list[str] = []
    if len(query) > _LONGEST_QUERY:
        return parts
    for part in _BREAKS.split(query):
        text = part.strip(" ,;，、；")
        if not text:
            continue
        if parts and (_is_short(text) or _is_short(parts[-1])):
            space = "" if _UNSPACED.match(text) and _UNSPACED.search(parts[-1][-1:]) else " "
            parts[-1] = f"{parts[-1]}{space}{text}"
        else:
            parts.append(text)
    return parts[:MAX_CLAUSES] if len(parts) > 1 else []


def _is_short(clause: str) -> bool:
    return count_words(clause) < MIN_CLAUSE_WORDS and len(_UNSPACED.findall(clause)) < 5


def _pieces(text: str) -> Iterator[str]:
    """The lines; long ones in pieces that end at a mark or a space where there is one."""
    for line in map(str.strip, _LINES.split(text)):
        start = 0
        while len(line) - start > _AT_ONCE:
            ends = list(_MARKS_OR_SPACE.finditer(line, start, start + _AT_ONCE))
            marks = [end for end in ends if not end.group().isspace()]
            stop = (marks or ends)[-1].end() if ends else start + _AT_ONCE
            yield line[start:stop]
            start = stop
        if line[start:]:
            yield line[start:]


def _shorter(part: str, max_words: int) -> list[str]:
    if count_words(part) <= max_words:
        return [part]
    if len(_UNMARKED.findall(part)) >= len(part) / 3:
        return list(_by_length(part, max_words))
    return _GLUED.split(part)


def _by_length(text: str, max_words: int) -> Iterator[str]:
    """Neighbouring phrases together, up to half the longest allowed; a longer phrase is cut."""
    limit = max(1, max_words * _LETTERS_A_WORD // 2)
    current = ""
    for phrase in text.split():
        if current and len(current) + len(phrase) > limit:
            yield current
            current = ""
        while len(phrase) > 2 * limit:
            yield phrase[:limit]
            phrase = phrase[limit:]
        current = f"{current} {phrase}".strip()
    if current:
        yield current
