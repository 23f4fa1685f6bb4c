"""Yes or no, or a grade, out of an LLM's reply: what it concludes, not what it names first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llama_index.tuning.asking.loose_json import json_values
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.errors import ReplyError

_YES_WORDS = (
    "yes yeah yep yup true correct affirmative "
    "ja jawohl jo sí si oui vrai sì vero sim verdadeiro igaz igen "
    "да так ano áno tak da taip jā jah kyllä joo evet doğru ναι כן نعم أجل صحيح بله آری ہاں جی हाँ "
    "हां सही जी হ্যাঁ ஆம் అవును ಹೌದು അതെ có vâng đúng ya iya benar oo ndiyo bəli አዎ այո დიახ"
)
_NO_WORDS = (
    "no nope nah false incorrect nein nee non faux não nao falso falsa нет ні не nie ne ei nem "
    "hayır hayir yanlış όχι לא لا كلا خطأ نه خیر نہیں नहीं ना गलत না இல்லை కాదు ಇಲ್ಲ ഇല്ല không sai "
    "tidak bukan salah hindi hapana nej nei ikke nē nu xeyr አይ አይደለም ոչ არა irrelevant negative"
)
# Scripts without spaces between words; the longer ones first, since 不是 holds 是.
_JOINED_NO_WORDS = (
    "不是 并不 並不 不对 不對 不相关 不相關 没有 沒有 否 无关 無關 不 いいえ いや ではない "
    "ありません ていません ていない 関係ない 関係がない 該当しない 아니요 아니오 아뇨 아닙니다 "
    "ไม่ใช่ ไม่ "
    "ບໍ່ແມ່ນ ບໍ່ ទេ မဟုတ်"
)
_JOINED_YES_WORDS = (
    "是的 是 对的 对 對 相关 相關 はい ええ そうです ています 예 네 그렇습니다 맞습니다 "
    "ใช่ ແມ່ນ បាទ ចាស ဟုတ်"
)
# Words that mean something else too ("if", "then", "not … at all"): they count where they stand
# alone.
_ALONE_WORDS = (
    "affirmative negative "
    "si da ne nu ya so tak так не nie jo oo जी ना ja ei nem ikke لا không sai correct true false "
    "vero salah hindi 不 对 對 没有 沒有 相关 相關 不相关 예 네 ទេ បាទ "
    "ています ていない irrelevant"
)
_YES, _NO, _ALONE = _YES_WORDS.split(), _NO_WORDS.split(), {*_ALONE_WORDS.split()}
_JOINED_NO, _JOINED_YES = _JOINED_NO_WORDS.split(), _JOINED_YES_WORDS.split()
_WORD = re.compile(
    rf"(?<!\w)(?<!\w['’])(?P<spaced>{'|'.join(sorted({*_YES, *_NO}, key=len, reverse=True))})"
    r"(?!\w)(?!['’]\w)"
    rf"|(?P<joined>{'|'.join([*_JOINED_NO, *_JOINED_YES])})"
)
_MARKS = ".,:;!?\n—–-…=。，：；！？、।"
_IDIOMS = re.compile(
    r"\bno (?=(?:\w+ )?(?:doubts?|questions?|problems?|more|one|longer|matter|way|wonder|other"
    r"|reason|relevant|mention|information|need|explicit|direct|specific|evidence|details?"
    r"|uncertainty|ambiguity|such|text|passage)\b)"
    r"|\b(?:sin|ohne|sans|sem|senza) \w+|\byes[/ -](?:or[/ -])?no\b|\bja[/ -](?:oder[/ -])?nein\b"
    r"|\bs[íi][/ -](?:o[/ -])?no\b|\boui[/ -](?:ou[/ -])?non\b|\btrue[/ -](?:or[/ -])?false\b"
    r"|是否|是不是|да/нет"
)
_NEGATED = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bcannot)(?: (?:say|answer|be|a|simply|just|call it))*[\s\"'“*]*\Z"
)
_LABEL = re.compile(
    r"(?:answer(?:ed|able)?|verdict|conclusion|result|judge?ment|decision|relevan(?:ce|t)|supported"
    r"|grounded|faithful(?:ness)?|entail(?:ed|ment)|correct(?:ness)?|final|overall|so|thus"
    r"|therefore|hence|antwort|ergebnis|urteil|fazit|respuesta|conclusi[oó]n|resultado|réponse"
    r"|verdict|conclusion|risposta|resposta|antwoord|odpowied[zź]|odpověď|ответ|итог|вывод|cevap"
    r"|yanıt|جواب|الجواب|الإجابة|پاسخ|उत्तर|答案|回答|结论|結論|答え|답변?|정답|คำตอบ)"
    r"(?: to (?:this|that|the|your|my) \w+)?"
    r"(?: (?:is|ist|es|est|è|é|are|be|would be|must be|jest|je|هي|هو))?\s*[:：=,-]?[\s\"'“”*`(]*\Z"
)
_BOTH = re.compile(
    r"\W*(?:yes and no|no and yes|ja und nein|s[íi] y no|oui et non|sim e não|sì e no|да и нет)"
    r"\W*\Z"
)
# What an LLM that corrects itself had said before: "no, wait, yes".
_TAKEN_BACK = re.compile(
    r"^.{0,2000}(?:[,.;—–-]\s*(?:wait|hold on|on second thought|moment|attendez|espera)\s*[,.:;—–-]"
    r"|[.;—–-]\s*actually\s*,(?=\s*(?:yes|no)\s*[,.!;—–-]))",
    re.DOTALL,
)
# Of a short reply that names neither, and takes nothing back.
_SHORT_NO = re.compile(
    r"\b(?:not|n['’]t|ir-?|un)\s*(?:\w+ )?(?:relevant|related|supported|answered)"
    r"|(?:\bnot|n['’]t) (?:\w+ )?(?:answer|address|mention|support|contain|provide)"
    r"|^\W*(?:it|this|(?:absolutely|definitely|certainly|of course))(?: \w+)?(?: not|n['’]t)\W*$"
)
_SHORT_YES = re.compile(
    r"\b(?:relevant|supported|answered|(?:does|do) answer|answers|addresses)\b"
    r"|^\W*(?:absolutely|definitely|certainly|of course|indeed)\W*$"
)
_SHORT = 10  # words
_BUT = re.compile(
    r"\b(?:but|however|al?though|only|part\w*|except|if|whether)\b|\bnot (?:ir|un)|\?"
)
# Whole replies that are a verdict without the word.
_WHOLE_NO = re.compile(
    r"\W*(?:hardly|not at all|(?:probably|clearly) not|❌|👎"
    r"|(?:[\w ]{1,40}, )?(?:it|(?:the|this) \w+) (?:does|is)(?: not|n['’]t))\W*"
)
_WHOLE_YES = re.compile(r"\W*(?:exactly|(?:it|(?:the|this) \w+) (?:does|is)|✅|✔️?|👍)\W*")

_RANGE = re.compile(
    r"\b(?:between|zwischen|entre|tra|между)\s+\d{1,9}\s+(?:and|und|et|y|e|и)\s+\d{1,9}"
    r"|(?:\b(?:from|von|de|da|от|од) )?(?<![\d.,])\d{1,9}\s*"
    r"(?:[-–—−~～/]|\.\.+|to|through|bis|à|al?|до|až|do|tot|till?|até|から|到|至)"
    r"\s*\d{1,9}(?![\d]|[.,]\d)",
    re.IGNORECASE,
)
_OUT_OF = re.compile(
    r"(?<=\d)(?:[.,]0{1,9})?\s*(?:/|out of|von|sur|de|di|su|of|av|af|van|из|z)\s*"
    r"(?P<top>\d{1,9})\b(?![.,]\d)",
    re.IGNORECASE,
)
_SCALE_OF = re.compile(
    r"\b(?:scale|maximum|max|highest|skala|escala|échelle) (?:of|is|von|de)? ?\d{1,9}"
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.,])(?P<sign>[-−])?(?P<digits>\d{1,9})(?P<rest>[.,]\d{1,9})?"
    r"(?![A-Za-z0-9_%]|[.,]\d)"
)
_STARTS = re.compile(
    r"[\"'“”*`(\[#>\s]*[-−]?\d{1,9}(?:[.,]\d{1,9})?[\"'”*`)\]]*\s*(?:[-–—.:;,(\n]|\Z)"
)
_GRADE_LABEL = re.compile(
    r"(?:grade|score|rating|relevance|mark|level|rank|answer|verdict|points?|value|note|bewertung|punkte"
    r"|relevanz|antwort|puntuaci[oó]n|calificaci[oó]n|relevancia|respuesta|note|pertinence|réponse"
    r"|punteggio|voto|rilevanza|nota|pontuação|relevância|ocena|оценка|балл|релевантность|ответ"
    r"|评分|得分|分数|相关性|等级|評価|スコア|関連度|点数|점수|등급|평가|التقييم|الدرجة|अंक|स्कोर|คะแนน)"
    r"(?: (?:is|was|be|would be|of|as|to|ist|es|est|è|é|jest|равна|a|an|the|the passage|here))*"
    r"\s*(?:[:：=>]|->|→|是|は|为|為)?[\s\"'“”*`(\[]*\Z",
    re.IGNORECASE,
)
# "0, 1, 2 or 3?", and what a reply says that it is not.
_OTHERS = re.compile(
    r"\d(?:\s*,\s*\d)*\s*,?\s*(?:or|oder|ou|o|y|e)\s+\d\s*[?:]"
    r"|\b(?:rather than|instead of|not|nicht|statt|no|pas|plutôt que)\s+(?:an?\s+|ein\w*\s+)?"
    r"\d(?!\d)",
    re.IGNORECASE,
)
_EITHER = re.compile(r"\d\s*(?:or|oder|ou|o)\s+\d\W*\Z", re.IGNORECASE)
_NO_GRADE_KEY = re.compile(r"max|highest|scale|range|total|out_?of|id\b|number", re.IGNORECASE)
_WHY_KEY = re.compile(
    r"reason(?:s|ing)?(?![a-z])|rationale|expla|justif|thought|analysis|comment|feedback|evidence"
    r"|^(?:notes?|quotes?|question|query|passage|text|context)$|begründung|razón|raison|理由|原因|解释",
    re.IGNORECASE,
)
# "(0 = none, 3 = perfect)", behind a grade's name
_LEGEND = re.compile(
    r"[(\[]\s*\d{1,2}\s*(?:=|:|–|-|means|is|being)\s*[^()\[\]\d]{1,60}\d{1,2}\s*(?:=|:|–|-|means|is|being)"
    r"[^()\[\]]{1,300}[)\]]"
)
_SPELT = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


def parse_yes_no(reply: str) -> bool:
    """What a reply concludes: yes or no.

    Raises:
        ReplyError: neither, or both.

    Example:
        >>> parse_yes_no("There is no doubt: yes")
        True
    """
    text = without_thoughts(reply).strip()
    found = _from_values(json_values(text))
    if found is None:
        found = _concluded(text.casefold())
    if found is None:
        raise ReplyError(f"the reply says neither yes nor no, or both: {reply[:200]!r}")
    return found


def parse_grade(reply: str, highest: int) -> int:
    """The whole number from 0 to `highest` that a reply concludes.

    Raises:
        ReplyError: none, another number, or several of which none is the conclusion.

    Example:
        >>> parse_grade("On the scale (0-3) the relevance is 3", 3)
        3
    """
    text = without_thoughts(reply).strip()
    found = _grade_of(text, highest)
    if found is None or not 0 <= found <= highest:
        raise ReplyError(f"the reply holds no grade from 0 to {highest}: {reply[:200]!r}")
    return found


def _from_values(values: list[Any] | None) -> bool | None:
    """The first verdict among the values of a JSON object."""
    for value in values or []:
        for item in _verdicts(value) if isinstance(value, dict) else [value]:
            if isinstance(item, bool):
                return item
            if isinstance(item, int) and item in (0, 1):
                return bool(item)
            if isinstance(item, str) and len(item) < 20:
                return _concluded(item.casefold())
    return None


def _verdicts(row: dict[str, Any]) -> list[Any]:
    """The values of an object but for those that say why, which may begin with "yes" too."""
    return [item for key, item in row.items() if not _WHY_KEY.search(str(key))]


class _Verdict:
    """A yes or no in a text, and how it stands there."""

    def __init__(self, text: str, found: re.Match[str]) -> None:
        word = found.group()
        before = text[max(0, found.start() - 60) : found.start()]
        after = text[found.end() : found.end() + 20].lstrip("\"'“”’*`_) ")
        self.yes = word in _YES or word in _JOINED_YES
        self.starts = not before.strip("\"'“”‘*`_#>-•([ \n\t")
        opened = self.starts or before.rstrip("\"'“”‘*`_( 	")[-1:] in _MARKS
        self.closed = not after or after[0] in _MARKS + "("
        self.labelled = _LABEL.search(before) is not None
        self.alone = opened and self.closed
        self.asked = after.startswith(("?", "？", "if ", "only if "))  # or what would be
        self.negated = _NEGATED.search(before) is not None
        self.weak = word in _ALONE


def _concluded(text: str) -> bool | None:
    text = text.replace("**", "")
    if _BOTH.match(text):
        return None
    text = _IDIOMS.sub(" ", _TAKEN_BACK.sub("", text, count=1))
    if (bare := text.strip(" .\n")) in ("0", "1", "n", "y"):
        return bare in ("1", "y")
    for pattern, verdict in ((_WHOLE_NO, False), (_WHOLE_YES, True)):
        if len(text) < 80 and pattern.fullmatch(text):
            return verdict
    found = [_Verdict(text, match) for match in _WORD.finditer(text)]
    found = [verdict for verdict in found if not verdict.negated]
    found = [verdict for verdict in found if not verdict.asked] or found
    labelled = [verdict for verdict in found if verdict.labelled and not verdict.weak]
    labelled += [verdict for verdict in found if verdict.labelled and verdict.closed]
    if labelled:
        return labelled[-1].yes
    first = next((v for v in found if v.starts and (v.alone or not v.weak)), None)
    alone = [verdict for verdict in found if verdict.alone]
    if first is not None:
        return first.yes
    if alone:
        return _agreed(alone) if _agreed(alone) is not None else alone[-1].yes
    rest = [verdict for verdict in found if not verdict.weak]
    if rest:
        return _agreed(rest)
    if len(text.split()) <= _SHORT and not _BUT.search(text):
        if _SHORT_NO.search(text):
            return False
        return True if _SHORT_YES.search(text) else None
    return None


def _agreed(verdicts: Sequence[_Verdict]) -> bool | None:
    said = {verdict.yes for verdict in verdicts}
    return said.pop() if len(said) == 1 else None


def _grade_of(text: str, highest: int) -> int | None:
    for value in json_values(text) or []:
        for item in _graded(value) if isinstance(value, dict) else [value]:
            if isinstance(item, str) and item.strip().isdecimal():
                item = int(item)
            if isinstance(item, (int, float)) and not isinstance(item, bool):
                return int(item) if item == int(item) else None
    text = text.replace("**", "")
    other = [match for match in _OUT_OF.finditer(text) if int(match["top"]) != highest]
    if other and len(_NUMBER.findall(text)) <= 2:
        return None
    text = _OUT_OF.sub(" ", text)
    text = _OTHERS.sub(" ", _SCALE_OF.sub(" ", _RANGE.sub(" ", _LEGEND.sub(" ", text))))
    if _EITHER.search(text):
        return None
    numbers = list(_NUMBER.finditer(text))
    labelled = next((found for found in reversed(numbers) if _is_labelled(text, found)), None)
    if labelled:
        return _whole(labelled)
    if numbers and _STARTS.match(text):
        return _whole(numbers[0])
    grades = [found for found in numbers if (_whole(found) or 0) <= highest]
    if not numbers:
        spelt = {_SPELT[word] for word in re.findall(r"[a-z]+", text.casefold()) if word in _SPELT}
        return spelt.pop() if len(spelt) == 1 else None
    if len({_whole(found) for found in grades}) == 1:
        return _whole(grades[0])
    last = numbers[-1]
    return _whole(last) if not text[last.end() :].strip("\"'“”*`)]. \n!。") else None


def _is_labelled(text: str, number: re.Match[str]) -> bool:
    before = text[max(0, number.start() - 60) : number.start()]
    # A label has letters: without any the pattern, tried at each character, finds none.
    return any(map(str.isalpha, before)) and _GRADE_LABEL.search(before) is not None


def _graded(row: dict[str, Any]) -> list[Any]:
    """The values of an object that may be its grade, those under a grade's name first."""
    able = {str(key): item for key, item in row.items() if not _NO_GRADE_KEY.search(str(key))}
    named = [key for key in able if _GRADE_LABEL.search(key)]
    return [able[key] for key in [*named, *(key for key in able if key not in named)]]


def _whole(found: re.Match[str]) -> int | None:
    """The number if it is whole; -1 below zero, which is no grade."""
    if found["rest"] and found["rest"].strip(".,0"):
        return None
    return -1 if found["sign"] and int(found["digits"]) else int(found["digits"])
