"""Each task in one call: verified, split without a leak, scored on what is held out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from llama_index.core.evaluation import EvaluationResult

from llama_index.tuning import (
    ChatDataset,
    call_task,
    check_task,
    distillation_task,
    knowledge_task,
    sql_task,
    style_task,
)
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.asking.results import QuestionAnswer
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms import (
    CallItem,
    ExpectedCall,
    StyleItem,
    distillation_scorer,
    text_to_sql_prompt,
)
from llama_index.tuning.llms.tasks.style import matches
from tests.generate.scripted import ScriptedLLM
from tests.llms.conftest import FEES, fee_tool, question
from tests.llms.tasks.conftest import CITIES, rows
from tests.llms.tasks.test_distil import Evaluator, upper
from tests.llms.tasks.test_style import writer

SHORT = text_to_sql_prompt(schema=False)
FAST = RunOptions(retry_wait=0)


def asked(dataset):
    return [example.messages[0]["content"] for example in dataset.examples]


def digits(row):
    return None if row["answer"].isdigit() else "no number"


def sums(n=20):
    return [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(n)]


def test_no_request_is_on_both_sides_whatever_its_case_and_spaces():
    again = [{"prompt": f" {row['prompt'].upper()}  ", "answer": row["answer"]} for row in sums()]
    task = check_task(sums() + again, check=digits, held_out=0.25)
    learnt = {text.strip() for text in asked(task.dataset)}
    held = {row["prompt"].strip() for row in task.held_out}
    assert not learnt & held
    assert (len(task.dataset), len(task.held_out)) == (30, 10)
    same = check_task(sums() + again, check=digits, held_out=0.25)
    assert same.held_out == task.held_out
    other = check_task(sums() + again, check=digits, held_out=0.25, seed=1)
    assert other.held_out != task.held_out


def test_a_row_that_is_there_twice_is_measured_once():
    task = check_task(sums() * 3, check=digits, held_out=0.25)
    assert len({row["prompt"] for row in task.held_out}) == len(task.held_out) == 5
    assert len(task.dataset) == 45


def test_a_faulty_row_is_neither_learnt_nor_scored():
    given = [{"prompt": "?", "answer": "umm"}, *sums(5)]
    task = check_task(given, check=digits, held_out=0.5)
    assert [(d.number, d.reason) for d in task.dropped] == [(0, "no number")]
    assert "?" not in asked(task.dataset) + [row["prompt"] for row in task.held_out]
    scores = task.evaluate(ScriptedLLM(answer=lambda prompt: "7"))
    assert scores.tolist() == [1.0] * len(task.held_out)


def test_rows_that_ask_what_is_held_out_are_not_learnt():
    task = check_task(sums(6), check=digits, held_out=[{"prompt": "2+1? "}, {"prompt": "9+1?"}])
    assert asked(task.dataset) == ["0+1?", "1+1?", "3+1?", "4+1?", "5+1?"]
    assert [(d.number, d.reason) for d in task.dropped] == [(2, "its request is held out")]
    assert len(task.evaluate(ScriptedLLM(answer=upper))) == 2


@pytest.mark.parametrize(
    ("held_out", "error", "message"),
    [
        (0.0, ValueError, "held_out must be a share between 0 and 1, or rows, got 0.0"),
        (1, ValueError, "held_out must be a share between 0 and 1, or rows, got 1"),
        (float("nan"), ValueError, "held_out must be a share"),
        (None, TypeError, "held_out must be a share or a list of rows, got None"),
        ("test", TypeError, "held_out must be a share or a list of rows, got 'test'"),
        ([], DatasetError, "held_out: there are no rows to measure on"),
        (sums(6), DatasetError, "nothing is left to learn from"),
        ([{"question": "?"}], DatasetError, "row 0: prompt must be a text"),
    ],
)
def test_a_wrong_share_is_named(held_out, error, message):
    with pytest.raises(error, match=message):
        check_task(sums(6), check=digits, held_out=held_out)


@pytest.mark.parametrize("seed", [None, "x", 0.5, True])
def test_a_wrong_seed_is_named(seed):
    with pytest.raises(ValueError, match="seed must be a whole number >= 0, got"):
        check_task(sums(6), check=digits, seed=seed)


def test_items_that_are_none_are_named():
    with pytest.raises(DatasetError, match="row 0: it must be a StyleItem, got str"):
        style_task(["a", "b"], [matches("x")])


def test_one_request_cannot_be_split():
    with pytest.raises(DatasetError, match="held_out: 1 different requests cannot be split"):
        check_task(sums(1) * 3, check=digits)


def test_held_out_questions_are_scored_by_what_is_found(cities):
    typo = {"question": "height?", "sql": "SELECT height FROM city"}
    task = sql_task([*rows(), typo], cities, held_out=0.3, prompt=SHORT)
    assert [d.number for d in task.dropped] == [len(CITIES)]
    assert (len(task.dataset), len(task.held_out)) == (4, 2)
    gold = {row["question"]: row["sql"] for row in task.held_out}
    assert not set(gold) & set(asked(task.dataset))
    llm = ScriptedLLM(answer=lambda prompt: next(gold[q] for q in gold if q in prompt))
    assert task.evaluate(llm).tolist() == [1, 1]


def test_function_calls_stay_with_what_follows_them():
    calls = [CallItem(question(c), [ExpectedCall("fee", {"city": [c]})]) for c in FEES]
    made = {
        "id": "c",
        "type": "function",
        "function": {"name": "fee", "arguments": json.dumps({"city": "Oslo"})},
    }
    after = CallItem(
        [
            {"role": "user", "content": question("Oslo")},
            {"role": "assistant", "content": None, "tool_calls": [made]},
            {"role": "tool", "tool_call_id": "c", "content": "5"},
        ],
        reply="5 euros.",
    )
    bad = CallItem("Fee?", [ExpectedCall("fee", {"city": [3]})])
    for seed in range(4):
        task = call_task([*calls, after, bad], [fee_tool()], held_out=0.4, seed=seed)
        assert [d.number for d in task.dropped] == [3]
        learnt = {example.messages[0]["content"] for example in task.dataset.examples}
        assert len(learnt) == 1
        held = {m if isinstance(m := i.messages, str) else m[0]["content"] for i in task.held_out}
        assert not learnt & held


def test_a_tuned_model_is_scored_on_held_out_calls(tuned):
    items = [CallItem(question(c), [ExpectedCall("fee", {"city": [c]})]) for c in FEES]
    task = call_task(items, [fee_tool()], held_out=0.5, max_tokens=60)
    assert task.evaluate(tuned).tolist() == [1.0]


def test_knowledge_has_the_same_contexts_on_both_sides():
    given = [
        QuestionAnswer(
            f"q{n}", f"Fee in {c}?", f"{n + 10} euros", f"n{n}", f"{c} asks {n + 10} euros."
        )
        for n, c in enumerate(CITIES)
    ]
    task = knowledge_task(given, held_out=0.3, irrelevant=2, min_support=0.5)
    assert (len(task.dataset), len(task.held_out)) == (4, 2)
    held = {row.question for row in task.held_out}
    assert not any(
        q in text["content"] for q in held for e in task.dataset.examples for text in e.messages
    )
    seen = []

    def answer(prompt):
        seen.append(prompt)
        return next(row.answer for row in task.held_out if row.question in prompt)

    assert task.evaluate(ScriptedLLM(answer=answer)).tolist() == [1.0, 1.0]
    assert all(prompt.count(" asks ") == 3 for prompt in seen)


def test_a_teacher_writes_what_is_learnt_only(tmp_path):
    seen = []
    script = {name: f"Dear {name}" for name in "abcdefgh"} | {"b": "Hey"}
    items = [3, *(StyleItem(name) for name in "abcdefgh")]
    task = style_task(
        items,
        [matches("^Dear ")],
        held_out=[StyleItem("h"), StyleItem("z")],
        teacher=writer(script, seen),
        rules="Be polite.",
        output_path=tmp_path / "made.jsonl",
    )
    assert sorted(messages[1][1] for messages in seen) == list("abcdefg")
    assert [(d.number, d.reason.split()[0]) for d in task.dropped] == [
        (0, "it"), (2, "'^Dear"), (8, "its"),
    ]  # fmt: skip
    assert asked(ChatDataset.from_jsonl(tmp_path / "made.jsonl")) == list("acdefg")
    assert task.evaluate(writer({"h": "Dear H", "z": "Hi"})).tolist() == [1, 0]
    share = style_task(items[1:], [matches("^Dear ")], teacher=writer(script), rules="Be polite.")
    assert len(share.held_out) == 2


PROMPTS = [f"word {n}" for n in range(10)]


def no_seven(prompt, answer):
    return "7" not in answer


def test_the_student_is_compared_with_the_teacher_on_held_out_prompts(tmp_path):
    out = tmp_path / "made.jsonl"
    teacher = ScriptedLLM(answer=upper)
    held = ["word 3", "word 7", "new", "new"]
    task = distillation_task(
        [*PROMPTS, "word 7x"], teacher, keep=no_seven, held_out=held, output_path=out
    )
    assert asked(task.dataset) == [p for p in PROMPTS if p not in held]
    assert ChatDataset.from_jsonl(out).examples == task.dataset.examples
    assert {(d.number, d.reason) for d in task.dropped} == {
        (3, "its request is held out"), (7, "its request is held out"), (10, "keep refused it"),
    }  # fmt: skip
    assert task.held_out == ["word 3", "word 7", "new"]
    assert task.peers["teacher"].tolist() == [1, 0, 1]
    said = {"new": "7", "word 3": " ", "word 7": "ok"}
    student = ScriptedLLM(answer=lambda p: next(said[q] for q in said if q in p))
    assert task.evaluate(student).tolist() == [0, 1, 0]
    silent = ScriptedLLM(answer=lambda prompt: pytest.fail("asked again"))
    again = distillation_task(
        [*PROMPTS, "word 7x"], silent, keep=no_seven, held_out=held, output_path=out
    )
    assert again.dataset.examples == task.dataset.examples


def test_a_held_out_prompt_without_the_teachers_answer_is_left_out():
    def answer(prompt):
        if prompt in ("word 1", "word 2"):
            raise RuntimeError("down")
        return prompt.upper()

    task = distillation_task(
        PROMPTS,
        ScriptedLLM(answer=answer),
        keep=no_seven,
        held_out=["word 1", "word 7"],
        run=replace(FAST, retry_limit=1),
    )
    assert task.held_out == ["word 7"]
    assert task.peers["teacher"].tolist() == [0]
    assert (2, "it failed: RuntimeError: down") in [(d.number, d.reason) for d in task.dropped]


def test_an_evaluator_scores_the_student_too():
    scorer = distillation_scorer(["one", "two"], keep=Evaluator())
    assert np.array_equal(scorer(ScriptedLLM(answer=upper)), [0, 0])
    assert np.array_equal(scorer(ScriptedLLM(answer=lambda p: "x")), [1, 1])
    broken = Evaluator(lambda a: EvaluationResult(invalid_result=True, invalid_reason="no JSON"))
    with pytest.raises(ValueError, match="the evaluator gave no verdict: no JSON"):
        distillation_scorer(["one"], keep=broken)(ScriptedLLM(answer=upper))


@pytest.mark.parametrize(
    "make",
    [
        distillation_scorer,
        lambda p, keep: distillation_task(p, ScriptedLLM(answer=upper), keep=keep),
    ],
)
def test_without_a_filter_there_is_nothing_to_score_by(make):
    with pytest.raises(ValueError, match="keep is needed to score by"):
        make(PROMPTS, keep=None)
