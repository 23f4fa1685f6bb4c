"""Lines and tables of Markdown as plain text."""

from __future__ import annotations

import csv
import re

_CODE = re.compile(r"(`+)(?:(?!`).)+?\1")
# Bold text: marks that touch what they hold, and touch no letter outside. `__init__` is a name.
_BOLD = re.compile(
    r"(?<![A-Za-z0-9_*])\*\*(?=[^\s*])(.{1,2000}?)(?<=[^\s*])\*\*(?![A-Za-z0-9_*])"
    r"|(?<![\w`.])__(?=[^\s_])(?!\w+__)(.{1,2000}?)(?<=[^\s_])__(?![\w`(])"
)
_HASHES = re.compile(r"^\s*#{1,6}\s+")
_ESCAPED = re.compile(r"^(\s*\d{1,3})\\(?=[.)])")  # "1\\.", which is no list to Markdown
_QUOTED = re.compile(r"^\s*(?:>\s+)+")
_PAIRS = {
    '"': '"',
    "'": "'",
    "“": "”",
    "„": "“",
    "«": "»",
    "‘": "’",
    "「": "」",
    "『": "』",
    "`": "`",
}
_RULE = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-*:?\s*)*$")
_HEADER = re.compile(r"\b(?:questions?|query|frage|pregunta|domanda|pergunta|问题|質問|вопрос)\b")


def plain_line(line: str) -> str:
    """A line without heading, quotation and bold marks; code and names such as `__init__` stay.

    Example:
        >>> plain_line("### **What** does `__init__` do in __main__?")
        'What does `__init__` do in __main__?'
    """
    line = _ESCAPED.sub(r"\1", _QUOTED.sub("", _HASHES.sub("", line.strip())))
    if "**" not in line and "__" not in line:
        return line
    spans: list[str] = []

    def keep(found: re.Match[str]) -> str:
        spans.append(found.group())
        return f"\x00{len(spans) - 1}\x00"

    line = _BOLD.sub(lambda found: found[1] or found[2], _CODE.sub(keep, line))
    return re.sub(r"\x00(\d+)\x00", lambda found: spans[int(found[1])], line)


def unquoted(text: str) -> str:
    """Without quotes and emphasis around the whole of it, and with single spaces."""
    text = plain_line(" ".join(text.split()))
    text = text[:-1] if text.endswith(('",', "',")) else text
    while len(text) > 1:
        if (_PAIRS.get(text[0]) == text[-1] and text[0] not in text[1:-1]) or (
            text[0] in "*_" and text[0] == text[-1] and not text.startswith(("__", "**"))
        ):
            text = text[1:-1].strip()
        elif text.startswith("**") and "**" not in text[2:]:
            text = text[2:].strip()
        elif text.endswith("**") and "**" not in text[:-2]:
            text = text[:-2].strip()
        else:
            break
    return text


def table_rows(text: str) -> list[dict[str, str]] | None:
    """The rows of a Markdown table or of CSV, by their headings; `None` if there is none.

    Example:
        >>> table_rows("| # | Question |\\n|---|---|\\n| 1 | What is it? |")
        [{'#': '1', 'Question': 'What is it?'}]
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    piped = [line for line in lines if line.startswith("|") or (line.count("|") and "|" in line)]
    if len(piped) >= 2 and (any(map(_RULE.match, piped)) or all(s.startswith("|") for s in piped)):
        cells = [_cells(line) for line in piped if not _RULE.match(line)]
        ruled = len(lines) > 1 and any(_RULE.match(line) for line in piped[:2])
        if not ruled and not _HEADER.search(" ".join(cells[0]).casefold()):
            cells.insert(0, [str(number) for number in range(max(map(len, cells)))])
        return _by_heading(cells)
    if lines and _HEADER.search(lines[0].casefold()) and not lines[0].endswith((":", "?", ".")):
        for sign in "\t;,":
            heads = [head.strip().strip('"') for head in lines[0].split(sign)]
            if len(heads) > 1 and all(len(head.split()) <= 2 for head in heads):
                return _by_heading(list(csv.reader(lines, delimiter=sign)))
    return None


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [unquoted(cell.replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", inner)]


def _by_heading(cells: list[list[str]]) -> list[dict[str, str]]:
    heads = [head.strip() for head in cells[0]]
    return [
        {head: cell.strip() for head, cell in zip(heads, row, strict=False) if cell.strip()}
        for row in cells[1:]
    ]
