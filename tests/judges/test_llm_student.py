import asyncio
import json
from functools import partial

import pytest
from llama_index.core.evaluation import (
    BatchEvalRunner,
    CorrectnessEvaluator,
    FaithfulnessEvaluator,
    PairwiseComparisonEvaluator,
)
from llama_index.core.llms import MockLLM

from llama_index.tuning import (
    HuggingFaceFinetuneEngine,
    JudgeFinetuneEngine,
    OpenAIFinetuneEngine,
    TunedHuggingFaceLLM,
    TunedJudge,
    load_llm_judge,
)
from llama_index.tuning.errors import ArtifactError, DatasetError, JudgeRefusedError
from llama_index.tuning.judges import JudgeOptions, JudgeReport, LLMStudent, judge_rows
from llama_index.tuning.llms import HuggingFaceOptions
from tests.jobs_server import JobsServer
from tests.judges.conftest import data, pairs
from tests.judges.llm_parts import (
    ScriptedEngine,
    by_the_coin,
    chat_llm,
    coins,
    short_form,
)
from tests.llms.hosted_parts import MODEL, scaled
from tests.llms.tiny import save_tiny

HALF = JudgeOptions(folds=2)


def scripted(reply, untuned=lambda prompt: "Hm.", form=FaithfulnessEvaluator, **options):
    engine = {n: options.pop(n) for n in ("measures",) if n in options}
    made = partial(ScriptedEngine, base=chat_llm(untuned), tuned=chat_llm(reply), **engine)
    return LLMStudent(form=form, engine=made, **options)


def tuned(student, rows=None, **options):
    given = {"options": HALF, **options}
    engine = JudgeFinetuneEngine(data(coins() if rows is None else rows), student=student, **given)
    return engine, engine.finetune()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A tiny Llama that has learnt what passes, its report, and where it lies."""
    folder = tmp_path_factory.mktemp("llm-judge")
    form = short_form(FaithfulnessEvaluator)
    dataset = data(coins())
    chats = judge_rows(dataset, form).chats
    texts = [message["content"] for example in chats.examples for message in example.messages]
    save_tiny(folder / "base", texts, context=1024)
    student = LLMStudent(
        form=form,
        engine=partial(
            HuggingFaceFinetuneEngine,
            model_id=folder / "base",
            model_output_path=folder / "llm",
            options=HuggingFaceOptions(
                weights="full", device="cpu", learning_rate=4e-3, max_steps=40
            ),
        ),
        context_window=1024,
    )
    engine = JudgeFinetuneEngine(
        dataset, student=student, options=HALF, model_output_path=folder / "judge"
    )
    engine.finetune()
    return engine, folder


def test_a_small_llm_learns_to_judge(local):
    report = local[0].report
    assert report.accepted
    assert report.title == "judge (LLM, pointwise)"
    assert report.gains["accuracy"].tuned == 1.0
    assert report.gains["accuracy"].n == report.data["measured"] == 30
    assert report.data["trained_on"] == report.data["conversations"] == 30
    assert report.shortcuts["the untuned LLM"]["accuracy"] < 0.5
    assert report.shortcuts["length only"]["accuracy"] < 0.8
    assert report.shortcuts["overlap only"]["accuracy"] < 0.8
    assert report.history


def test_the_report_claims_no_calibration(local, tmp_path):
    report = local[0].report
    assert not {"auroc", "calibration_error"} & set(report.summary)
    assert report.deferral == []
    assert not {"threshold", "slope", "margin"} & set(report.data)
    assert any("without probabilities" in note for note in report.notes)
    report.save_json(tmp_path / "report.json")
    assert JudgeReport.from_json(tmp_path / "report.json") == report
    assert "nan" not in str(report)


def test_the_judge_is_the_evaluator_with_the_tuned_llm(local):
    judge = local[0].get_finetuned_model(max_new_tokens=4)
    assert type(judge) is FaithfulnessEvaluator
    others = coins(12, seed=5)
    results = asyncio.run(
        BatchEvalRunner({"faithful": judge}, workers=2).aevaluate_response_strs(
            queries=[row["query"] for row in others],
            response_strs=[row["response"] for row in others],
            contexts_list=[row["contexts"] for row in others],
        )
    )["faithful"]
    assert [result.passing for result in results] == [row["passing"] for row in others]
    assert {result.feedback for result in results} == {"YES", "NO"}


def test_a_saved_judge_is_loaded_with_the_llm_that_was_saved(local):
    _, folder = local
    llm = TunedHuggingFaceLLM.load(folder / "llm", device="cpu", max_new_tokens=4)
    judge = load_llm_judge(folder / "judge", short_form(FaithfulnessEvaluator), llm)
    for row in coins(4, seed=6):
        given = {name: row[name] for name in ("query", "response", "contexts")}
        assert judge.evaluate(**given).passing == row["passing"]
    with pytest.raises(ArtifactError, match="of other prompts or settings than"):
        load_llm_judge(folder / "judge", FaithfulnessEvaluator, llm)
    with pytest.raises(ArtifactError, match=r"of other class \(FaithfulnessEvaluator\) than"):
        load_llm_judge(folder / "judge", CorrectnessEvaluator, llm)
    with pytest.raises(ArtifactError, match="holds a 'llm_judge'"):
        TunedJudge.load(folder / "judge")


def test_a_hosted_llm_is_tuned_and_asked_as_it_was_trained(tmp_path):
    def answer(model, messages):
        return by_the_coin(messages[-1]["content"]) if model.startswith("ft:") else "YES"

    with JobsServer(answer=answer) as server:
        student = LLMStudent(
            form=FaithfulnessEvaluator,
            engine=partial(
                OpenAIFinetuneEngine,
                MODEL,
                client=server.client(),
                clock=scaled(),
                poll_interval=10.0,
            ),
        )
        engine, report = tuned(student)
        assert report.accepted
        assert report.gains["accuracy"].tuned == 1.0
        assert report.shortcuts["the untuned LLM"]["balanced accuracy"] == 0.5
        assert report.data["llm"] == f"ft:{MODEL}:org::ftjob-1"
        (file,) = server.files.values()
        lines = [json.loads(line)["messages"] for line in file["content"].splitlines()]
        assert len(lines) == 30
        learnt = next(row for row in coins() if row["response"] in lines[0][0]["content"])
        server.seen.clear()
        given = {name: learnt[name] for name in ("query", "response", "contexts")}
        result = engine.get_finetuned_model(temperature=0.0).evaluate(**given)
        (asked,) = server.asked("POST", "/chat/completions")
    assert result.passing == learnt["passing"]
    assert asked["messages"] == lines[0][:1]
    assert lines[0][1] == {"role": "assistant", "content": result.feedback}


def test_a_request_that_fails_counts_as_wrong_and_is_named():
    held_out = data(coins(20, seed=1))
    broken = held_out.judgments[0].response

    def answer(prompt):
        if f"Information: {broken}" in prompt:
            raise OSError("the server is gone")
        return by_the_coin(prompt)

    _, report = tuned(scripted(answer), val_dataset=held_out)
    failed = sum(judgment.response == broken for judgment in held_out.judgments)
    assert report.gains["accuracy"].tuned == 1 - failed / 20
    assert report.data["no_verdict"] == failed / 20
    assert any(
        f"{failed} of 20 measured items got no verdict and count as wrong: the request failed: "
        "OSError: the server is gone" in n
        for n in report.notes
    )


def test_an_llm_that_never_answers_is_an_error_not_a_verdict():
    def answer(prompt):
        raise OSError("the server is gone")

    with pytest.raises(OSError, match="the server is gone"):
        tuned(scripted(answer))


def test_replies_that_cannot_be_read_count_as_wrong():
    """A reply without yes or no passes the stock parser as a no; here it is no verdict."""
    _, report = tuned(
        scripted(lambda prompt: "Perhaps." if by_the_coin(prompt) == "NO" else "YES"),
        accept="always",
    )
    fails = report.data["no_verdict"]
    assert report.gains["accuracy"].tuned == pytest.approx(1 - fails)
    assert report.gains["balanced accuracy"].tuned == 0.5
    assert any("a reply without yes or no" in note for note in report.notes)


def test_an_llm_that_learnt_nothing_is_refused_in_favour_of_the_teacher(tmp_path):
    student = scripted(by_the_coin, untuned=by_the_coin)
    engine, report = tuned(student, model_output_path=tmp_path / "judge")
    assert not report.accepted
    assert "the shortcut 'the untuned LLM'" in report.reason
    assert (tmp_path / "judge" / "candidate").is_dir()
    with pytest.raises(JudgeRefusedError, match="there is no defer_to"):
        engine.get_finetuned_model()
    teacher = FaithfulnessEvaluator(MockLLM())
    assert engine.get_finetuned_model(defer_to=teacher) is teacher


def test_an_engine_that_measures_nothing_is_measured_here():
    engine, report = tuned(scripted(by_the_coin, measures=False))
    assert report.accepted
    assert report.gains["accuracy"].tuned == 1.0
    assert "the untuned LLM" not in report.shortcuts
    judge = engine.get_finetuned_model(defer_to=FaithfulnessEvaluator(MockLLM()), device="cpu")
    assert judge._llm.metadata.model_name == "scripted"


def longer_first(prompt):
    """Takes the better answer by its words, but of two that end alike always the first."""
    first, second = (part.split("[The End")[0] for part in prompt.split("Answer]\n")[1::2])
    return "[[A]]" if "of the list" in first else "[[B]]" if "of the list" in second else "[[A]]"


def test_pairs_are_judged_in_both_orders():
    student = scripted(longer_first, form=PairwiseComparisonEvaluator)
    _, report = tuned(student, pairs())
    assert report.title == "judge (LLM, pairwise)"
    assert report.data["conversations"] == 2 * report.data["trained_on"] == 60
    assert report.gains["accuracy"].tuned == 1.0
    assert report.summary["flip_rate"] == 0.0


@pytest.mark.parametrize("consensus", [True, False])
def test_a_verdict_that_turns_with_the_order(consensus):
    form = PairwiseComparisonEvaluator(MockLLM(), enforce_consensus=consensus)
    rows = pairs(ties=12)
    _, report = tuned(scripted(lambda prompt: "[[A]]", form=form), rows, accept="always")
    assert report.summary["flip_rate"] == 1.0
    assert report.data["no_verdict"] == float(consensus)
    if consensus:  # inconclusive: wrong about ties too
        assert report.gains["accuracy"].tuned == 0.0
        assert any("the verdict turned with the order (30)" in note for note in report.notes)


def test_a_result_of_the_turned_order_is_read_for_the_order_given():
    def unsure(prompt):  # a tie in one order, the better one in the other
        said = longer_first(prompt)
        return "[[C]]" if said == "[[A]]" else said

    _, report = tuned(scripted(unsure, form=PairwiseComparisonEvaluator), pairs())
    assert report.gains["accuracy"].tuned == 1.0


def test_correctness_is_judged_by_its_scores():
    rows = [
        {
            **{name: row[name] for name in ("query", "response", "source")},
            "score": 4.0 + number % 2 if row["passing"] else 2.0,
            "feedback": "As the reference has it." if row["passing"] else "Another.",
        }
        for number, row in enumerate(coins())
    ]
    student = scripted(
        lambda prompt: "4.5\nGood." if "pounds" in prompt else "1.5\nBad.",
        untuned=lambda prompt: "good",
        form=CorrectnessEvaluator,
    )
    options = JudgeOptions(folds=3, passing_score=4.0)
    engine, report = tuned(student, rows, options=options)
    assert report.gains["accuracy"].tuned == 1.0
    assert report.summary["pearson"] > 0.9
    assert report.shortcuts["the untuned LLM"]["accuracy"] == 0.0
    chats = engine._model.engine.chats
    assert {example.messages[-1]["content"] for example in chats.examples} == {
        "4.0\nAs the reference has it.",
        "5.0\nAs the reference has it.",
        "2.0\nAnother.",
    }


def test_an_llm_with_a_smaller_window_is_refused_before_it_is_trained():
    narrow = chat_llm(by_the_coin, context_window=4096)
    student = LLMStudent(
        form=FaithfulnessEvaluator, engine=partial(ScriptedEngine, base=narrow, tuned=None)
    )
    with pytest.raises(ValueError, match="is 8192 tokens, and that of the LLM 4096: the evaluator"):
        tuned(student)


def test_contexts_for_several_requests_are_left_out_and_counted():
    long = " ".join(f"word{number}" for number in range(900))
    rows = coins()
    rows[1]["contexts"] = [long, long]
    student = scripted(by_the_coin, context_window=3900, too_long="drop")
    _, report = tuned(student, rows, val_dataset=data(coins(20, seed=1)))
    assert (report.data["left_out"], report.data["trained_on"]) == (1, 59)
    assert any("1 verdicts need several requests" in note for note in report.notes)


def test_a_fault_is_named_by_its_place_in_the_dataset():
    rows = [{**row, "score": 4.5 if row["passing"] else 2.0} for row in coins()]
    student = scripted(by_the_coin, form=CorrectnessEvaluator)
    for place in (0, 31, 59):  # whether it is held out or not
        wrong = [dict(row) for row in rows]
        wrong[place]["score"] = 1.0 if wrong[place]["passing"] else 5.0
        with pytest.raises(DatasetError, match="could not come to") as caught:
            tuned(student, wrong)
        assert len(caught.value.faults) == 1
        assert caught.value.faults[0].startswith(f"judgment {place}: its verdict is ")


def test_nothing_is_measured_on_what_was_learnt():
    asked = []

    def answer(prompt):
        asked.append(prompt)
        return by_the_coin(prompt)

    engine, _ = tuned(scripted(answer))
    learnt = {example.messages[0]["content"] for example in engine._model.engine.chats.examples}
    assert len(learnt) + len(set(asked)) == 60
    assert not learnt & set(asked)


def swallowing(chats, **given):
    return ScriptedEngine(chats, base=None, tuned=None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"form": "faithful"}, TypeError, "form must be an evaluator"),
        ({"engine": "openai"}, TypeError, "engine must be a function that makes an LLM's engine"),
        ({"engine": lambda chats: None}, TypeError, r"engine is called as engine\(conversations, "),
        ({"workers": 0}, ValueError, "workers must be"),
        ({"context_window": -1}, ValueError, "context_window must be"),
        ({"too_long": "cut"}, ValueError, "unknown too_long"),
        ({"reasons": 1}, TypeError, "reasons must be True or False"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        LLMStudent(**{"form": FaithfulnessEvaluator, "engine": swallowing, **options})


@pytest.mark.parametrize(
    ("student", "options", "error", "message"),
    [
        (
            LLMStudent(form=FaithfulnessEvaluator, engine=swallowing),
            {},
            TypeError,
            r"it made has evaluate=None: pass it on",
        ),
        (
            LLMStudent(form=FaithfulnessEvaluator, engine=lambda chats, **given: 3),
            {},
            TypeError,
            "engine must make an LLM's engine, got int",
        ),
        (
            scripted(by_the_coin),
            {"options": JudgeOptions(target="precision")},
            ValueError,
            'target="precision" chooses a threshold',
        ),
        (
            scripted(by_the_coin, form=CorrectnessEvaluator),
            {},
            DatasetError,
            "it has no score, and CorrectnessEvaluator reads one",
        ),
        (
            scripted(by_the_coin),
            {"rows": [{**row, "weight": 1.0 + n} for n, row in enumerate(coins(20))]},
            DatasetError,
            "an LLM learns from all verdicts alike",
        ),
        (
            scripted(by_the_coin),
            {"rows": pairs()},
            DatasetError,
            "FaithfulnessEvaluator judges single responses",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_any_call(student, options, error, message):
    with pytest.raises(error, match=message):
        tuned(student, **options)
