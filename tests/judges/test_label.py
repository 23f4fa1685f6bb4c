import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from llama_index.core.evaluation import (
    AnswerRelevancyEvaluator,
    ContextRelevancyEvaluator,
    CorrectnessEvaluator,
    EvaluationResult,
    FaithfulnessEvaluator,
    GuidelineEvaluator,
    PairwiseComparisonEvaluator,
    RelevancyEvaluator,
)
from llama_index.core.evaluation.base import BaseEvaluator
from llama_index.core.llms import MockLLM

from llama_index.tuning import JudgmentDataset, label_judgments
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.datasets import Judgment
from llama_index.tuning.errors import DatasetError, GenerationError, RunFileError
from tests.servers import ChatServer, Faults, client

QUICK = RunOptions(retry_wait=0.01)
SAMPLES = [
    {"query": f"subject-{i}?", "response": f"answer-{i}", "contexts": [f"answer-{i}"],
     "reference": f"answer-{i}", "second_response": f"other-{i}"}
    for i in range(6)
]  # fmt: skip


class Scripted(BaseEvaluator):
    """Gives what a function of the response gives; keeps what it was asked."""

    def __init__(self, verdict):
        self.verdict = verdict
        self.asked = []

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        self.asked.append((query, response, contexts, kwargs))
        return self.verdict(response)


def passing(response):
    return EvaluationResult(passing=response != "answer-0", score=3.0, feedback="because")


def pairwise(prompt):
    """Prefers the answer shown first; of subject-0, whatever its place, the other."""
    if "subject-0" in prompt:
        return "[[A]]" if prompt.rindex("other-0") < prompt.rindex("answer-0") else "[[B]]"
    return "[[A]]"


REPLIES = {
    AnswerRelevancyEvaluator: "Feedback: fine [RESULT] 2",
    ContextRelevancyEvaluator: "Feedback: fine [RESULT] 4",
    CorrectnessEvaluator: "4.5\nIt is right.",
    FaithfulnessEvaluator: "YES",
    GuidelineEvaluator: '{"passing": true, "feedback": "fine"}',
    PairwiseComparisonEvaluator: "[[A]]",
    RelevancyEvaluator: "YES",
}


@pytest.mark.parametrize("kind", REPLIES)
def test_llamaindex_own_evaluators_are_teachers(kind):
    options = {"enforce_consensus": False} if kind is PairwiseComparisonEvaluator else {}
    with ChatServer(answer=lambda prompt: REPLIES[kind]) as server:
        teacher = kind(llm=client(server), **options)
        plan = label_judgments(SAMPLES, teacher, dry_run=True)
        assert not server.kinds
        found = label_judgments(SAMPLES, teacher, run=QUICK)
    assert found.counts == {
        "labelled": 6, "inconclusive": 0, "invalid": 0, "failures": 0, "not_asked": 0,
        "requests": 6,
    }  # fmt: skip
    assert plan.estimate.requests == sum(server.kinds.values()) == 6
    first = found.dataset.judgments[0]
    assert (first.query, first.response, first.contexts) == ("subject-0?", "answer-0", ["answer-0"])
    assert (first.source, first.judge) == ("scripted", kind.__name__)
    assert first.passing or first.score == 1.0
    assert first.feedback


def test_a_teacher_gets_only_what_a_sample_has():
    teacher = Scripted(passing)
    label_judgments([{"response": "a", "passing": False, "source": "human"}], teacher)
    assert teacher.asked == [(None, "a", None, {})]


def test_verdicts_keep_the_samples_order_and_alike_ones_are_judged_once():
    teacher = Scripted(passing)
    samples = [Judgment(query="q", response=f"answer-{i % 3}") for i in range(9)]
    found = label_judgments(samples, teacher)
    assert [j.passing for j in found.dataset.judgments] == [False, True, True]
    assert [j.score for j in found.dataset.judgments] == [3.0] * 3
    assert len(teacher.asked) == found.requests == 3


def test_failures_are_data():
    def verdict(response):
        number = int(response[-1])
        if number == 0:
            raise RuntimeError("down, sk-12345678 is the key")
        if number == 1:
            return EvaluationResult(invalid_result=True, invalid_reason="can't be parsed")
        if number == 2:
            return EvaluationResult(feedback="hm")
        if number == 3:
            return EvaluationResult(score=0.5, pairwise_source="neither", feedback="")
        if number == 4:
            raise ValueError("no JSON")
        return passing(response)

    teacher = Scripted(verdict)
    found = label_judgments(SAMPLES, teacher, run=replace(QUICK, retry_limit=2))
    assert [j.response for j in found.dataset.judgments] == ["answer-5"]
    assert [j.response for j in found.inconclusive] == ["answer-3"]
    assert [(f.error, f.message, f.attempts) for f in found.failures] == [
        ("RuntimeError", "down, sk-… is the key", 2)
    ]
    assert sorted(f.message for f in found.invalid) == [
        "can't be parsed", "no JSON", "no verdict in the teacher's reply 'hm'"
    ]  # fmt: skip
    assert found.requests == len(teacher.asked) == 10
    asked = found.asked()
    assert [j.response for j in asked.judgments if not j.invalid] == ["answer-5"]
    silent = sorted(j.response for j in asked.judgments if j.invalid)
    assert silent == ["answer-1", "answer-2", "answer-3", "answer-4"]
    assert {j.source for j in asked.judgments} == {found.dataset.judgments[0].source}


def test_an_empty_reply_is_no_verdict():
    with ChatServer(answer=lambda prompt: "") as server:
        found = label_judgments(
            SAMPLES[:1], FaithfulnessEvaluator(client(server)), run=replace(QUICK, retry_limit=1)
        )
    assert found.counts["invalid"] == 1
    assert len(found.dataset) == 0


def test_both_orders_are_two_verdicts():
    with ChatServer(answer=pairwise) as server:
        teacher = PairwiseComparisonEvaluator(client(server), enforce_consensus=False)
        found = label_judgments(SAMPLES, teacher, both_orders=True)
    assert len(found.dataset) == 12
    orders = found.dataset.agreement_of_orders()
    assert (orders.n, orders.flip_rate) == (6, pytest.approx(5 / 6))


def test_a_verdict_that_turns_with_the_order_is_inconclusive():
    with ChatServer(answer=pairwise) as server:
        teacher = PairwiseComparisonEvaluator(client(server))
        found = label_judgments(SAMPLES, teacher)
        plan = label_judgments(SAMPLES, teacher, dry_run=True)
    assert found.counts["labelled"] == 1
    assert found.counts["inconclusive"] == 5
    assert plan.estimate.requests == sum(server.kinds.values()) == 12


def test_a_result_of_the_turned_pair_is_turned_back():
    def one_tie(prompt):  # a tie as given; turned, the second place, where the first answer is
        return "[[C]]" if prompt.rindex("answer-1") < prompt.rindex("other-1") else "[[B]]"

    with ChatServer(answer=one_tie) as server:
        teacher = PairwiseComparisonEvaluator(client(server))
        (judgment,) = label_judgments(SAMPLES[1:2], teacher, run=QUICK).dataset.judgments
    assert (judgment.score, judgment.passing) == (1.0, True)


def test_a_budget_is_kept_and_the_rest_is_asked_later(tmp_path):
    out = tmp_path / "labels.jsonl"
    teacher = Scripted(passing)
    found = label_judgments(SAMPLES, teacher, output_path=out, run=RunOptions(max_calls=4))
    assert (len(found.dataset), len(found.not_asked), len(teacher.asked)) == (4, 2, 4)
    found = label_judgments(SAMPLES, teacher, output_path=out)
    assert (len(found.dataset), found.requests, len(teacher.asked)) == (6, 2, 6)
    assert JudgmentDataset.from_jsonl(out) == found.dataset


def test_a_run_of_another_teacher_is_refused(tmp_path):
    out = tmp_path / "labels.jsonl"
    with ChatServer(answer=lambda prompt: '{"passing": true, "feedback": "fine"}') as server:
        label_judgments(
            SAMPLES, GuidelineEvaluator(client(server), guidelines="Be kind."), output_path=out
        )
        with pytest.raises(RunFileError, match="settings"):
            label_judgments(
                SAMPLES, GuidelineEvaluator(client(server), guidelines="Be brief."), output_path=out
            )


def test_a_dry_run_counts_tokens_and_cost():
    teacher = CorrectnessEvaluator(MockLLM())
    plan = label_judgments(
        SAMPLES,
        teacher,
        dry_run=True,
        run=RunOptions(max_calls=2),
        tokens_per_reply=50,
        prices=(2.0, 8.0),
    ).estimate
    assert (plan.evaluations, plan.evaluations_within_budget, plan.requests) == (6, 2, 2)
    assert plan.reply_tokens == 100
    assert plan.prompt_tokens > 500
    assert plan.cost == pytest.approx((plan.prompt_tokens * 2 + 100 * 8) / 1e6)
    assert "2 of 6 evaluations, 2 requests" in str(plan)


def test_a_dry_run_of_an_unknown_evaluator_says_what_it_cannot_know():
    plan = label_judgments(SAMPLES, Scripted(passing), dry_run=True).estimate
    assert (plan.evaluations, plan.requests, plan.prompt_tokens) == (6, None, None)
    assert "not known" in str(plan)


class Example:
    def __init__(self, **fields):
        self.__dict__.update(fields)


def rag():
    example = Example(
        query="q", reference_answer="right", reference_contexts=["c"], reference_answer_by=None
    )
    return Example(examples=[example])


def test_a_labelled_rag_dataset_is_judged():
    teacher = Scripted(passing)
    label_judgments(rag(), teacher)
    predictions = Example(predictions=[Example(response="mine", contexts=["d"])])
    label_judgments(rag(), teacher, predictions=predictions)
    assert teacher.asked == [
        ("q", "right", ["c"], {}),
        ("q", "mine", ["d"], {"reference": "right"}),
    ]


@pytest.mark.parametrize(
    ("samples", "options", "error", "message"),
    [
        ([], {}, DatasetError, "no samples"),
        ("text", {}, TypeError, "samples must be"),
        ([3], {}, TypeError, "sample 0 must be a Judgment"),
        ([{"response": "a", "grade": 1}], {}, DatasetError, "sample 0 has unknown fields: grade"),
        ([{"response": True}], {}, DatasetError, "sample 0: response must be a text, got True"),
        ([{"response": None}], {}, DatasetError, "sample 0: response must be a text, got None"),
        ([{"response": "a"}], {"both_orders": True}, DatasetError, "has no second_response"),
        ([{"response": "a"}], {"run": 8}, TypeError, "run must be RunOptions, got int"),
        ([{"response": "a"}], {"run": 8, "dry_run": True}, TypeError, "run must be RunOptions"),
        ([{"response": "a"}], {"tokens_per_reply": 0}, ValueError, "tokens_per_reply must be"),
        ([{"response": "a"}], {"prices": (1.0, -1.0)}, ValueError, "prices must be two numbers"),
        ([{"response": "a"}], {"predictions": []}, ValueError, "belong to a LabelledRagDataset"),
        (rag(), {"predictions": []}, DatasetError, "one for each of the 1 examples, got 0"),
    ],
)
def test_wrong_input_is_named_before_any_call(samples, options, error, message):
    teacher = Scripted(passing)
    with pytest.raises(error, match=message):
        label_judgments(samples, teacher, **options)
    assert not teacher.asked


def test_missing_fields_are_named_before_any_call():
    with pytest.raises(DatasetError, match="sample 1 has no contexts"):
        label_judgments(
            [{"response": "a", "contexts": ["c"]}, {"response": "a", "contexts": []}],
            FaithfulnessEvaluator(MockLLM()),
        )
    with pytest.raises(ValueError, match="enforce_consensus=False"):
        label_judgments(SAMPLES, PairwiseComparisonEvaluator(MockLLM()), both_orders=True)
    with pytest.raises(TypeError, match="BaseEvaluator, got MockLLM"):
        label_judgments(SAMPLES, MockLLM())


def test_the_first_failure_can_end_it():
    def verdict(response):
        raise RuntimeError("down")

    with pytest.raises(GenerationError, match="down"):
        label_judgments(
            SAMPLES, Scripted(verdict), run=RunOptions(on_failure="fail", retry_limit=1)
        )


PROGRAM = """
import sys
from llama_index.core.evaluation import CorrectnessEvaluator
from llama_index.tuning import label_judgments
from llama_index.tuning.asking import RunOptions
from tests.servers import client

url, path = sys.argv[1:]
teacher = CorrectnessEvaluator(client(type("Server", (), {"base_url": url})))
samples = [{"query": f"subject-{i:03}?", "response": f"answer-{i}"} for i in range(60)]
label_judgments(
    samples, teacher, output_path=path,
    run=RunOptions(num_workers=4, retry_limit=9, retry_wait=0.01),
)
"""


def test_a_kill_loses_nothing(tmp_path):
    out = tmp_path / "labels.jsonl"
    file = Path(f"{out}.run.jsonl")
    faults = Faults(rate_limit=0.1, retry_after=0.02, error=0.1, garbage=0.1)

    def answer(prompt):
        number = int(re.search(r"subject-(\d+)", prompt).group(1))
        return f"{number % 5 + 1}\nreasons"

    with ChatServer(latency=0.05, faults=faults, answer=answer) as server:
        command = [sys.executable, "-c", PROGRAM, server.base_url, str(out)]
        process = subprocess.Popen(command)
        while not file.exists() or file.read_bytes().count(b"\n") < 15:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        subprocess.run(command, check=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    ids = [row["id"] for row in rows if "value" in row]
    assert len(ids) == len(set(ids)) == 60
    found = JudgmentDataset.from_jsonl(out)
    assert [j.score for j in found.judgments] == [i % 5 + 1 for i in range(60)]
    assert sum(count - 1 for count in server.good.values()) <= 4
