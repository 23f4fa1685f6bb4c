"""Replies as LLMs give them when something went wrong: what is no question is not learnt from."""

import contextlib
import time

import pytest

from llama_index.tuning.asking.parsing import parse_pairs, parse_questions
from llama_index.tuning.asking.verdicts import parse_grade, parse_yes_no
from llama_index.tuning.errors import ReplyError

# ruff: noqa: E501
REFUSALS = [
    "I'm sorry, but I can't write questions about this.",
    "I’m sorry, but I can’t assist with that request.",
    "I cannot generate questions from this passage.",
    "I can't help with that.",
    "Sorry, I can't do that.",
    "I am unable to create questions based on the provided text.",
    "As an AI language model, I don't have access to the document.",
    "Unfortunately, the provided context does not contain enough information.",
    "The passage does not contain any meaningful content to ask about.",
    "The given text is too short to generate questions from.",
    "There is not enough information in the context to write a question.",
    "No questions can be generated from this text.",
    "I won't be able to provide questions on this topic.",
    "I must decline to answer this request.",
    "I apologize, but the content appears to be inappropriate.",
    "My apologies, I could not find any passage in your message.",
    "I don't see a passage in your message. Could you please provide the text?",
    "Could you please provide the context?",
    "Please provide the passage you would like me to use.",
    "It seems the context information is empty. Please share the text.",
    "I'm not comfortable creating questions about this content.",
    "1. I'm sorry, but I can't generate questions about this content.",
    "\"I'm sorry, but I can't help with that.\"",
    "**I cannot fulfill this request.**",
    '{"questions": ["I cannot generate questions from this passage."]}',
    '{"error": "The passage does not contain enough information."}',
    '{"message": "I\'m sorry, but I can\'t help with that."}',
    '{"questions": []}',
    "```json\n{}\n```",
    "N/A",
    "None",
    "None.",
    "No questions.",
    "Es tut mir leid, dazu kann ich keine Fragen schreiben.",
    "Leider enthält der Text keine Angaben.",
    "Lo siento, no puedo ayudar con eso.",
    "No puedo generar preguntas sobre este texto.",
    "Je suis désolé, mais je ne peux pas répondre.",
    "Malheureusement, le texte est vide.",
    "Mi dispiace, non posso aiutarti.",
    "Desculpe, não posso ajudar com isso.",
    "Het spijt me, ik kan hier geen vragen over schrijven.",
    "Przepraszam, nie mogę tego zrobić.",
    "Извините, я не могу помочь с этим.",
    "К сожалению, в тексте нет сведений.",
    "抱歉，我无法为此内容生成问题。",
    "对不起，我不能回答。",
    "申し訳ありませんが、その依頼にはお応えできません。",
    "죄송하지만 도와드릴 수 없습니다.",
    "عذرًا، لا أستطيع المساعدة في ذلك.",
    "क्षमा करें, मैं इसमें मदद नहीं कर सकता।",
    "ขออภัย ฉันไม่สามารถช่วยได้",
    "Xin lỗi, tôi không thể giúp.",
    "Maaf, saya tidak bisa membantu.",
    "Beklager, det kan jeg ikke hjælpe med.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "I'm unable to extract questions, as the text is a list of numbers.",
    "Aus diesem Text lassen sich keine Fragen ableiten.",
    "Aucune question ne peut être posée sur ce texte.",
    "No se pueden generar preguntas a partir de este texto.",
    "Não há informações suficientes para gerar perguntas.",
    "Ik kan hier helaas geen vragen over schrijven.",
    "Из этого текста нельзя составить вопросы.",
    "Bu metinden soru üretemiyorum.",
    "لا يمكن إنشاء أسئلة من هذا النص.",
    "इस पाठ से प्रश्न नहीं बनाए जा सकते।",
    "このテキストからは質問を作成できません。",
    "根据该段落无法生成任何问题。",
    "이 텍스트로는 질문을 만들 수 없습니다.",
    "Không thể tạo câu hỏi từ đoạn văn này.",
]


@pytest.mark.parametrize("reply", REFUSALS)
def test_a_refusal_is_no_question(reply):
    with pytest.raises(ReplyError, match="holds no question"):
        parse_questions(reply, 2)


@pytest.mark.parametrize(
    "question",
    [
        "Sorry, where do I find the form?",
        "Why can't I generate a report from this document?",
        "What does the passage say when no information is available?",
        "Can you provide a list of supported vendors?",
        "How do I write a question to support?",
        "Désolé, où est la gare ?",
        "すみません、返金はいつですか。",
        "What happens if the document does not contain a signature?",
        "Is there anything that the tenant cannot do?",
        "Warum kann ich keine Fragen stellen?",
        "登录的问题没有解决",
        "ログインの問題が解決できません",
    ],
)
def test_a_question_that_sounds_like_a_refusal_is_one(question):
    assert parse_questions(question, 3) == [question]


def test_marked_queries_of_people_who_are_sorry_stay():
    reply = "1. I can't log in to my account\n2. Unable to reset my password\n3. My card was declined, sorry"
    assert parse_questions(reply, 3) == [
        "I can't log in to my account",
        "Unable to reset my password",
        "My card was declined, sorry",
    ]


TWO = ["What is the fee?", "When is it due?"]


@pytest.mark.parametrize(
    ("reply", "questions"),
    [
        ('{"questions": ["What is the fee?", "When is it d', TWO[:1]),
        ('["What is the fee?", "When is it due?", "Wh', TWO),
        ('["What is the fee?", "When is it due?"', TWO),
        ('["What is the fee?", "When is it due?",', TWO),
        ('```json\n{"questions": [\n  "What is the fee?",\n  "When is it due?",\n  "Is i', TWO),
        (
            '{"questions": [{"question": "What is the fee?", "answer": "5"}, {"question": "When',
            TWO[:1],
        ),
        (
            '{"question": "What is the fee?"}\n{"question": "When is it due?"}\n{"question": "Wh',
            TWO,
        ),
        ('Here you go: {"questions": ["What is the fee?", "When is it due?", "How', TWO),
        ("1. What is the fee?\n2. When is it due?\n3. How would one", TWO),
        ("1. What is the fee?\n2. When is it d", TWO[:1]),
        ("1. What is the fee?\n2. when is it due", ["What is the fee?", "when is it due"]),
        ('{"questions": ["What is the fee?", "When is it due?"], "note": "done', TWO),
        ('{"out": {"inner": {"questions": ["What is the fee?", "When is it due?"', TWO),
    ],
)
def test_what_was_whole_before_the_token_limit_is_kept(reply, questions):
    assert parse_questions(reply, 5) == questions


@pytest.mark.parametrize(
    "reply", ['{"questions": ["When is it d', '{"quest', '["', "[", '{"questions": [']
)
def test_a_reply_that_was_cut_off_in_its_first_question_is_an_error(reply):
    with pytest.raises(ReplyError):
        parse_questions(reply, 2)


def test_a_cut_off_answer_is_left_out_with_its_question():
    reply = (
        '[{"question": "Fee?", "answer": "5 euros"}, {"question": "Days?", "answer": "three or f'
    )
    assert parse_pairs(reply, 5, answers=True) == [{"question": "Fee?", "answer": "5 euros"}]


@pytest.mark.parametrize(
    "reply",
    [
        "1. What is the fee?\nA) 5 euros\nB) 10 euros\nC) Nothing\nAnswer: A\n\n2. When is it due?\nA) Monday\nB) Friday\nAnswer: B",
        "1. What is the fee?\n   a. 5 euros\n   b. 10 euros\n2. When is it due?\n   a. Monday\n   b. Friday",
        "1. What is the fee?\n   - A: 5 euros\n   - B: 10 euros\n2. When is it due?\n   - A: Monday\n   - B: Friday",
        "1. What is the fee?\n- 5 euros\n- 10 euros\n2. When is it due?\n- Monday\n- Friday",
        "Q1: What is the fee?\n1) 5 euros\n2) 10 euros\nQ2: When is it due?\n1) Monday\n2) Friday",
        "**Question 1:** What is the fee?\n(A) 5 euros\n(B) 10 euros\n\n**Question 2:** When is it due?\n(A) Monday\n(B) Friday\n\n**Correct Answer: A**",
        "What is the fee?\nA) 5 euros\nB) 10 euros\n\nWhen is it due?\nA) Monday\nB) Friday",
        "What is the fee?\nA. 5 euros\nB. 10 euros\nCorrect answer: A\nWhen is it due?\nA. Monday\nB. Friday\nCorrect answer: B",
        "1. What is the fee? A) 5 euros B) 10 euros C) none\n2. When is it due? A) Monday B) Friday",
        "1. What is the fee?\n☐ 5 euros\n☐ 10 euros\n2. When is it due?\n☐ Monday",
        '[{"question": "What is the fee?", "options": ["5", "10"], "answer": "A"}, {"question": "When is it due?", "options": {"A": "Monday?", "B": "Friday?"}}]',
        "1. What is the fee?\nOptions: 5, 10\nExplanation: see above\n2. When is it due?\nDifficulty: easy",
    ],
)  # fmt: skip
def test_options_of_multiple_choice_are_no_questions(reply):
    assert parse_questions(reply, 2) == TWO


def test_the_answer_of_multiple_choice_is_its_text():
    reply = "1. What is the fee?\nA) 5 euros\nB) 10 euros\nAnswer: B\n2. When?\nA) Monday\nB) Friday\nAnswer: A) Monday"
    rows = '[{"question": "What is the fee?", "options": ["5 euros", "10 euros"], "answer": "B"}]'
    assert [pair["answer"] for pair in parse_pairs(reply, 5, answers=True)] == [
        "10 euros",
        "Monday",
    ]
    assert [pair["answer"] for pair in parse_pairs(rows, 5, answers=True)] == ["10 euros"]


def test_numbered_headings_over_bullets_and_sub_questions():
    assert parse_questions("1. Fees:\n- What is the fee?\n2. Dates:\n- When is it due?", 5) == TWO
    assert parse_questions("1. About fees:\na) What is the fee?\nb) When is it due?", 5) == TWO


@pytest.mark.parametrize(
    "reply",
    [
        "| # | Question | Answer |\n|---|---|---|\n| 1 | What is the fee? | 5 euros |\n| 2 | When is it due? | Monday |",
        "Here is the table:\n\n| Question | Difficulty |\n| :--- | ---: |\n| What is the fee? | easy |\n| **When is it due?** | hard |\n\nLet me know!",
        "| What is the fee? |\n| When is it due? |",
        "No. | Question\n--- | ---\n1 | What is the fee?\n2 | When is it due?",
        "| ID | Frage | Antwort |\n|--|--|--|\n| 1 | What is the fee? | 5 |\n| 2 | When is it due? | x |",
        'question,answer\n"What is the fee?","5, or 6"\n"When is it due?",Monday',
        "question\tanswer\nWhat is the fee?\t5\nWhen is it due?\tMonday",
        "<questions><question>What is the fee?</question><question>When is it due?</question></questions>",
        "1) What is the fee? 2) When is it due?",
        "i. What is the fee?\nii. When is it due?",
        "<ol><li>What is the fee?</li><li>When is it due?</li></ol>",
        "questions:\n  - What is the fee?\n  - When is it due?",
        'questions:\n  - question: "What is the fee?"\n    answer: "5"\n  - question: "When is it due?"',
    ],
)  # fmt: skip
def test_tables_and_other_lists(reply):
    assert parse_questions(reply, 5) == TWO


def test_a_table_has_answers_too():
    reply = (
        "| # | Question | Answer |\n|---|---|---|\n| 1 | Fee? | 5 euros |\n| 2 | Due? | Monday |"
    )
    assert parse_pairs(reply, 5, answers=True) == [
        {"question": "Fee?", "answer": "5 euros"},
        {"question": "Due?", "answer": "Monday"},
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "['What is the fee?', 'When is it due?']",
        "['What is the fee?', \"When is it due?\"]",
        "questions = ['What is the fee?', 'When is it due?']",
        "```python\nquestions = [\n    'What is the fee?',\n    'When is it due?',\n]\n```",
        "{'questions': ['What is the fee?', 'When is it due?']}",
        "{'questions': ['What is the fee?', 'When is it due?', 'How of",
        "[“What is the fee?”, “When is it due?”]",
        '["What is the fee?", "When is it due?",]',
        '{questions: ["What is the fee?", "When is it due?"]}',
        '[\n  "What is the fee?", // easy\n  "When is it due?"\n]',
        "[{'question': 'What is the fee?', 'ok': True}, {'question': 'When is it due?', 'ok': None}]",
    ],
)
def test_lists_quoted_as_python_does(reply):
    assert parse_questions(reply, 5) == TWO


def test_an_apostrophe_ends_no_python_quoted_question():
    assert parse_questions("['What's the fee?', 'Who isn't paying?']", 5) == [
        "What's the fee?",
        "Who isn't paying?",
    ]


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("2. What is `__init__`?", "What is `__init__`?"),
        ("2. What is __init__?", "What is __init__?"),
        ("- How do __enter__ and __exit__ work?", "How do __enter__ and __exit__ work?"),
        ("1. **What does `__all__` hold?**", "What does `__all__` hold?"),
        ("1. What are `**kwargs` and `**options`?", "What are `**kwargs` and `**options`?"),
        ("1. What do *args and **kwargs mean?", "What do *args and **kwargs mean?"),
        ("1. What is 2**3 and 3**2?", "What is 2**3 and 3**2?"),
        ("__init__ in a dataclass", "__init__ in a dataclass"),
        ("usage of __init__", "usage of __init__"),
        ("1. __What is the fee?__", "What is the fee?"),
        ("1. **What** is the **fee**?", "What is the fee?"),
        ("1. What does `a__b__c` do?", "What does `a__b__c` do?"),
        ("1. What does snake__case__name do?", "What does snake__case__name do?"),
        ("What is `x` and what is `y`?", "What is `x` and what is `y`?"),
        ("1. What is the `#include` line for?", "What is the `#include` line for?"),
        ("1. What does obj.__class__ give?", "What does obj.__class__ give?"),
        ('["What is `__main__`?"]', "What is `__main__`?"),
        ("#include guard", "#include guard"),
        ("*What is the fee?*", "What is the fee?"),
        ("1. What is <p> for in HTML?", "What is <p> for in HTML?"),
        ("<li>What does <br>, put twice, do?</li>", "What does <br>, put twice, do?"),
        ("1. What is [1] in the list [0, 1]?", "What is [1] in the list [0, 1]?"),
    ],
)
def test_names_with_underscores_and_stars_survive(reply, question):
    assert parse_questions(reply, 5) == [question]


@pytest.mark.parametrize(
    "reply",
    [
        "Sure! Here's one: What is the fee?",
        "1\\. What is the fee?",
        "1. What is the fee? (Easy)",
        "What is the fee? [Difficulty: hard]",
        "What is the fee?\n\nSoll ich weitere Fragen formulieren?",
        "What is the fee?\n¿Quieres que genere más preguntas?",
        "What is the fee?\nVoulez-vous que je continue ?",
    ],
)
def test_what_stands_around_a_question_is_taken_off(reply):
    assert parse_questions(reply, 5) == ["What is the fee?"]


def test_an_offer_of_help_is_no_question():
    with pytest.raises(ReplyError):
        parse_questions("I'd be happy to help! Could you please provide the text?", 5)


def test_a_thought_that_began_in_the_prompt_is_no_question():
    reply = "Which ones? Maybe: why?\n</think>\n\n1. What is the fee?\n2. When is it due?"
    assert parse_questions(reply, 5) == TWO


@pytest.mark.parametrize(
    "reply",
    ["[" * 200_000, '{"a":' * 100_000, "[[" * 50_000 + "]", '["' * 50_000, "`" * 100_000, "__" * 50_000,
     "**a" * 30_000, "| a " * 50_000, "1. " * 50_000, "( " * 100_000, "a" * 300_000, "I can't " * 40_000,
     "the text " * 30_000, "[\n\"" * 20_000, "as an " * 50_000, "'" * 100_000, "\\" * 100_000,
     '["' + "\\" * 100_000, "<" * 100_000, "<think>" * 30_000, "{'" * 40_000, "不" * 100_000,
     "0-3 " * 40_000, "yes or no " * 20_000, "1" * 100_000, "? A) b " * 20_000],
    ids=lambda reply: reply[:8],
)  # fmt: skip
def test_no_reply_takes_long_or_breaks_the_parser(reply):
    start = time.process_time()
    for parse in (lambda r: parse_questions(r, 5), parse_yes_no, lambda r: parse_grade(r, 3)):
        with contextlib.suppress(ReplyError):
            parse(reply)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("There is no doubt: yes", True),
        ("NO - the answer would be yes if the date matched", False),
        ("No, it isn't... Actually, yes, it is.", True),
        ("Yes, actually, the passage says that no fee is due.", True),
        ("y", True),
        ("N.", False),
        ("Affirmative.", True),
        ("Negative", False),
        ("Absolutely not.", False),
        ("It doesn't.", False),
        ("Definitely!", True),
        ("The passage is not relevant to the question.", False),
        ("The document does not mention the fee.", False),
        ("The passage answers the question.", True),
        ("No doubt about it. Yes.", True),
        ("Without question, the answer is yes.", True),
        ("The passage mentions no fee, so: No", False),
        ("There's no other way to read it; yes.", True),
        ("Is it yes or no? Yes.", True),
        ("Yes/No: No", False),
        ("Answer (yes or no): **yes**", True),
        ("No, it does not. A yes would need a date.", False),
        ("Although it says yes in one place, the answer is no.", False),
        ("I would not say yes. No.", False),
        ("It is true that fees are named. But the question is about dates: no.", False),
        ('{"relevant": true, "reason": "no doubt"}', True),
        ('{"answer": "No", "reason": "yes is written elsewhere"}', False),
        ("Verdict: YES\nReason: no other passage names it.", True),
        ("Reason: there is no mention of it.\nVerdict: no", False),
        ("<think>No? Yes?</think>\nNo.", False),
        ("maybe it is, maybe no\n</think>\n\nYes", True),
        ("Ja, das stimmt.", True),
        ("Nein.", False),
        ("Ohne Zweifel: ja", True),
        ("Sí, responde a la pregunta.", True),
        ("No, el texto no lo dice.", False),
        ("Si.", True),
        ("Sin duda, sí.", True),
        ("Oui", True),
        ("Non, pas du tout.", False),
        ("Sim", True),
        ("Não", False),
        ("Tak.", True),
        ("Nie.", False),
        ("Evet", True),
        ("Hayır", False),
        ("Да", True),
        ("Нет, не отвечает.", False),
        ("نعم", True),
        ("لا", False),
        ("हाँ", True),
        ("नहीं", False),
        ("是", True),
        ("不是", False),
        ("否。", False),
        ("はい、関連しています。", True),
        ("いいえ、関連していません。", False),
        ("네, 관련이 있습니다.", True),
        ("아니요.", False),
        ("ใช่", True),
        ("ไม่ใช่", False),
        ("Có", True),
        ("Không", False),
        ("Ya", True),
        ("Tidak", False),
        ("Kyllä", True),
        ("Ei", False),
        ("Ναι", True),
        ("Όχι", False),
        ("כן", True),
        ("לא", False),
        ("Joo", True),
        ("Igen", True),
        ("Nem", False),
        ("Ano", True),
        ("Ne", False),
        ("Nej", False),
        ("1", True),
        ("no, wait, yes", True),
        ("Yes? No!", False),
        ("The model says 'no', but the correct answer is 'yes'.", True),
        ("The answer to this question is yes, since no fee is due.", True),
        ("関連していません", False),
        ("الإجابة هي لا", False),
        ("ទេ", False),
        ("ဟုတ်ကဲ့", True),
        ("မဟုတ်ဘူး", False),
        ('{"reason": "yes, it names the fee", "relevant": false}', False),
        ('{"explanation": "no date", "verdict": "yes"}', True),
        ("Irrelevant: the passage says yes to something else.", False),
        ('{"question": "no", "answers_question": true}', True),
        ("Supported: No. Reason: yes, X is named, but not Y", False),
        ("Absolutely.", True),
        ("Definitely not", False),
        ("Unfortunately, it does not.", False),
        ("It does.", True),
        ("N", False),
        ("✅", True),
        ("አይደለም", False),
        ("Այո", True),
        ("არა", False),
    ],
)
def test_a_verdict_is_what_the_reply_concludes(reply, verdict):
    assert parse_yes_no(reply) is verdict


@pytest.mark.parametrize(
    "reply",
    [
        "Yes or no?",
        "yes and no",
        "ប្រទេស",
        "On the one hand yes on the other hand no",
        "I know.",
        "si el texto",
    ],
)
def test_both_or_neither_is_an_error(reply):
    with pytest.raises(ReplyError, match="neither yes nor no"):
        parse_yes_no(reply)


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ('{"max": 3, "score": 2}', 2),
        ("0, 1, 2 or 3? 2", 2),
        ("It's a 3 rather than a 2", 3),
        ("On the scale (0-3) the relevance is 3", 3),
        ("On a scale of 0 to 3, I would give this a 2.", 2),
        ("From 0 to 3: 1", 1),
        ("2/3", 2),
        ("Relevance: 3 out of 3", 3),
        ("Grade: 1\nReason: it mentions 3 of 4 dates.", 1),
        ("The passage of 2020 names 2 fees, so the grade is 3.", 3),
        ("3 - it answers both of the 2 questions", 3),
        ("**0**", 0),
        ("3.0", 3),
        ("Score = 2", 2),
        ('{"grade": 2, "scale": 3}', 2),
        ('{"reason": "scale 0-3", "score": "1"}', 1),
        ("<think>maybe 1</think>2", 2),
        ("Auf der Skala von 0 bis 3: 2", 2),
        ("Sur une échelle de 0 à 3, la pertinence est 1", 1),
        ("En la escala de 0 a 3, la relevancia es 3", 3),
        ("在0到3的评分中，相关性为2", 2),
        ("評価：1", 1),
        ("(0-3): 2", 2),
        ("three", 3),
        ("I'd rate it a 2", 2),
        ("The first of 3 possible passages; relevance 0", 0),
        ("Relevance score (0 = none, 3 = perfect): 2", 2),
        ("Grade [0: off topic, 1: near, 2: partly, 3: fully] = 1", 1),
    ],
)
def test_a_grade_is_what_the_reply_concludes(reply, grade):
    assert parse_grade(reply, 3) == grade


@pytest.mark.parametrize(
    "reply",
    [
        "0-3",
        "1 or 2",
        "Between 1 and 2",
        "7",
        "2.5",
        "-1",
        "Grade: 5",
        "50%",
        "1 and 2 apply here or 3 there",
        "4/5",
        "",
    ],
)
def test_no_grade_or_another_scale_is_an_error(reply):
    with pytest.raises(ReplyError, match="no grade from 0 to 3"):
        parse_grade(reply, 3)
