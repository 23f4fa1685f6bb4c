"""Output style: checks, a teacher that is told the rules, a judge."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms.mock import MockFunctionCallingLLM

from llama_index.tuning import ChatDataset
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.errors import DatasetError, RunFileError
from llama_index.tuning.llms.tasks.style import (
    StyleItem,
    flesch_kincaid_grade,
    has_words,
    is_json,
    lacks,
    matches,
    reads_at,
    style_dataset,
    style_scorer,
    syllables,
)

ROOT = Path(__file__).resolve().parents[3]
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
    dataset, dropped = style_dataset(
        items, POLITE, teacher=llm, rules="Be polite.", run=RunOptions(num_workers=1)
    )
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
        (reads_at(most=2), "The cat sat.", "Obligatory notification.", "not at most 2"),
        (reads_at(least=9), "Obligatory notification.", "The cat sat.", "not at least 9"),
        (reads_at(-2, 3), "The cat sat on the big red mat. It ran.", "Cat.", "not -2 to 3"),
        (reads_at(most=2), "Go!", "123 – 456", "it has no English word"),
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
        (lambda: has_words(3, 2), "must be a whole number"),
        (lambda: has_words(-1), "must be a whole number"),
        (lambda: is_json({"type": "money"}), "no JSON schema"),
        (lambda: reads_at(), "least or most must be given"),
        (lambda: reads_at(8, 3), "least <= most, got 8 and 3"),
        (lambda: reads_at(most="8"), "most must be a finite number, got '8'"),
        (lambda: reads_at(most=float("nan")), "most must be a finite number, got nan"),
        (lambda: style_dataset([StyleItem("a", "b")], POLITE, output_path="x"), "needs a teacher"),
        (lambda: style_dataset([StyleItem("a", "b")], []), "at least one check"),
        (lambda: style_scorer([StyleItem("a")], []), "at least one check"),
        (lambda: style_scorer([StyleItem("a")], POLITE, judge_range=(1, 1)), "judge_range"),
        (lambda: style_scorer([], POLITE), "at least one row"),
        (lambda: style_scorer([StyleItem(" ")], POLITE), "row 0: the question is empty"),
        (
            lambda: style_scorer([StyleItem(5)], POLITE),
            "row 0: messages must be a question or a list",
        ),
        (
            lambda: style_scorer([StyleItem(["a"])], POLITE),
            "row 0: messages must hold objects, got str",
        ),
        (lambda: style_scorer([StyleItem("a", 3)], POLITE), "output must be a text, got int"),
        (lambda: style_dataset(["a"], POLITE), "row 0: it must be a StyleItem, got str"),
        (lambda: style_dataset([StyleItem("a", " ")], POLITE), "row 0: the output is empty"),
        (lambda: style_dataset([StyleItem("a")], POLITE, teacher=writer({})), "rules must say"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_check_must_be_a_function_that_says_what_is_wrong():
    with pytest.raises(TypeError, match=r"checks\[0\] must be a function"):
        style_dataset([StyleItem("a", "b")], ["Dear"])
    for verdict in (True, False, ""):  # True: passed? A check says None then
        with pytest.raises(TypeError, match="a check must give None or what is wrong as a text"):
            style_dataset([StyleItem("a", "b")], [lambda output, v=verdict: v])
        with pytest.raises(TypeError, match="a check must give None or what is wrong as a text"):
            style_scorer([StyleItem("a")], [lambda output, v=verdict: v])(writer({"a": "b"}))


def test_a_teacher_must_be_an_llm():
    with pytest.raises(TypeError, match="teacher must be an LLM of LlamaIndex, got 'gpt'"):
        style_dataset([StyleItem("a")], POLITE, teacher="gpt", rules="Be polite.")


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


def test_the_reading_level_is_kincaids_formula():
    # 6 words, 6 syllables, 1 sentence; 10 words, 17 syllables, 2 sentences: counted by hand
    assert flesch_kincaid_grade("The cat sat on the mat.") == pytest.approx(0.39 * 6 + 11.8 - 15.59)
    text = "The machine waited in silence. Nobody wanted to repair it!"
    expected = 0.39 * 10 / 2 + 11.8 * 17 / 10 - 15.59
    assert flesch_kincaid_grade(text) == pytest.approx(expected)
    assert flesch_kincaid_grade("v 1.5 is out") == pytest.approx(0.39 * 3 + 11.8 - 15.59)


@pytest.mark.parametrize(
    ("word", "count"),
    [("make", 1), ("table", 2), ("whole", 1), ("places", 2), ("boxes", 2), ("names", 1),
     ("walked", 1), ("wanted", 2), ("the", 1), ("I", 1), ("don't", 1), ("strength", 1)],
)  # fmt: skip
def test_syllables(word, count):
    assert syllables(word) == count


def test_the_teachers_replies_survive_a_kill(tmp_path):
    """A process that is killed after its second reply; the next run asks for the others only."""
    out = tmp_path / "made.jsonl"
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.llms.tasks.style import StyleItem, style_dataset
from tests.llms.tasks.test_style import POLITE, writer

class Killed(dict):
    asked = 0
    def __getitem__(self, question):
        Killed.asked += 1
        if Killed.asked == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return "Dear " + question

style_dataset([StyleItem(q) for q in "abcd"], POLITE, teacher=writer(Killed()),
              rules="Be polite.", output_path={str(out)!r}, run=RunOptions(num_workers=1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert not out.exists()
    seen = []
    teacher = writer({q: f"Dear {q}" for q in "cd"}, seen)
    made = {
        "teacher": teacher,
        "rules": "Be polite.",
        "output_path": out,
        "run": RunOptions(num_workers=1),
    }
    dataset, dropped = style_dataset([StyleItem(q) for q in "abcd"], POLITE, **made)
    assert [messages[-1][1] for messages in seen] == ["c", "d"]
    assert dropped == []
    said = [example.messages[-1]["content"] for example in dataset.examples]
    assert said == ["Dear a", "Dear b", "Dear c", "Dear d"]
    assert ChatDataset.from_jsonl(out).examples == dataset.examples


def test_other_rules_and_settings_are_asked_anew(tmp_path):
    seen = []
    made = {"teacher": writer({"a": "Dear Ada"}, seen), "output_path": tmp_path / "made.jsonl"}
    for rules, settings in (
        ("Polite.", {}),
        ("Polite.", {}),
        ("Kind.", {}),
        ("Kind.", {"seed": 1}),
    ):
        style_dataset([StyleItem("a"), StyleItem("a")], POLITE, rules=rules, **made, **settings)
    assert [messages[0][1] for messages in seen] == ["Polite.", "Kind.", "Kind."]


def test_a_teacher_that_fails_or_is_silent_leaves_out_its_rows(tmp_path):
    llm = writer({"a": "Dear Ada", "b": " "})
    run = RunOptions(retry_limit=1, retry_wait=0, num_workers=1)
    items = [StyleItem(q) for q in "abc"]
    dataset, dropped = style_dataset(items, POLITE, teacher=llm, rules="Polite.", run=run)
    assert len(dataset) == 1
    assert [(d.number, d.reason) for d in dropped] == [
        (1, "the teacher failed: ReplyError: the teacher's reply is empty"),
        (2, "the teacher failed: KeyError: 'c'"),
    ]
    _, dropped = style_dataset(
        items, POLITE, teacher=llm, rules="Polite.", run=replace(run, max_calls=1)
    )
    assert [d.reason for d in dropped] == ["max_calls left it out: the teacher was not asked"] * 2


def test_a_file_of_something_else_is_not_written_over(tmp_path):
    out = tmp_path / "made.jsonl"
    out.write_text("mine")
    with pytest.raises(RunFileError, match="would be overwritten"):
        style_dataset([StyleItem("a")], POLITE, teacher=writer({}), rules="x", output_path=out)
    assert out.read_text() == "mine"
