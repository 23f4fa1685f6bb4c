"""Output style: checks, a teacher that is told the rules, a judge."""

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms.mock import MockFunctionCallingLLM

from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.style import (
    StyleItem,
    has_words,
    is_json,
    lacks,
    matches,
    style_dataset,
    style_scorer,
)

POLITE = [matches(r"^Dear "), has_words(2, 6)]


def writer(script, seen=None):
    """An LLM that replies as the script says to the last message."""

    def reply(messages, **kwargs):
        if seen is not None:
            seen.append([(m.role.value, m.content) for m in messages])
        return ChatMessage(role="assistant", content=script[messages[-1].content])

    return MockFunctionCallingLLM(response_generator=reply, is_chat_model=True)


class Judge(BaseEvaluator):
    """Gives the score that it is made with and keeps what it was asked."""

    def __init__(self, **verdict):
        self.verdict, self.asked = verdict, []

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        self.asked.append((query, response, kwargs.get("reference")))
        return EvaluationResult(query=query, response=response, **self.verdict)


def test_outputs_that_fail_a_check_are_dropped_with_it():
    items = [
        StyleItem("a", "Dear Ada, yes"),
        StyleItem("b", "Hi"),
        StyleItem("c", "Dear Ada, yes and no and yes and no"),
        StyleItem("d"),
    ]
    dataset, dropped = style_dataset(items, POLITE)
    assert [e.messages[-1]["content"] for e in dataset.examples] == ["Dear Ada, yes"]
    assert [(d.number, d.reason) for d in dropped] == [
        (1, "'^Dear ' is not found"),
        (2, "it has 9 words, not 2 to 6"),
        (3, "it has no output, and there is no teacher to write one"),
    ]


def test_a_teacher_is_told_the_rules_and_the_student_is_not():
    seen = []
    llm = writer({"b": "Dear Bob", "c": "Hey"}, seen)
    items = [StyleItem("a", "Dear Ada"), StyleItem("b"), StyleItem("c")]
    dataset, dropped = style_dataset(items, POLITE, teacher=llm, rules="Be polite.", workers=1)
    assert seen == [[("system", "Be polite."), ("user", q)] for q in "bc"]
    assert dataset.examples[1].messages == [
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "Dear Bob"},
    ]
    assert [d.number for d in dropped] == [2]


@pytest.mark.parametrize(
    ("check", "good", "bad", "reason"),
    [
        (matches("^b"), "a\nb", "ab", "is not found"),
        (lacks("umm"), "yes", "umm, yes", "'umm' is found"),
        (has_words(2), "a b", "a", "it has 1 words, not at least 2"),
        (is_json(), "[1]", "```[1]```", "it is no JSON"),
        (is_json({"type": "object"}), "{}", "[]", "is not of type 'object'"),
    ],
)
def test_checks(check, good, bad, reason):
    assert check(good) is None
    assert reason in check(bad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: matches("("), "no regular expression"),
        (lambda: lacks("["), "no regular expression"),
        (lambda: has_words(3, 2), "0 <= least <= most"),
        (lambda: has_words(-1), "0 <= least <= most"),
        (lambda: is_json({"type": "money"}), "no JSON schema"),
        (lambda: style_dataset([StyleItem("a", "b")], []), "at least one check"),
        (lambda: style_scorer([StyleItem("a")], []), "at least one check"),
        (lambda: style_scorer([StyleItem("a")], POLITE, judge_range=(1, 1)), "judge_range"),
        (lambda: style_scorer([], POLITE), "at least one row"),
        (lambda: style_scorer([StyleItem(" ")], POLITE), "row 0: the request is empty"),
        (lambda: style_scorer([StyleItem("a", 3)], POLITE), "output must be a text, got int"),
        (lambda: style_dataset(["a"], POLITE), "row 0: it must be a StyleItem, got str"),
        (lambda: style_dataset([StyleItem("a", " ")], POLITE), "row 0: the output is empty"),
        (lambda: style_dataset([StyleItem("a")], POLITE, teacher=writer({})), "rules must say"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_check_must_be_a_function():
    with pytest.raises(TypeError, match=r"checks\[0\] must be a function"):
        style_dataset([StyleItem("a", "b")], ["Dear"])


def test_scores_are_the_share_of_checks_passed():
    llm = writer({"a": "Dear Ada", "b": "Hi you", "c": "Hi"})
    scores = style_scorer([StyleItem(q) for q in "abc"], POLITE)(llm)
    assert np.array_equal(scores, [1, 0.5, 0])


def test_a_judge_counts_as_one_check_more():
    judge = Judge(score=4.0)
    items = [StyleItem("a", "Dear Ada Lovelace")]
    scores = style_scorer(items, POLITE, judge=judge, judge_range=(1, 5))(writer({"a": "Hi you"}))
    assert scores[0] == pytest.approx((0 + 1 + 0.75) / 3)
    assert judge.asked == [("a", "Hi you", "Dear Ada Lovelace")]
    alone = style_scorer([StyleItem("a")], judge=Judge(passing=True))(writer({"a": "Hi"}))
    assert alone.tolist() == [1]


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ({"score": 4.0}, "judge_range is 0.0 to 1.0, but the judge gave 4.0"),
        ({"invalid_result": True, "invalid_reason": "no number"}, "no verdict: 'no number'"),
        ({"feedback": "hm"}, "no verdict: 'hm'"),
    ],
)
def test_a_judge_without_a_sound_verdict_is_an_error(verdict, message):
    scorer = style_scorer([StyleItem("a")], judge=Judge(**verdict))
    with pytest.raises(ValueError, match=message):
        scorer(writer({"a": "Hi"}))


def test_nothing_sound_is_an_error():
    with pytest.raises(DatasetError, match="row 0: 'x' is not found"):
        style_dataset([StyleItem("a", "b")], [matches("x")])
