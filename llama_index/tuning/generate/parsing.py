"""From an LLM's reply to questions: what real models wrap around them is taken off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from llama_index.tuning.datasets.thoughts import without_thoughts
from llama_index.tuning.errors import ReplyError

Pair = dict[str, str]
"""`{"question": …}`, with an `"answer"` where there is one."""

_FENCE = re.compile(r"^\s*```[\w-]*\s*$", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*\*|__)(.+?)\1")
_WORDS = (
    r"(?:Q|Question|Query|Frage|Pregunta|Domanda|Pergunta|Vraag|Fråga|Pytanie|Soru|Вопрос"
    r"|问题|質問|问|問|질문|سؤال|प्रश्न)"
)
# "1.", "2)", "(3)", "①", "Q1:", "Question 2 -", "Pregunta 3:", "問1：", "一、", "-", "*", "•", "a)"
_MARK = re.compile(
    r"""^\s*(?:
        [-*•‣◦●▪–—+]\s+
      | [①-⑳]\s*
      | [(（\[]\s*\d{1,3}\s*[)）\]]\s*[.:：]?\s*
      | (?:WORDS\s*\#?\s*)?\d{1,3}(?:\s*[.:)、：．）](?!\d)\s*|\s+[-–—]\s+)
      | (?-i:[a-h][.)]|[A-H]\))\s+
      | [一二三四五六七八九十]{1,2}\s*[、.．]\s*
      | WORDS\s*[:：]\s*
    )""".replace("WORDS", _WORDS),
    re.VERBOSE | re.IGNORECASE,
)
_ANSWER = re.compile(
    r"^\s*[-*•]?\s*(?:A|Ans|Answer|Antwort|Respuesta|Réponse|Reponse|Risposta|Resposta|Ответ"
    r"|答案|回答|答)\s*\d{0,3}\s*[:：]\s*",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here (?:are|is)|below (?:are|is)|these questions"
    r"|let me know|feel free|would you like|do you want me|i hope|note that|note:"
    r"|the following)\b",
    re.IGNORECASE,
)
_ASKS = ("?", "？", "؟")
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
_TEXT_KEYS = ("question", "query", "text", "q", "message")
_ANSWER_KEYS = ("answer", "a", "response")
_LIST_KEYS = ("questions", "queries", "items", "pairs", "results", "output", "data", "messages")


def parse_questions(reply: str, limit: int) -> list[str]:
    """The questions of a reply, at most `limit`.

    Raises:
        ReplyError: there is none.

    Example:
        >>> parse_questions('Here are two questions:\\n\\n1. "What is it?"\\n2) **Why?**', 2)
        ['What is it?', 'Why?']
    """
    return [pair["question"] for pair in parse_pairs(reply, limit)]


def parse_pairs(reply: str, limit: int, *, answers: bool = False) -> list[Pair]:
    """The questions, and their answers where the reply has them.

    Args:
        limit: at most so many.
        answers: a question without an answer is left out.
    """
    text = without_thoughts(reply).strip()
    pairs = _from_json(text)
    if pairs is None:
        pairs = list(_from_lines(_FENCE.sub("", text)))
    found: dict[str, Pair] = {}
    for pair in map(_encodable, pairs):
        if _is_text(pair["question"]) and (pair.get("answer") or not answers):
            found.setdefault(pair["question"].casefold(), pair)
    if not found:
        wanted = "question with an answer" if answers else "question"
        raise ReplyError(f"the reply holds no {wanted}: {reply[:200]!r}")
    return list(found.values())[:limit]


def parse_yes_no(reply: str) -> bool:
    """Yes or no, in the first word of a reply that has one of them."""
    text = without_thoughts(reply)
    found = re.search(
        r"\b(yes|no|true|false|ja|nein|sí|si|oui|non|sì|да|нет)\b|(是的|否|不是|はい|いいえ|是)",
        text.casefold(),
    )
    if found is None:
        raise ReplyError(f"the reply says neither yes nor no: {reply[:200]!r}")
    return found.group() in {
        *("yes", "true", "ja", "sí", "si", "oui", "sì", "да", "是的", "是", "はい"),
    }


def parse_grade(reply: str, highest: int) -> int:
    """A whole number from 0 to `highest`: the first of the reply."""
    found = re.search(r"(?<![\d.])\d+(?![\d]|\.\d)", without_thoughts(reply))
    if found is None or int(found.group()) > highest:
        raise ReplyError(f"the reply holds no grade from 0 to {highest}: {reply[:200]!r}")
    return int(found.group())


def _from_json(text: str) -> list[Pair] | None:
    """The pairs where the text is, or holds, JSON; `None` where it is not."""
    bare = _FENCE.sub("", text).strip()
    value: Any = None
    for candidate in (bare, _between(bare, "[", "]"), _between(bare, "{", "}")):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(value, (list, dict)):
            break
    else:
        rows = [_json_line(line) for line in bare.splitlines() if line.strip().startswith("{")]
        value = [row for row in rows if row is not None]
    pairs = list(_json_pairs(value))
    return pairs or None


def _between(text: str, first: str, last: str) -> str:
    return text[text.find(first) : text.rfind(last) + 1] if first in text else ""


def _json_line(line: str) -> Any:
    try:
        return json.loads(line.strip().rstrip(","))
    except ValueError:
        return None


def _json_pairs(value: Any) -> Iterator[Pair]:
    if isinstance(value, str):
        yield {"question": _bare(value)}
    elif isinstance(value, list):
        for item in value:
            yield from _json_pairs(item)
    elif isinstance(value, dict):
        keys = {str(key).casefold(): item for key, item in value.items()}
        text = next((keys[key] for key in _TEXT_KEYS if isinstance(keys.get(key), str)), None)
        if text is not None:
            answer = next((keys[key] for key in _ANSWER_KEYS if keys.get(key) is not None), None)
            yield _pair(text, None if answer is None else str(answer))
            return
        lists = [keys[key] for key in _LIST_KEYS if isinstance(keys.get(key), (list, dict))]
        for item in lists or [
            item for key, item in keys.items() if key.startswith(("q", "1", "2", "3"))
        ]:
            yield from _json_pairs(item)


def _from_lines(text: str) -> Iterator[Pair]:
    """The pairs of plain text: its numbered lines, else those that ask, else all of them."""
    rows = [_Line(line) for line in text.splitlines() if line.strip()]
    wanted = _kind_of_question(rows)
    current: Pair | None = None
    answering = False
    for row in rows:
        if row.answer is not None:
            answering = current is not None
            if current is not None:
                current["answer"] = row.answer
        elif wanted(row):
            if current is not None:
                yield current
            current, answering = {"question": row.text}, False
            yield from _earlier_of(current)
        elif answering and current is not None and not row.marked:
            current["answer"] = f"{current['answer']} {row.text}".strip()
    if current is not None:
        yield current


class _Line:
    """One line of a reply: its text without marks, and what can be seen of its role."""

    def __init__(self, line: str) -> None:
        hashed = line.lstrip().startswith("#")
        line = _EMPHASIS.sub(r"\2", line.strip().lstrip("# "))
        answer = _ANSWER.match(line)
        self.answer = line[answer.end() :].strip() if answer else None
        mark = _MARK.match(line)
        rest = line[mark.end() :] if mark else line
        again = _MARK.match(rest) if mark else None
        rest = rest[again.end() :] if again else rest
        self.marked = mark is not None
        self.text = _bare(rest)
        self.heading = self.text.endswith((":", "：")) or (hashed and mark is None)
        self.asks = any(sign in self.text for sign in _ASKS)
        self.chatter = _CHATTER.match(self.text) is not None


def _kind_of_question(rows: list[_Line]) -> Callable[[_Line], bool]:
    """Which lines of this reply are questions."""
    plain = [row for row in rows if row.answer is None and row.text and not row.heading]
    if any(row.marked for row in plain):
        return lambda row: row.marked and bool(row.text) and not row.heading
    plain = [row for row in plain if not row.chatter]
    if any(row.asks for row in plain):
        return lambda row: row.asks and not row.heading and not row.chatter
    return lambda row: bool(row.text) and not row.heading and not row.chatter


def _earlier_of(pair: Pair) -> Iterator[Pair]:
    """Several questions in one line: all but the last; the pair keeps the last."""
    parts = re.split(r"(?<=[?？؟])\s*;?\s*(?=[^\s)\]\"'”»」])|\s*[;；]\s+(?=\S)", pair["question"])
    parts = [part for part in map(_bare, parts) if part]
    asking = [part for part in parts if part.endswith(_ASKS)]
    if len(parts) > 1 and len(asking) == len(parts):
        yield from ({"question": part} for part in parts[:-1])
        pair["question"] = parts[-1]


def _pair(question: str, answer: str | None) -> Pair:
    line = _Line(question.replace("\n", " "))
    pair = {"question": line.text}
    if answer is not None and answer.strip():
        pair["answer"] = answer.strip()
    return pair


def _bare(text: str) -> str:
    """Without quotes and emphasis around the whole of it, and with single spaces."""
    text = " ".join(text.split())
    text = text[:-1] if text.endswith(('",', "',")) else text
    text = _EMPHASIS.sub(r"\2", text).strip("*_ ")
    while len(text) > 1 and _PAIRS.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _encodable(pair: Pair) -> Pair:
    """Half of a surrogate pair, which a cut-off JSON reply can hold, becomes a question mark."""
    return {key: text.encode("utf-8", "replace").decode() for key, text in pair.items()}


def _is_text(question: str) -> bool:
    return sum(character.isalnum() for character in question) >= 2
