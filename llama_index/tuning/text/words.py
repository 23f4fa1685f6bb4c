"""Text → words, in any script: what BM25 and the light re-ranker compare.

The commonest function words of some languages, without content of their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import Any

from llama_index.tuning.text.statistics import Codes, TokenTable

NO_LANGUAGE = "none"
ENGLISH = "english"

# Thai, Lao, Myanmar, Khmer, Kana, Bopomofo and Han are written without spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# What may stand in a word or not: vowel signs and the tatweel of Arabic and Hebrew, and invisible
# hyphens and joiners, such as PDF files and web pages have.
_OPTIONAL = re.compile(
    "[\u00ad\u200d\u2060\ufeff\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]"
)
_ASCII_WORDS = re.compile(r"\d+(?:[.,]\d+)+|[a-z0-9]+")
_PLAIN_WORDS = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")


class Analyzer:
    """Splits texts into stemmed words.

    Words are what Unicode calls letters and digits, with case, width and optional vowel signs
    removed; a number keeps its points and commas. Scripts without spaces give overlapping pairs
    of characters. Answers are the same for queries and documents.

    Args:
        language: whose stemmer and stop words to use, such as `"english"`, `"german"` or
            `"arabic"` (those of Snowball); `"none"` leaves words as they are.
        stop_words: words to leave out of queries, instead of the language's list.

    Raises:
        ValueError: an unknown language, naming those there are.

    Example:
        >>> Analyzer("english").words("Running costs rose 1,250.50 dollars")
        ['run', 'cost', 'rose', '1,250.50', 'dollar']
        >>> Analyzer("none").words("机器学习")
        ['机器', '器学', '学习']
    """

    def __init__(self, language: str = ENGLISH, *, stop_words: Sequence[str] | None = None) -> None:
        self._stem = _stemmer(language)
        if stop_words is not None and not isinstance(stop_words, Collection):
            raise TypeError(f"stop_words must be a list of words, got {stop_words!r}")
        listed = STOP_WORDS.get(language, "").split() if stop_words is None else stop_words
        if isinstance(listed, str) or not all(isinstance(word, str) for word in listed):
            raise TypeError(f"stop_words must be a list of words, got {stop_words!r}")
        self.language = language
        self.stop_words = list(stop_words) if stop_words is not None else None
        self._table = TokenTable(self.words)
        self._stops = frozenset(stem for word in listed for stem in self.words(word))

    def __reduce__(self) -> tuple[Any, ...]:
        # What it remembers is left behind: copies and other processes learn it anew.
        return partial(Analyzer, self.language, stop_words=self.stop_words), ()

    def words(self, text: str) -> list[str]:
        """The text's words, in order."""
        return [self._stem(word) for word in _split(text)]

    def codes(self, texts: Sequence[str]) -> list[Codes]:
        """Each text's words as numbers, shape `(words,)`: equal words, equal numbers."""
        return self._table.codes(texts)

    def query(self, text: str) -> list[str]:
        """The words of a query: without stop words, unless it has no others."""
        words = self.words(text)
        return [word for word in words if word not in self._stops] or words

    def to_dict(self) -> dict[str, Any]:
        """The arguments that make this analyzer."""
        return {"language": self.language, "stop_words": self.stop_words}


def languages() -> list[str]:
    """The languages that have a stemmer, and `"none"`."""
    import Stemmer

    return [NO_LANGUAGE, *sorted(Stemmer.algorithms())]


def is_number(word: str) -> bool:
    """Whether a word begins with a digit."""
    return word[:1].isdigit()


def _stemmer(language: str) -> Callable[[str], str]:
    if language == NO_LANGUAGE:
        return str
    known = languages()
    if language not in known:
        raise ValueError(f"unknown language {language!r}; choose one of: {', '.join(known)}")
    import Stemmer

    stem: Callable[[str], str] = Stemmer.Stemmer(language).stemWord
    # I is the capital of \u0131, or of i in foreign words: the two meet.
    return (lambda word: stem(word).replace("\u0131", "i")) if language == "turkish" else stem


def _split(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = _OPTIONAL.sub("", folded.replace("i\u0307", "i"))  # of a capital \u0130
    special, words_and_runs = _unicode_patterns()
    if not special.search(plain):
        return _PLAIN_WORDS.findall(plain)
    words: list[str] = []
    for run, word in words_and_runs.findall(plain):
        if word:
            words.append(word)
        elif len(run) == 1:
            words.append(run)
        else:
            words.extend(run[i : i + 2] for i in range(len(run) - 1))
    return words


@cache
def _unicode_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    # Python's \w leaves out combining marks, which would cut Indic words apart.
    marks = "".join(chr(c) for c in range(0x300, 0xFE30) if unicodedata.category(chr(c))[0] == "M")
    word = rf"\d+(?:[.,]\d+)+|(?:(?![{_UNSPACED}])(?:[^\W_]|[{marks}]))+"
    return re.compile(f"[{_UNSPACED}{marks}]"), re.compile(rf"([{_UNSPACED}]+)|({word})")


STOP_WORDS = {
    "english": (
        "a an the this that these those and or but nor if then than so as of at by for with about "
        "into from to in on off over under is am are was were be been being do does did done have "
        "has had having it its he she they them his her their our your my we you i me us him who "
        "whom whose which what when where why how can could will would shall should may might "
        "must not no there here also any some such"
    ),
    "german": (
        "der die das den dem des ein eine einer eines einem einen und oder aber wenn dann als so "
        "wie von vom bei für mit über in im ins an am auf aus zu zum zur nach durch ist sind war "
        "waren sein wird werden wurde wurden hat haben hatte hatten es er sie wir ihr ich du mich "
        "mir dich dir ihm ihn ihnen uns euch wer wen wem was wann wo warum wieso welche welcher "
        "welches kann können soll sollen muss müssen nicht kein keine auch noch dass daß sich"
    ),
    "french": (
        "le la les l un une des du de d et ou mais si que qu qui quoi dont où quand comment "
        "pourquoi quel quelle quels quelles à au aux en dans par pour sur sous avec sans est sont "
        "était étaient être été a ont avait avoir il elle ils elles on nous vous je tu me te se "
        "ce cet cette ces son sa ses leur leurs mon ma mes ton ta tes notre votre ne pas plus y c s"
    ),
    "spanish": (
        "el la los las un una unos unas lo de del al a en por para con sin sobre y e o u pero si "
        "que qué quien quién cual cuál cuando cuándo donde dónde como cómo es son era eran ser "
        "sido está están ha han había haber se su sus mi mis tu tus nos le les me te yo él ella "
        "ellos ellas no más este esta estos estas ese esa eso"
    ),
    "italian": (
        "il lo la i gli le l un uno una di del dello della dei degli delle a al alla ai alle da "
        "dal dalla in nel nella con su sul sulla per tra fra e ed o ma se che chi cui quale quali "
        "quando dove come perché è sono era erano essere stato ha hanno aveva avere si suo sua "
        "suoi sue mio mia non più questo questa questi queste io tu lui lei noi voi loro"
    ),
    "portuguese": (
        "o a os as um uma uns umas de do da dos das em no na nos nas por pelo pela para com sem "
        "sobre e ou mas se que quem qual quais quando onde como é são era eram ser foi está estão "
        "tem têm tinha ter ao à aos às seu sua seus suas meu minha não mais este esta isto esse "
        "essa isso eu tu ele ela nós eles elas"
    ),
    "dutch": (
        "de het een en of maar als dan zo van bij voor met over in op aan uit naar door om te tot "
        "is zijn was waren ben bent wordt worden werd heeft hebben had hij zij ze wij we jij je u "
        "ik mij me hem haar hun ons wie wat welke wanneer waar waarom hoe kan kunnen zal zullen "
        "moet moeten niet geen ook dat die dit deze er"
    ),
    "arabic": (
        "في من على إلى الى عن مع هذا هذه ذلك تلك هو هي هم هن نحن أنا أنت كان كانت يكون تكون ما "
        "ماذا متى أين كيف لماذا هل أي التي الذي الذين أن ان إن لا لم لن قد و أو ثم بين كل بعد قبل"
    ),
    "russian": (
        "и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее "
        "мне было вот от меня о из ему кто где когда почему какой какая какие это эта этот эти для "
        "мы их чем была были быть есть при до или ни"
    ),
}


def normalise(text: str) -> str:
    """The form in which two query texts count as the same: case and space aside."""
    return " ".join(text.casefold().split())
