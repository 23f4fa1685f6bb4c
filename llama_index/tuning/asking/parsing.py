"""From an LLM's reply to questions: what real models wrap around them is taken off.

What a structured reply looks like, for LLMs that call functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, Field

from llama_index.tuning.asking.loose_json import json_values
from llama_index.tuning.asking.markdown import plain_line, table_rows, unquoted
from llama_index.tuning.asking.refusals import is_offer, is_refusal
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.errors import ReplyError

Pair = dict[str, str]
"""`{"question": …}`, with an `"answer"` if there is one."""

_FENCE = re.compile(r"^\s*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"#{1,6}\s")
_LONGEST = 2_000
"""Characters of a line that are looked at: no question is longer."""
_TAG = r"</?(?:questions?|quer(?:y|ies)|q|li|ol|ul|p|br|item|output|response)\b[^<>]{0,200}>"
# What a local model's tokenizer leaves at the ends of lines, and marks that nobody sees.
_LEFT = r"(?:<\|[a-z_]{2,30}\|>|<(?:start|end)_of_turn>|</?s>|<[｜|]end▁of▁sentence[｜|]>)"
_LEFT_OVER = re.compile(
    rf"^[^\S\n]{{0,9}}{_LEFT}{{1,9}}(?:(?:assistant|model)[^\S\n]{{0,9}}$)?"
    rf"|[^\S\n]{{0,9}}{_LEFT}{{1,9}}[^\S\n]{{0,9}}$"
    r"|[\ufeff\u200b\u2060]",
    re.MULTILINE,
)
_ESCAPED_LINES = re.compile(r"\\n(?=\s{0,9}(?:\d{1,3}[.)]|[-*•])\s)")
_EMPHASIS = re.compile(r"<(b|strong|i|em|u)>([^<>]*)</\1>", re.IGNORECASE)
# "[insert question here]", "Questions"
_NO_ITEM = re.compile(
    r"[\[<{][^\]>}?]*\b(?:questions?|query|insert|your)\b[^\]>}?]*[\]>}]"
    r"|(?:(?:the|my|generated|sample|possible|example|suggested) )*questions?",
    re.IGNORECASE,
)
# One that stands in a sentence is spoken of: "What is <p> for?"
_STRUCTURE = re.compile(rf"(?<!\w ){_TAG}|{_TAG}(?! \w|[?,.;:)'’])")
_WORDS = (
    r"(?:Q|Question|Query|Frage|Pregunta|Domanda|Pergunta|Vraag|Fråga|Pytanie|Soru|Вопрос"
    r"|问题|質問|问|問|질문|سؤال|प्रश्न)"
)
# "1.", "2)", "(3)", "①", "Q1:", "Question 2 -", "Pregunta 3:", "問1：", "一、", "-", "*", "•", "a)"
_MARK = re.compile(
    r"""^\s*(?:
        (?P<bullet>[-*•‣◦●▪–—+]\s+(?:\[[ xX]?\]\s+)?)
      | (?P<circle>[①-⑳]\s*)
      | (?P<round>[(（\[]\s*\d{1,3}\s*[)）\]]\s*[.:：]?\s*)
      | (?P<word>WORDS\s*\#?\s*\d{1,3}(?:\s*[.:)、：．）](?!\d)\s*|\s+[-–—]\s+|\s+))
      | (?P<dot>\#?\d{1,3}\s*[.．、](?!\d)\s*)
      | (?P<bracket>\#?\d{1,3}(?:\s*[:)：）](?!\d)\s*|\s+[-–—]\s+))
      | (?P<roman>[(（]?(?:i{1,3}|iv|vi{0,3}|ix|x)[.)）]\s+)
      | (?P<letter>(?-i:[(（]?[a-h][.)）]|[A-H][.)）]|[(（][A-H][)）]|[A-H]:)\s+|[☐☑□○◯]\s*)
      | (?P<numeral>[一二三四五六七八九十]{1,2}\s*[、.．]\s*)
      | (?P<plainword>WORDS\s*[:：]\s*)
    )""".replace("WORDS", _WORDS),
    re.VERBOSE | re.IGNORECASE,
)
_ANSWER = re.compile(
    r"^\s*[-*•]?\s*(?:(?:the )?(?:correct|right|expected|model|sample|suggested)[ _])?"
    r"(?:A|Ans|Answer|Antwort|Respuesta|Réponse|Reponse|Risposta|Resposta|Antwoord|Svar|Odpowiedź"
    r"|Ответ|Cevap|答案|正确答案|回答|答え|答|답|정답|الجواب|الإجابة|उत्तर)"
    r"\s*\d{0,3}\s*[:：]\s*",
    re.IGNORECASE,
)
# Lines about a question that are none.
_ASIDE = re.compile(
    r"^\s*(?:[-*•]\s*)?(?:options?|choices?|explanation|rationale|reason(?:ing)?|hint|difficulty"
    r"|type|category|topic|context|source|reference|level|style|keywords?|optionen|erklärung"
    r"|opciones|explicación|explication|选项|解析|解释|説明)\s*\d{0,3}\s*[:：]",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here (?:are|is)|here['’]s|below (?:are|is)"
    r"|these questions|let me know|feel free|i hope|note that|note:|the following|absolutely"
    r"|great|happy to)\b",
    re.IGNORECASE,
)
_INTRODUCED = re.compile(  # "Sure! Here's one: What is the fee?"
    r"^(?:(?:sure|certainly|of course|okay|ok|absolutely|great)\b[!,.]*\s*)?"
    r"(?:here(?:['’]s| is| are)|the following|below (?:is|are))\b[^:?\n]{0,80}:\s+"
    r"(?=\S.{0,600}[?？؟]\W{0,3}\Z)",
    re.IGNORECASE,
)
_LABELLED_BEHIND = re.compile(
    r"(?<=[?？؟.])\s*[(\[](?:difficulty:?\s*|level:?\s*)?(?:very )?"
    r"(?:easy|simple|basic|medium|intermediate|moderate|hard|difficult|advanced|factual|factoid"
    r"|conceptual|inferential|analytical|multi-?hop|open-ended|yes/no)[)\]]\Z",
    re.IGNORECASE,
)
_INLINE_OPTIONS = re.compile(
    r"(?<=[?？؟])\s+[(（]?(?:[Aa1])[).:）]\s.*(?:\s|;|,)[(（]?(?:[Bb2])[).:）]\s.*\Z"
)
_ASKS = ("?", "？", "؟", "⁇", "՞", "፧", "⸮")
_ENDS = (*_ASKS, *".!。！।॥۔…:：;")
# Words that end no question: after one other question, these alone tell that a line was cut off.
_DANGLING = re.compile(
    r"(?:^|\s)(?:[a-zà-ÿ]|the|an|of|to|is|are|in|for|and|or|with|by|on|at|from|that|which|does|do)$",
    re.IGNORECASE,
)
_TEXT_KEYS = ("question", "query", "text", "q", "message", "question_text", "title")
_ANSWER_KEYS = ("answer", "a", "response", "correct_answer", "correct", "correct_option")
_LIST_KEYS = ("questions", "queries", "items", "pairs", "results", "output", "data", "messages")
_OPTION_KEYS = ("options", "choices", "alternatives", "answers")
_QUESTION_KEY = re.compile(r"(?:q|query|question|frage|pregunta|问题)?[ _-]?\d{1,3}\Z")
_NO_KEYS = {*_ANSWER_KEYS, *_OPTION_KEYS, "error", "explanation", "reason", "rationale", "note"}


def parse_questions(reply: str, limit: int) -> list[str]:
    """The questions of a reply, at most `limit`.

    Raises:
        ReplyError: there is none; a refusal, for instance.

    Example:
        >>> parse_questions('Here are two questions:\\n\\n1. "What is it?"\\n2) **Why?**', 2)
        ['What is it?', 'Why?']
    """
    return [pair["question"] for pair in parse_pairs(reply, limit)]


def parse_pairs(reply: str, limit: int, *, answers: bool = False) -> list[Pair]:
    """The questions, and their answers if the reply has them.

    Args:
        limit: the most questions to take.
        answers: a question without an answer is left out.
    """
    text = _FENCE.sub("", _LEFT_OVER.sub("", without_thoughts(reply))).strip()
    text = text if "\n" in text else _ESCAPED_LINES.sub("\n", text)
    values = json_values(text)
    if values is not None:
        pairs = list(_json_pairs(values))
    else:
        text = _STRUCTURE.sub("\n", text)
        rows = table_rows(text)
        pairs = list(_from_lines(text)) if rows is None else list(_from_table(rows))
    found: dict[str, Pair] = {}
    for pair in map(_encodable, pairs):
        if _is_text(pair["question"]) and (pair.get("answer") or not answers):
            found.setdefault(pair["question"].casefold(), pair)
    if not found:
        wanted = "question with an answer" if answers else "question"
        raise ReplyError(f"the reply holds no {wanted}: {reply[:200]!r}")
    return list(found.values())[:limit]


def _json_pairs(value: Any, depth: int = 0) -> Iterator[Pair]:
    if depth > 20:
        return
    if isinstance(value, str):
        yield from _told(value, None)
    elif isinstance(value, list):
        for item in value:
            yield from _json_pairs(item, depth + 1)
    elif isinstance(value, dict):
        keys = {str(key).casefold(): item for key, item in value.items()}
        text = next((keys[key] for key in _TEXT_KEYS if isinstance(keys.get(key), str)), None)
        if text is not None:
            yield from _told(text, _json_answer(keys))
            return
        lists = [keys[key] for key in _LIST_KEYS if isinstance(keys.get(key), (list, dict))]
        numbered = [item for key, item in keys.items() if _QUESTION_KEY.match(key)]
        inner = [
            item
            for key, item in keys.items()
            if key not in _NO_KEYS and isinstance(item, (list, dict))
        ]
        for item in lists or numbered or inner:
            yield from _json_pairs(item, depth + 1)
        if not (lists or numbered or inner):  # {"What is the fee?": "5 euros"}
            for key, item in value.items():
                if str(key).rstrip().endswith(_ASKS):
                    yield from _told(str(key), item if isinstance(item, str) else None)


def _json_answer(keys: dict[str, Any]) -> str | None:
    answer = next((keys[key] for key in _ANSWER_KEYS if keys.get(key) is not None), None)
    options = next((keys[key] for key in _OPTION_KEYS if keys.get(key)), None)
    if isinstance(answer, str) and options:
        if isinstance(options, list):
            options = dict(zip("abcdefgh", map(str, options), strict=False))
        return _chosen(answer, {str(key).casefold(): str(text) for key, text in options.items()})
    return None if answer is None else str(answer)


def _told(question: str, answer: str | None) -> Iterator[Pair]:
    """The pair of a question that a structure names as such."""
    line = _Line(question.replace("\n", " "))
    if line.refuses or is_offer(line.text):
        return
    pair = {"question": line.text}
    if answer is not None and answer.strip():
        pair["answer"] = answer.strip()
    yield pair


def _from_table(rows: Sequence[dict[str, str]]) -> Iterator[Pair]:
    """The pairs of a table: by its headings, else each row's cell that asks."""
    for row in rows:
        keys = {key.casefold(): cell for key, cell in row.items()}
        text = next(
            (cell for key, cell in keys.items() if re.search(rf"\b{_WORDS}", key, re.IGNORECASE)),
            None,
        ) or next((cell for cell in keys.values() if cell.endswith(_ASKS)), None)
        answer = next((cell for key, cell in keys.items() if _ANSWER.match(f"{key}:")), None)
        if text:
            yield from _told(text, answer)


def _from_lines(text: str) -> Iterator[Pair]:
    """The pairs of plain text: its numbered lines, else those that ask, else all of them."""
    rows = [_Line(line) for line in text.splitlines() if line.strip()]
    wanted = _questions_among(rows)
    current: Pair | None = None
    options: dict[str, str] = {}
    answering = False
    for place, row in enumerate(rows):
        if row.answer is not None:
            answering = current is not None
            if current is not None:
                current["answer"] = _chosen(row.answer, options)
        elif place in wanted:
            if current is not None:
                yield current
            current, answering, options = {"question": row.text}, False, {}
            yield from _earlier_of(current)
        elif row.shape == "letter":
            options[row.letter] = row.text
        elif answering and current is not None and not row.shape and not row.aside:
            current["answer"] = f"{current['answer']} {row.text}".strip()
    if current is not None:
        yield current


def _bare(line: str) -> str:
    """A line without HTML's emphasis around the whole of it."""
    whole = _EMPHASIS.fullmatch(line.strip())
    return whole[2] if whole else line


class _Line:
    """One line of a reply: its text without marks, and what can be seen of its role."""

    def __init__(self, line: str) -> None:
        line = line.strip()[:_LONGEST]
        hashed = _HEADING.match(line) is not None
        line = _INTRODUCED.sub("", _bare(plain_line(line)))
        answer = _ANSWER.match(line)
        self.answer = unquoted(line[answer.end() :]) if answer else None
        mark = _MARK.match(line)
        self.shape = (mark.lastgroup or "") if mark else ""
        self.letter = (mark.group().strip("().）（ :")[:1].casefold()) if mark else ""
        rest = line[mark.end() :] if mark else line
        again = _MARK.match(rest) if mark and self.shape != "letter" else None
        if again and again.lastgroup != "letter":
            rest = rest[again.end() :]
            self.shape = again.lastgroup or "" if self.shape == "bullet" else self.shape
        self.text = _LABELLED_BEHIND.sub("", _INLINE_OPTIONS.sub("", unquoted(_bare(rest))))
        self.heading = self.text.endswith((":", "：")) or (hashed and mark is None)
        self.asks = any(sign in self.text for sign in _ASKS)
        self.aside = _ASIDE.match(line) is not None
        self.refuses = is_refusal(self.text, marked=bool(self.shape))
        self.chatter = _CHATTER.match(self.text) is not None or is_offer(self.text)

    @property
    def counts(self) -> bool:
        """Whether it could be a question at all."""
        none = self.heading or self.refuses or self.aside or self.answer is not None
        none = none or _NO_ITEM.fullmatch(self.text) is not None
        return bool(self.text) and not none and not (self.chatter and not self.shape)


def _questions_among(rows: Sequence[_Line]) -> set[int]:
    """Which lines of a reply are its questions, by their place.

    Lines of one shape ("1.", "-", "a)", no mark) play one role: the questions' shapes are those
    in which something is asked; letters are options if another shape asks.
    """
    able = [place for place, row in enumerate(rows) if row.counts]
    asking = {rows[place].shape for place in able if rows[place].asks}
    shapes = asking - {"", "letter"} or asking - {""}
    if "" in asking and shapes <= {"letter"}:
        shapes = {""}
    if not shapes:
        marked = [rows[place].shape for place in able if rows[place].shape]
        refused = any(row.refuses for row in rows)
        shapes = set(marked[:1]) if marked else set() if refused else {""}
    found = [place for place in able if rows[place].shape in shapes]
    if shapes == {""} and "" in asking:
        found = [place for place in found if rows[place].asks]
    return set(_without_cut_off(rows, found))


def _without_cut_off(rows: Sequence[_Line], found: list[int]) -> list[int]:
    """Without a last line in which the token limit struck: every other asks, it just stops."""
    if len(found) < 2 or found[-1] < len(rows) - 1 or rows[found[-1]].text.endswith(_ENDS):
        return found
    if not all(rows[place].asks for place in found[:-1]):
        return found
    sure = len(found) > 2 or _DANGLING.search(rows[found[-1]].text)
    return found[:-1] if sure else found


def _earlier_of(pair: Pair) -> Iterator[Pair]:
    """Several questions in one line: all but the last; the pair keeps the last."""
    parts = re.split(r"(?<=[?？؟])\s*;?\s*(?=[^\s)\]\"'”»」])|\s*[;；]\s+(?=\S)", pair["question"])
    parts = [part for part in map(unquoted, parts) if part]
    parts = [*parts[:1], *(_MARK.sub("", part) for part in parts[1:])]  # "1. What? 2. When?"
    asking = [part for part in parts if part.endswith(_ASKS)]
    if len(parts) > 1 and len(asking) == len(parts):
        yield from ({"question": part} for part in parts[:-1])
        pair["question"] = parts[-1]


def _chosen(answer: str, options: dict[str, str]) -> str:
    """The text of an option that an answer names by its letter ("B", "(b)", "B) 5 euros")."""
    found = re.match(r"[(（]?([A-Ha-h])[).:）]*(?:\s+(.+)|\s*)\Z", answer)
    if not found or not options:
        return answer
    return (found[2] or options.get(found[1].casefold(), answer)).strip()


def _encodable(pair: Pair) -> Pair:
    """Half of a surrogate pair, which a cut-off JSON reply can hold, becomes a question mark."""
    return {key: text.encode("utf-8", "replace").decode() for key, text in pair.items()}


def _is_text(question: str) -> bool:
    return sum(character.isalnum() for character in question) >= 2


class QuestionList(BaseModel):
    """The questions that were asked for."""

    questions: list[str] = Field(description="the questions, each without a number")


class AnsweredQuestion(BaseModel):
    """A question and its answer."""

    question: str
    answer: str = Field(description="the answer, from the context alone")


class AnsweredQuestionList(BaseModel):
    """The questions that were asked for, with their answers."""

    questions: list[AnsweredQuestion]


def question_list() -> type[BaseModel]:
    """The model of a list of questions."""
    return QuestionList


def answered_question_list() -> type[BaseModel]:
    """The model of a list of questions with answers."""
    return AnsweredQuestionList
