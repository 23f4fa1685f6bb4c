import pytest

from llama_index.tuning.asking.parsing import parse_pairs, parse_questions
from llama_index.tuning.asking.verdicts import parse_grade, parse_yes_no
from llama_index.tuning.errors import ReplyError

TWO = ["What is a refund?", "How long does it take?"]

# ruff: noqa: E501
REPLIES = {
    "numbered": "1. What is a refund?\n2. How long does it take?",
    "brackets": "1) What is a refund?\n2) How long does it take?",
    "round": "(1) What is a refund?\n(2) How long does it take?",
    "bullets": "- What is a refund?\n- How long does it take?",
    "dots": "• What is a refund?\n• How long does it take?",
    "stars": "* **What is a refund?**\n* **How long does it take?**",
    "no space": "1.What is a refund?\n2.How long does it take?",
    "q": "Q1: What is a refund?\nQ2: How long does it take?",
    "word": "Question 1: What is a refund?\n\nQuestion 2: How long does it take?",
    "bold word": "**Question 1:** What is a refund?\n**Question 2:** How long does it take?",
    "heading": "### Question 1: What is a refund?\n### Question 2: How long does it take?",
    "quotes": '"What is a refund?"\n"How long does it take?"',
    "curly": "1. “What is a refund?”\n2. “How long does it take?”",
    "preamble": "Here are two questions:\n\nWhat is a refund?\nHow long does it take?",
    "preamble numbered": "Sure! Here are two questions.\n1. What is a refund?\n2. How long does it take?",
    "chatter": "What is a refund?\nHow long does it take?\n\nLet me know if you need more questions!",
    "would": "What is a refund?\nHow long does it take?\nWould you like more questions?",
    "blank": "\n\n  What is a refund?  \n\n\n How long does it take? \n\n",
    "windows": "1. What is a refund?\r\n2. How long does it take?\r\n",
    "one line": "What is a refund? How long does it take?",
    "semicolon": "What is a refund?; How long does it take?",
    "json": '["What is a refund?", "How long does it take?"]',
    "json object": '{"questions": ["What is a refund?", "How long does it take?"]}',
    "json rows": '[{"question": "What is a refund?"}, {"question": "How long does it take?"}]',
    "json keys": '{"question_1": "What is a refund?", "question_2": "How long does it take?"}',
    "fenced": '```json\n["What is a refund?", "How long does it take?"]\n```',
    "json talk": 'Here you go:\n["What is a refund?", "How long does it take?"]\nEnjoy.',
    "json lines": '{"question": "What is a refund?"}\n{"question": "How long does it take?"}',
    "broken json": '[\n"What is a refund?",\n"How long does it take?",',
    "thinking": "<think>Which? Maybe: why?</think>\n1. What is a refund?\n2. How long does it take?",
    "answers": "Q: What is a refund?\nA: Money back.\nQ: How long does it take?\nA: Five days.",
    "twice": "1. What is a refund?\n2. what is a refund?\n3. How long does it take?",
    "section": "Basics:\n1. What is a refund?\nDetails:\n2. How long does it take?",
    "letters": "a) What is a refund?\nb) How long does it take?",
    "chat tokens": "<|im_start|>assistant\n1. What is a refund?<|im_end|>\n2. How long does it take?<|im_end|>",
    "sentence end": "<s> 1. What is a refund?\n2. How long does it take?</s>",
    "turn end": "What is a refund?\nHow long does it take?<end_of_turn>\n<eos>",
    "byte order mark": "\ufeff1. What is a refund?\n\u200b2. How long does it take?",
    "escaped lines": "1. What is a refund?\\n2. How long does it take?",
    "html emphasis": "1. <b>What is a refund?</b>\n<strong>2. How long does it take?</strong>",
    "placeholder": "[Your questions]\n1. What is a refund?\n2. How long does it take?\n3. [insert question here]",
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
def test_wrapping_of_real_models_is_taken_off(reply):
    assert parse_questions(reply, 2) == TWO


@pytest.mark.parametrize(
    ("reply", "questions"),
    [
        ("1. 退款需要多久？\n2. 什么是退款？", ["退款需要多久？", "什么是退款？"]),
        (
            "以下是两个问题：\n问题1：什么是退款？\n问题2：需要多久？",
            ["什么是退款？", "需要多久？"],
        ),
        ("一、什么是退款？\n二、需要多久？", ["什么是退款？", "需要多久？"]),
        ("Voici deux questions :\n« Qui paie ? »\n« Quand ? »", ["Qui paie ?", "Quand ?"]),
        ("Frage 1: Wer zahlt?\nFrage 2: Wann?", ["Wer zahlt?", "Wann?"]),
        ("¿Quién paga?\n¿Cuándo?", ["¿Quién paga?", "¿Cuándo?"]),
        ("١. من يدفع؟\n٢. متى؟", ["من يدفع؟", "متى؟"]),
        ("1.「返金とは何ですか。」\n2.「いつですか。」", ["返金とは何ですか。", "いつですか。"]),
    ],
)
def test_several_languages(reply, questions):
    assert parse_questions(reply, 5) == questions


@pytest.mark.parametrize(
    "question",
    [
        "3.5 million people live where?",
        "In 2020: what was the revenue?",
        "Apollo 11: who flew?",
        "10 Downing Street is whose home?",
        "Which of these is right: a or b?",
        'What does "net income" mean?',
        "refund time credit card",
        "C++ or Rust?",
    ],
)
def test_a_question_itself_is_not_cut(question):
    assert parse_questions(question, 3) == [question]


def test_keyword_queries_need_no_question_mark():
    assert parse_questions("refund days\ncard fee abroad", 2) == ["refund days", "card fee abroad"]


def test_no_more_than_asked_for():
    assert parse_questions("1. One?\n2. Two?\n3. Three?", 2) == ["One?", "Two?"]


@pytest.mark.parametrize("reply", ["", "   \n", "Here are two questions:", "...", "[]", "{}", "1."])
def test_a_reply_without_a_question_is_an_error(reply):
    with pytest.raises(ReplyError, match="holds no question"):
        parse_questions(reply, 2)


def test_answers_from_json_and_from_text():
    wanted = [{"question": "Fee?", "answer": "5"}, {"question": "Days?", "answer": "three or four"}]
    rows = '[{"question": "Fee?", "answer": 5}, {"question": "Days?", "answer": "three or four"}]'
    text = "1. Fee?\nAnswer: 5\n2. Days?\nAnswer: three\nor four"
    assert parse_pairs(rows, 2, answers=True) == wanted
    assert parse_pairs(text, 2, answers=True) == wanted


def test_where_answers_are_wanted_a_question_without_one_is_left_out():
    assert parse_pairs("Q: Fee?\nA: 5\nQ: Days?", 2, answers=True) == [
        {"question": "Fee?", "answer": "5"}
    ]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("Yes", True), ("**No.**", False), ("yes, it does, no doubt", True), ("Answer: NO", False),
     ("<think>yes?</think>No", False), ("是", True), ("不是", False), ("Ja.", True)],
)  # fmt: skip
def test_yes_and_no(reply, verdict):
    assert parse_yes_no(reply) is verdict


def test_neither_yes_nor_no_is_an_error():
    with pytest.raises(ReplyError, match="neither yes nor no"):
        parse_yes_no("Perhaps. I know nothing.")


def test_grades():
    assert parse_grade("Grade: 2", 3) == 2
    with pytest.raises(ReplyError, match="no grade from 0 to 3"):
        parse_grade("7", 3)
    with pytest.raises(ReplyError, match="no grade"):
        parse_grade("2.5", 3)


def test_half_a_surrogate_pair_can_be_saved():
    (question,) = parse_questions('["What is \\ud83d?"]', 1)
    assert question.encode() == b"What is ??"


@pytest.mark.parametrize(
    "reply", ["**Questions**", "Question 1: [insert question here]", "<|im_end|>"]
)
def test_a_heading_or_a_placeholder_alone_is_no_question(reply):
    with pytest.raises(ReplyError, match="holds no question"):
        parse_questions(reply, 2)


@pytest.mark.parametrize(
    "question", ["What does <|im_end|> mark?", "What does <b>x</b> show?", "Any questions?"]
)
def test_what_a_question_speaks_of_stays(question):
    assert parse_questions(f"1. {question}", 2) == [question]
