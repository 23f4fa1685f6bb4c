"""Whether a text is an LLM's refusal, or its talk to whoever asked it."""

from __future__ import annotations

import re

_ACT = (
    r"(?:generat|writ|creat|produc|formulat|com(?:e|ing) up with|compos|draft|devis|develop"
    r"|provid|answer|assist|help|comply|compli|fulfil|engag|discuss|respond|continu|shar|proceed"
    r"|complet|extract|identif|deriv|find|pos|construct|form|offer|ask|support|participat|do)\w*"
)
_OBJECT = (
    r"(?:questions?|quer(?:y|ies)|requests?|prompts?|content|topics?|material|passages?|contexts?"
    r"|text|excerpts?|pairs?|anything|assistance"
    r"|(?:with|about|of|on|from|to|in|do) (?:this|that|it)"
    r"|you with|this|that\b)"
)
_UNABLE = (
    r"(?:can ?no?t|can['’]?t|cannot|could ?n['’]?t|could not|won['’]?t|will not|would not"
    r"|(?:un|not )able to|unable to"
    r"|not (?:comfortable|allowed|permitted|possible|appropriate|going)"
    r"|do(?:es)? ?n['’o]t (?:feel comfortable|have)|(?:must|have to|need to|will)? ?decline"
    r"|refuse|impossible|inappropriate|against (?:my|our))"
)
_SOURCE = (
    r"(?:passages?|contexts?|texts?|documents?|contents?|inputs?|information|excerpts?|snippets?"
    r"|materials?|articles?|paragraphs?|chunks?|sections?|data)"
)
_LACKS = (
    r"(?:do(?:es)? ?n['’o]t (?:appear to |seem to |actually )?(?:contain|provide|include|have|offer"
    r"|give|mention|present|hold|supply)|lacks?|contains? (?:no|only|insufficient)|has no"
    r"|provides? no|includes? no|is (?:too (?:short|vague|limited)|empty|blank|missing|not clear"
    r"|unclear|incomplete|insufficient|not (?:sufficient|enough|suitable))"
    r"|(?:appears?|seems?) to (?:be|have|contain|lack)|was (?:not|n['’]?t) provided|is not provided"
    r"|consists? (?:only|solely|entirely) of)"
)
_ENGLISH = re.compile(
    rf"\bas an? (?:\w+ )?(?:ai\b|a\.i\.|artificial intelligence|language model|llm\b|chatbot)"
    rf"|\bi(?: a|['’])m (?:just |only )?an? (?:\w+ )?"
    rf"(?:ai\b|artificial|language model|llm\b|chatbot)"
    rf"|\b{_UNABLE}\b.{{0,60}}?\b{_ACT}\b.{{0,60}}?\b{_OBJECT}"
    rf"|\b{_UNABLE} (?:assist|help|comply|proceed|continue|do (?:that|this|so))\b"
    rf"|\b(?:this|the|your|that) (?:request|prompt|content|topic|question) "
    rf"(?:violates|goes against|is (?:against|not|inappropriate|harmful|sensitive))"
    rf"|\b(?:this|the|your|provided|given|above|supplied)(?: \w+){{0,2}} {_SOURCE}\b.{{0,40}}?"
    rf"\b{_LACKS}\b"
    rf"|\bno (?:\w+ ){{0,3}}(?:questions?|quer(?:y|ies)|pairs?)\b.{{0,20}}?"
    rf"\b(?:can|could|are|were|was|is|to be|possible|available|found|generated|provided)\b"
    rf"|\b(?:questions?|quer(?:y|ies)) (?:can|could) ?not be\b"
    rf"|\bthere(?: i|['’])s (?:not |n['’]?t |no |insufficient |too little |nothing )"
    rf".{{0,30}}?\b(?:enough|information|context|content|text|details?|to (?:ask|generate|base))"
    rf"|\b(?:not enough|insufficient|too little) (?:information|context|content|text|details?)\b"
    rf"|\bi (?:do ?n['’o]t|did ?n['’o]t) (?:see|have|find)\b.{{0,30}}?\b{_SOURCE}\b"
    rf"|\bplease (?:provide|share|supply|paste|send|give)\b.{{0,40}}?\b{_SOURCE}\b",
    re.IGNORECASE,
)
_SORRY = re.compile(
    r"^\W*(?:i(?:['’]?| a)m (?:very |so |really |truly )?(?:sorry|afraid)"
    r"|(?:so |very )?sorry|(?:my |our )?apologies|i (?:do |must |sincerely )?apologi[sz]e"
    r"|(?:i )?regret|unfortunately|regrettably)\b",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\b(?:can ?not|can['’]t|cant|\w+n['’]t|not|no|unable|nothing|won['’]t|decline|insufficient"
    r"|lacks?|refuse|impossible|too)\b",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"^\W*(?:none|n/?a|null|nil|nothing|no (?:questions?|quer(?:y|ies)|answers?|results?|output"
    r"|response|data)|not (?:applicable|possible|available|enough information)|undefined|error"
    r"|refused|i (?:refuse|decline)|no|keine|ninguna|aucune|无|無|なし|없음|нет)\W*$",
    re.IGNORECASE,
)
# How a refusal begins in other languages; such a line that asks nothing is one.
_ELSEWHERE = re.compile(
    r"^\W*(?:(?:es )?tut mir (?:sehr )?leid|leider\b|entschuldig|verzeihung|ich (?:kann|darf)\b"
    r".{0,30}\b(?:nicht|keine?n?)\b"
    r"|(?:lo )?siento\b|lamento\b|lamentablemente|desafortunadamente|disculp|perd[oó]n"
    r"|no (?:puedo|es posible|me es posible|hay suficiente)"
    r"|(?:je suis )?(?:vraiment )?d[ée]sol[ée]|je (?:ne peux|regrette|m['’]excuse)|malheureusement"
    r"|il (?:m['’]est|est) impossible|mi (?:di)?spiace|purtroppo|mi scuso"
    r"|non (?:posso|è possibile)"
    r"|descul|sinto muito|infelizmente|não (?:posso|consigo|é possível)|lamentamos"
    r"|het spijt me|helaas|ik kan (?:geen|niet|dit|deze)|beklager|desværre|dessverre|tyvärr|förlåt"
    r"|jag kan (?:inte|tyvärr)|jeg kan (?:ikke|desværre|dessverre)|valitettavasti|pahoittelen"
    r"|przepraszam|przykro mi|niestety|nie (?:mogę|jestem w stanie)|omlouv|bohužel|promiňte"
    r"|ospravedlňujem|žiaľ|sajn[áo]|elnézést|îmi pare rău|ne pare rău|din păcate|scuze|nu pot"
    r"|izvini|žao mi|nažalost|na žalost|üzgünüm|maalesef|ne yazık ki|özür"
    r"|извин|простите|к сожалению|мне жаль|я не могу|не могу|вибачте|перепрошую|на жаль|шкода"
    r"|съжалявам|за съжаление|λυπάμαι|δυστυχώς|συγγνώμη|מצטער|סליחה|לצערי|אני לא יכול"
    r"|عذر|آسف|أعتذر|اعتذر|للأسف|لا (?:أستطيع|يمكنني)|معذرت|متأسف|متاسف|ببخشید|پوزش|معاف"
    r"|क्षमा|माफ|मुझे खेद|खेद|मैं .{0,40}(?:नहीं|असमर्थ)|দুঃখিত|ক্ষমা|মাফ|மன்னி|క్షమి|ಕ್ಷಮಿ|ക്ഷമി"
    r"|xin lỗi|rất tiếc|tôi không thể|maaf|mohon maaf|sayangnya|saya tidak (?:dapat|bisa)"
    r"|samahani|pasensya|paumanhin|ขออภัย|ขอโทษ|เสียใจ|ฉันไม่สามารถ|ผมไม่สามารถ"
    r"|(?:非常|很|十分|真的)?(?:抱歉|遗憾|遺憾)|对不起|對不起|不好意思|(?:我|本人)?(?:无法|無法|不能)"
    r"|作为(?:一个|一名)?(?:人工智能|ai|语言模型)|作為(?:一個|一名)?(?:人工智慧|ai|語言模型)"
    r"|(?:大変)?申し訳|すみません|すいません|ごめんなさい|残念ながら|恐れ入りますが"
    r"|죄송|미안|유감|안타깝게도|저는 .{0,40}(?:없습니다|못합니다))",
    re.IGNORECASE,
)
# "Questions" and "not" in other languages, in either order: wherever it stands, a line that says
# both and asks nothing is a refusal.
_QUESTIONS_AND_NOT = [
    (re.compile(questions, re.IGNORECASE), re.compile(none, re.IGNORECASE))
    for questions, none in (
        (r"質問|設問", r"ません|できな|ない[。\s]*$|不可能"),
        (
            r"(?:[生产]成|提出|编写|撰写|创建|设计|構思|產生|建立|任何|有关|相关)[^。]{0,6}[问問][题題]|提[问問]",
            r"无法|無法|不能|没有|沒有|不足|不适合|不適合",
        ),
        (r"질문", r"없습니다|없어요|없음|못합니다|어렵습니다|불가"),
        (r"\bcâu hỏi", r"\bkhông|\bchưa"),
        (r"คำถาม", r"ไม่"),
        (
            r"\b(?:вопрос|питан)\w*",
            r"\b(?:нельзя|невозможно|не|нет|недостаточно|немає)\b",
        ),
        (r"\bpreguntas?\b", r"\b(?:no|ninguna|imposible)\b"),
        (r"\bperguntas?\b", r"\b(?:não|nenhuma|impossível)\b"),
        (
            r"\bquestions?\b",
            r"\b(?:aucune|impossible)\b|\b(?:ne|n['’])\W?.{1,40}\b(?:pas|aucune)\b",
        ),
        (r"\bdomand[ae]\b", r"\b(?:non|nessuna|impossibile)\b"),
        (r"\bfragen?\b", r"\b(?:keine?|nicht|unmöglich)\b"),
        (r"\b(?:vraag|vragen)\b", r"\b(?:geen|niet|onmogelijk)\b"),
        (r"\bfrågor\b|\bsp(?:ørgsmål|ørsmål)\b", r"\b(?:inte|inga|ikke|ingen|umulig\w*)\b"),
        (r"\bpyta(?:ń|nia)\b|\bot[aá]z(?:ky|ek)\b", r"\b(?:nie|nelze|nemohu|nemůžu|brak)\b"),
        (r"\bsoru", r"\w(?:amam|emem|amaz|emez|[ae]m[ıiuü]yor)\w*|\byok|değil"),
        (r"سؤال|أسئلة|اسئلة|سوال", r"(?<!\w)(?:لا|لم|لن|ليس|لیس|نمی\w*|نہیں)"),
        (r"प्रश्न|सवाल|প্রশ্ন", r"नहीं|असंभव|না[।\s]*$"),
        (r"\bpertanyaan|\bsoalan", r"\b(?:tidak|tak)\b"),
    )
]
_TO_THE_WRITER = re.compile(
    r"^\W*(?:i(?:['’]?d| would)?(?:['’]?m| am)? (?:be )?(?:more than )?"
    r"(?:happy|glad|pleased|ready) to (?:help|assist)"
    r"|would you (?:like|prefer|mind)|do you (?:want me|need (?:any(?:thing)?|more|help))"
    r"|shall i|should i|may i|can i (?:help|assist)|how (?:can|may) i (?:help|assist)"
    r"|is there anything else|what (?:else )?(?:would|can) (?:you like|i)\b"
    r"|(?:could|can|would|will) you (?:please |kindly )?(?:provide|share|clarify|send|give me|paste"
    r"|tell me|rephrase|specify|supply|upload|confirm)\b.{0,60}?\b"
    rf"(?:{_SOURCE}|details?|context|more|passage|questions?|which|what)\b"
    r"|soll ich (?:noch|weitere|mehr|ihnen|dir)\b|möchte(?:n sie|st du),? dass ich\b"
    r"|(?:quieres?|deseas?|[tl]e gustaría) que (?:genere|escriba|formule|añada|haga|cree)\b"
    r"|(?:veux-tu|voulez-vous|souhaite[sz]-(?:tu|vous)) que je\b"
    r"|vuoi che (?:io )?(?:generi|scriva|aggiunga|formuli|crei)\b"
    r"|(?:quer|gostaria) que eu\b|wil je dat ik\b|хотите,? чтобы я\b|(?:是否)?需要我|要不要我)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_ASKING = re.compile(r"[?？؟;⸮፧⁇]\W*$|(?:か|吗|嗎|呢)[。.]?\W*$")


def is_refusal(line: str, *, marked: bool = False) -> bool:
    """Whether a line of a reply declines to answer, or says that nothing can be asked.

    Args:
        line: without its number or bullet.
        marked: it had one, and so is meant as an item: people who write to a service are
            sorry too, and "I can't log in" is a query.

    Example:
        >>> is_refusal("I'm sorry, but I can't write questions about this.")
        True
        >>> is_refusal("Sorry, where do I find the form?")
        False
    """
    text = " ".join(line[:600].split())
    if _NOTHING.match(text):
        return True
    asks = _ASKING.search(text) is not None
    sorry = _SORRY.match(text)
    if asks and not (sorry and _ENGLISH.search(text)):
        parts = _SENTENCE_END.split(text)
        return len(parts) > 1 and all(is_offer(part) or is_refusal(part) for part in parts)
    if _ENGLISH.search(text):
        return True
    return not marked and (
        bool(sorry and _NOT.search(text[sorry.end() :]))
        or _ELSEWHERE.match(text) is not None
        or any(said.search(text) and none.search(text) for said, none in _QUESTIONS_AND_NOT)
    )


def is_offer(line: str) -> bool:
    """Whether a line asks something of whoever asked the LLM ("Would you like more?")."""
    return _TO_THE_WRITER.match(line[:600]) is not None
