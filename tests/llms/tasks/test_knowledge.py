"""Answering from contexts, some irrelevant."""

import dataclasses

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.prompts import PromptTemplate

from llama_index.tuning.asking.results import QuestionAnswer
from llama_index.tuning.llms.tasks.knowledge import (
    exact_match,
    knowledge_dataset,
    knowledge_scorer,
    token_f1,
)

CITIES = ["Oslo", "Lima", "Cairo", "Quito", "Paris"]


def row(n, **changes):
    city = CITIES[n]
    made = QuestionAnswer(
        f"q{n}", f"Fee in {city}?", f"{n + 3} euros", f"n{n}", f"In {city} you pay {n + 3} euros."
    )
    return dataclasses.replace(made, **changes)


ROWS = [row(n) for n in range(5)]
SHORT = PromptTemplate("{context_str}\n\n{query_str}")


def contexts(example):
    return example.messages[0]["content"].split("\n\n")[:-1]


def test_each_question_has_its_source_and_irrelevant_contexts():
    dataset, dropped = knowledge_dataset(ROWS, irrelevant=2, prompt=SHORT)
    assert dropped == []
    for example, source in zip(dataset.examples, ROWS, strict=True):
        shown = contexts(example)
        assert len(shown) == len(set(shown)) == 3
        assert source.context in shown
        assert sum(source.answer in text for text in shown) == 1
        assert example.messages[-1] == {"role": "assistant", "content": source.answer}


def test_the_source_is_not_always_at_the_same_place():
    dataset, _ = knowledge_dataset(ROWS, irrelevant=3, prompt=SHORT)
    places = {contexts(e).index(r.context) for e, r in zip(dataset.examples, ROWS, strict=True)}
    assert len(places) > 1


def test_the_seed_decides_and_rows_do_not_hang_together():
    pool = [r.context for r in ROWS]
    one, _ = knowledge_dataset(ROWS, contexts=pool, seed=1)
    again, _ = knowledge_dataset(ROWS[::-1], contexts=pool, seed=1)
    other, _ = knowledge_dataset(ROWS, contexts=pool, seed=2)
    assert one.examples == again.examples[::-1]
    assert one.examples != other.examples


def test_a_context_with_the_answer_is_not_irrelevant():
    pool = ["THE 3 euros, said he.", "Nothing.", "33 euros"]
    dataset, _ = knowledge_dataset([row(0)], contexts=pool, irrelevant=2, prompt=SHORT)
    assert set(contexts(dataset.examples[0])) == {"Nothing.", "33 euros", ROWS[0].context}


def test_the_prompt_is_the_query_engines_own():
    from llama_index.core.prompts.chat_prompts import CHAT_TEXT_QA_PROMPT

    dataset, _ = knowledge_dataset(ROWS[:1], irrelevant=0)
    sent = CHAT_TEXT_QA_PROMPT.format_messages(
        context_str=ROWS[0].context, query_str=ROWS[0].question
    )
    written = [(m["role"], m["content"]) for m in dataset.examples[0].messages[:-1]]
    assert written == [(m.role.value, m.content) for m in sent]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(1, question=" "), "question must be a text that is not empty"),
        (row(1, answer=""), "answer must be"),
        (row(1, context=None), "context must be"),
        ({"question": "x"}, "must be a QuestionAnswer, got dict"),
        (row(1, answer="seven pounds sterling"), "the source has 0.00 of the answer's words"),
        (row(1, question="fee in OSLO"), "the same question was asked before"),
    ],
)
def test_unsound_rows_are_dropped_with_the_reason(bad, reason):
    dataset, dropped = knowledge_dataset([ROWS[0], bad, *ROWS[2:]], min_support=0.5)
    assert len(dataset) == 4
    assert [d.number for d in dropped] == [1]
    assert reason in dropped[0].reason


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: knowledge_dataset([]), "at least one question"),
        (lambda: knowledge_dataset(ROWS, irrelevant=-1), "irrelevant must be"),
        (lambda: knowledge_dataset(ROWS, irrelevant=True), "irrelevant must be"),
        (lambda: knowledge_dataset(ROWS, irrelevant=9), "row 0: there are fewer than 9 contexts"),
        (lambda: knowledge_dataset(ROWS, min_support=2), "min_support must be"),
        (lambda: knowledge_dataset(ROWS, prompt=PromptTemplate("{query_str}")), "'context_str'"),
        (lambda: knowledge_scorer(ROWS, metric="bleu"), "metric must be"),
        (lambda: knowledge_scorer([row(0, answer="")]), "row 0: answer must be"),
        (lambda: knowledge_scorer(ROWS, irrelevant=9), "row 0: there are fewer"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_text_is_no_list_of_contexts():
    with pytest.raises(TypeError, match="contexts must be a list"):
        knowledge_dataset(ROWS, contexts="text")


@pytest.mark.parametrize(
    ("given", "wanted", "f1", "exact"),
    [
        ("The fee.", "fee", 1, 1),
        ("a b", "b c", 2 / 3, 0),  # the article does not count
        ("x", "y", 0, 0),
        ("the", "a", 1, 1),
        ("", "fee", 0, 0),
        ("fee fee", "fee", 2 / 3, 0),
    ],
)
def test_squads_measures(given, wanted, f1, exact):
    assert token_f1(given, wanted) == pytest.approx(f1)
    assert exact_match(given, wanted) == exact


def test_an_llm_is_scored_by_its_answers():
    def reply(messages, **kwargs):
        asked = messages[-1].content
        text = "3 euros" if asked.endswith("Oslo?") else "it is 4 euros"
        return ChatMessage(role="assistant", content=text)

    llm = MockFunctionCallingLLM(response_generator=reply, is_chat_model=True)
    f1 = knowledge_scorer(ROWS[:2], irrelevant=1, prompt=SHORT)(llm)
    assert np.allclose(f1, [1, 2 / 3])
    exact = knowledge_scorer(ROWS[:2], irrelevant=1, prompt=SHORT, metric="exact")(llm)
    assert exact.tolist() == [1, 0]
