"""Distillation: what the filter refuses is data, what was paid for is not asked twice."""

import json
from dataclasses import replace

import numpy as np
import pytest
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult

from llama_index.tuning import ChatDataset
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.errors import DatasetError, RunFileError
from llama_index.tuning.llms import distillation_dataset
from tests.generate.scripted import ScriptedLLM

FAST = RunOptions(retry_wait=0)
PROMPTS = ["one", "two", "three", "two"]


class Evaluator(BaseEvaluator):
    """Passes answers without an `o`; counts its calls."""

    def __init__(self, verdict=None):
        self.calls = 0
        self.verdict = verdict or (lambda answer: EvaluationResult(passing="O" not in answer))

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        raise NotImplementedError

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        self.calls += 1
        return self.verdict(response)


def upper(prompt):
    return prompt.upper()


def test_refused_answers_are_kept_as_data(tmp_path):
    out = tmp_path / "made.jsonl"
    llm = ScriptedLLM(answer=upper)
    made = distillation_dataset(PROMPTS, llm, keep=lambda p, a: "W" not in a, output_path=out)
    assert isinstance(made, ChatDataset)
    assert [e.messages[1]["content"] for e in made.examples] == ["ONE", "THREE"]
    assert [(d.prompt, d.answer) for d in made.dropped] == [("two", "TWO")]
    assert made.counts == {
        "prompts": 4,
        "duplicates": 1,
        "kept": 2,
        "dropped": 1,
        "failed": 0,
        "not_asked": 0,
        "requests": 3,
    }
    assert ChatDataset.from_jsonl(out).examples == made.examples
    (line,) = (tmp_path / "made.jsonl.dropped.jsonl").read_text().splitlines()
    assert json.loads(line)["answer"] == "TWO"


def test_a_second_run_asks_neither_teacher_nor_evaluator_again(tmp_path):
    out = tmp_path / "made.jsonl"
    first, again = Evaluator(), Evaluator()
    made = distillation_dataset(PROMPTS, ScriptedLLM(answer=upper), keep=first, output_path=out)
    silent = ScriptedLLM(answer=lambda prompt: pytest.fail("asked again"))
    same = distillation_dataset(PROMPTS, silent, keep=again, output_path=out)
    assert (first.calls, again.calls) == (3, 0)
    assert same.examples == made.examples
    assert same.dropped == made.dropped
    assert made.dropped[0].reason == "the evaluator refused it: None"


class Strict(Evaluator):
    """Has options: a threshold, a nested one, weights, a function, a model."""

    def __init__(self, threshold=0.5, limits=(1, 2), weights=(1.0,), parse=len, llm=None):
        super().__init__()
        self.threshold, self.limits, self.parse, self._llm = threshold, {"x": limits}, parse, llm
        self.weights = np.array(weights)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.6},
        {"limits": (1, 3)},
        {"weights": (1.5,)},
        {"parse": max},
        {"llm": ScriptedLLM(answer=upper, name="other")},
    ],
)
def test_a_changed_option_of_the_evaluator_is_asked_anew_and_the_teacher_is_not(tmp_path, change):
    out = tmp_path / "made.jsonl"
    llm = ScriptedLLM(answer=upper, name="judge")
    distillation_dataset(PROMPTS, ScriptedLLM(answer=upper), keep=Strict(llm=llm), output_path=out)
    silent = ScriptedLLM(answer=lambda prompt: pytest.fail("asked again"))
    same, other = Strict(llm=llm), Strict(**{"llm": llm, **change})
    distillation_dataset(PROMPTS, silent, keep=same, output_path=out)
    distillation_dataset(PROMPTS, silent, keep=other, output_path=out)
    assert (same.calls, other.calls) == (0, 3)


def test_a_run_that_was_ended_goes_on(tmp_path):
    out = tmp_path / "made.jsonl"
    teacher = ScriptedLLM(answer=upper)
    made = distillation_dataset(
        PROMPTS, teacher, keep=None, output_path=out, run=RunOptions(max_calls=2)
    )
    assert len(made) == 2
    assert len(made.not_asked) == made.counts["not_asked"] == 1
    made = distillation_dataset(PROMPTS, teacher, keep=None, output_path=out)
    assert len(made) == 3
    assert len(teacher.prompts) == 3


def test_failures_of_teacher_and_evaluator_are_data():
    def answer(prompt):
        if prompt == "one":
            raise RuntimeError("server down, sk-abcdefghijk")
        return "" if prompt == "two" else prompt.upper()

    def verdict(text):
        return EvaluationResult(passing=None, invalid_result=True, invalid_reason="no JSON")

    with pytest.raises(DatasetError, match="0 refused, 3 failed") as caught:
        distillation_dataset(
            PROMPTS,
            ScriptedLLM(answer=answer),
            keep=Evaluator(verdict),
            run=replace(FAST, retry_limit=1),
        )
    assert "no JSON" in str(caught.value)
    assert "the teacher's answer is empty" in str(caught.value)
    assert "sk-abcdefghijk" not in str(caught.value)


def test_the_teacher_may_be_asked_more_than_the_student():
    llm = ScriptedLLM(answer=lambda prompt: prompt.upper())
    made = distillation_dataset(["one"], llm, keep=None, teacher_prompt=lambda p: f"Briefly: {p}")
    assert llm.prompts == ["Briefly: one"]
    assert [m["content"] for m in made.examples[0].messages] == ["one", "BRIEFLY: ONE"]


def test_an_output_of_something_else_is_not_written_over(tmp_path):
    out = tmp_path / "made.jsonl"
    out.write_text("mine")
    with pytest.raises(RunFileError, match="would be overwritten"):
        distillation_dataset(["one"], ScriptedLLM(answer=upper), keep=None, output_path=out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([], {}, DatasetError, "prompts: none"),
        ("one", {}, TypeError, "prompts must be a list of texts"),
        (["one", " "], {}, DatasetError, "prompt 1 must be a text that is not blank"),
        ([3], {}, DatasetError, "prompt 0 must be a text"),
        (
            ["one"],
            {"teacher": "gpt-4"},
            TypeError,
            "teacher must be an LLM of LlamaIndex, got 'gpt-4'",
        ),
        (
            ["one"],
            {"teacher": None},
            TypeError,
            "teacher must be an LLM of LlamaIndex, got NoneType",
        ),
        (["one"], {"keep": 3}, TypeError, "keep must be a LlamaIndex evaluator"),
        (["one"], {"keep": lambda p, a: "yes"}, TypeError, "keep must give True or False"),
        (["one"], {"keep": lambda p, a: False}, DatasetError, "no answer of the teacher is left"),
        (["one"], {"teacher_prompt": "x"}, TypeError, "teacher_prompt must be a function"),
        (["one"], {"run": 0}, TypeError, "run must be RunOptions, got int"),
    ],
)
def test_bad_input_is_named(prompts, options, error, message):
    with pytest.raises(error, match=message):
        distillation_dataset(
            prompts, **{"keep": None, "teacher": ScriptedLLM(answer=upper), **options}
        )


def test_thoughts_are_not_distilled():
    asked = "<think>The user asks for the capital.</think>\n\nParis"
    teacher = ScriptedLLM(answer=lambda prompt: asked)
    made = distillation_dataset(["Capital of France?"], teacher, keep=lambda p, a: a == "Paris")
    assert made.examples[0].messages[-1]["content"] == "Paris"
