import pytest
from llama_index.core.evaluation import (
    AnswerRelevancyEvaluator,
    BaseEvaluator,
    ContextRelevancyEvaluator,
    CorrectnessEvaluator,
    EvaluationResult,
    FaithfulnessEvaluator,
    GuidelineEvaluator,
    PairwiseComparisonEvaluator,
    RelevancyEvaluator,
    SemanticSimilarityEvaluator,
)
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate

from llama_index.tuning import JudgmentDataset, TunedJudge
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges import judge_rows
from tests.conftest import TableEmbedding
from tests.judges.llm_parts import ITEM, PAIR, chat_llm, one
from tests.servers import ChatServer, client

VERDICTS = [
    (FaithfulnessEvaluator, {"passing": True, "feedback": "No doubt."}, "YES"),
    (FaithfulnessEvaluator, {"passing": False, "feedback": "yes, no"}, "NO"),
    (RelevancyEvaluator, {"score": 0.0, "passing": False}, "NO"),
    (CorrectnessEvaluator, {"score": 4.5, "feedback": "Good.\nReally."}, "4.5\nGood.\nReally."),
    (CorrectnessEvaluator, {"score": 2, "passing": False}, "2.0\n(no reasons)"),
    (
        AnswerRelevancyEvaluator,
        {"score": 0.5, "feedback": "Half.\n[RESULT] 1"},
        "Half.\n[RESULT] 1",
    ),
    (ContextRelevancyEvaluator, {"score": 0.875}, "(no reasons)\n[RESULT] 3.5"),
    (ContextRelevancyEvaluator, {"score": 0.0, "feedback": "None."}, "None.\n[RESULT] 0"),
    (
        GuidelineEvaluator,
        {"passing": False, "feedback": 'Vague: "{x}"'},
        '{"passing": false, "feedback": "Vague: \\"{x}\\""}',
    ),
]


@pytest.mark.parametrize(("form", "verdict", "answer"), VERDICTS)
def test_the_evaluator_reads_the_recorded_verdict_from_the_answer(form, verdict, answer):
    rows = judge_rows(one(**verdict), form, passing_score=4 if form is CorrectnessEvaluator else 1)
    assert rows.chats.examples[0].messages[-1] == {"role": "assistant", "content": answer}
    result = form(llm=chat_llm(lambda prompt: answer)).evaluate(**ITEM)
    for name in ("score", "passing"):
        if name in verdict and getattr(result, name) is not None:
            assert getattr(result, name) == verdict[name]


READABLE = '5\nYES [[C]] [RESULT] 2 {"passing": true, "feedback": ""}'


@pytest.mark.parametrize(
    "form",
    [
        FaithfulnessEvaluator,
        CorrectnessEvaluator,
        ContextRelevancyEvaluator,
        GuidelineEvaluator,
        PairwiseComparisonEvaluator,
    ],
)
def test_the_requests_are_those_of_an_evaluator_at_work(form, monkeypatch):
    item = PAIR if form is PairwiseComparisonEvaluator else ITEM
    verdict = {"score": 5.0 if form is CorrectnessEvaluator else 1.0, "passing": True}
    dataset = JudgmentDataset.from_records([{**item, **verdict}])
    examples = judge_rows(dataset, form, passing_score=1).chats.examples
    questions = [example.messages[:-1] for example in examples]
    seen = []
    with ChatServer(answer=lambda prompt: READABLE) as server:
        llm = client(server)
        chat = type(llm).achat

        async def noting(self, messages, **kwargs):
            seen.append([{"role": m.role.value, "content": m.content} for m in messages])
            return await chat(self, messages, **kwargs)

        monkeypatch.setattr(type(llm), "achat", noting)
        form(llm=llm).evaluate(**item)
    assert seen == questions
    assert set(server.good) == {question[-1]["content"] for question in questions}


def test_changed_prompts_and_settings_count():
    form = CorrectnessEvaluator(MockLLM(), eval_template="{query}: {generated_answer}?")
    rows = judge_rows(one(score=3.0), form, passing_score=4)
    assert rows.chats.examples[0].messages[0] == {"role": "user", "content": "Fee?: 5 euros.?"}
    form = FaithfulnessEvaluator(MockLLM())
    form.update_prompts({"eval_template": PromptTemplate("{context_str} / {query_str}")})
    rows = judge_rows(one(passing=True), form)
    said = "The fee is 5 euros.\n\nPlan A. / 5 euros."
    assert rows.chats.examples[0].messages[0]["content"] == said
    assert form._llm.metadata.model_name == "unknown"  # the form itself is as it was
    form = AnswerRelevancyEvaluator(MockLLM(), score_threshold=8.0)
    rows = judge_rows(one(score=0.75), form, passing_score=0.5)
    assert rows.chats.examples[0].messages[-1]["content"].endswith("[RESULT] 6")


def test_a_pair_comes_in_both_orders_with_the_verdict_turned():
    dataset = JudgmentDataset.from_records(
        [{**PAIR, "score": 1.0}, {**PAIR, "query": "Tax?", "score": 0.5}]
    )
    rows = judge_rows(dataset, PairwiseComparisonEvaluator)
    assert rows.numbers == [0, 0, 1, 1]
    answers = [example.messages[-1]["content"] for example in rows.chats.examples]
    assert answers == ["[[A]]", "[[B]]", "[[C]]", "[[C]]"]
    first, second = (example.messages[1]["content"] for example in rows.chats.examples[:2])
    assert first.index("5 euros.") < first.index("6 euros.")
    assert second.index("6 euros.") < second.index("5 euros.")


def test_reasons_can_be_left_out():
    rows = judge_rows(
        one(score=4.0, feedback="Long."), CorrectnessEvaluator, passing_score=4, reasons=False
    )
    assert rows.chats.examples[0].messages[-1]["content"] == "4.0\n(no reasons)"


def test_contexts_for_several_requests_are_refused_or_left_out():
    long = " ".join(f"word{number}" for number in range(900))
    records = [{**ITEM, "passing": True}, {**ITEM, "contexts": [long, long], "passing": False}]
    dataset = JudgmentDataset.from_records(records)
    with pytest.raises(DatasetError, match="judgment 1: 2 requests are needed within a window"):
        judge_rows(dataset, FaithfulnessEvaluator, context_window=4096)
    rows = judge_rows(dataset, FaithfulnessEvaluator, context_window=4096, too_long="drop")
    assert rows.numbers == [0]
    assert [dropped.number for dropped in rows.left_out] == [1]
    assert judge_rows(dataset, FaithfulnessEvaluator, context_window=16384).numbers == [0, 1]
    with pytest.raises(DatasetError, match="all 1 verdicts are left out"):
        judge_rows(
            JudgmentDataset(dataset.judgments[1:]),
            FaithfulnessEvaluator,
            context_window=4096,
            too_long="drop",
        )


class Stars(BaseEvaluator):
    """An evaluator of the app's own: stars, from three on good."""

    def __init__(self, llm):
        self._llm = llm

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        reply = await self._llm.acomplete(f"Stars for {response}")
        stars = reply.text.count("*")
        return EvaluationResult(score=float(stars), passing=stars >= 3, feedback=reply.text)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass


def test_an_evaluator_of_ones_own_needs_its_answers_written():
    dataset = one(passing=True, score=4.0)
    with pytest.raises(TypeError, match="how Stars reads its LLM's answers is not known"):
        judge_rows(dataset, Stars)
    rows = judge_rows(dataset, Stars, answer=lambda judgment: "*" * int(judgment.score))
    asked, said = rows.chats.examples[0].messages
    assert (asked["content"], said["content"]) == ("Stars for 5 euros.", "****")
    with pytest.raises(DatasetError, match=r"its verdict is 1, and the answer '\*' is read as 0"):
        judge_rows(dataset, Stars, answer=lambda judgment: "*")
    with pytest.raises(DatasetError, match="answer must give a text, got None"):
        judge_rows(dataset, Stars, answer=lambda judgment: None)


@pytest.mark.parametrize(
    ("verdict", "form", "message"),
    [
        ({"passing": True}, CorrectnessEvaluator, "it has no score, and CorrectnessEvaluator"),
        (
            {"passing": True, "score": 3.0},
            CorrectnessEvaluator,
            r"its verdict is 1, and the answer '3.0\\n\(no reasons\)' is read as 0",
        ),
        (
            {"score": 0.75, "passing": True},
            AnswerRelevancyEvaluator,
            r"its score is 0.75, and the answer .*1.5' is read as 0.5",
        ),
        ({"passing": True, "contexts": []}, FaithfulnessEvaluator, "sample 0 has no contexts"),
        ({"passing": True, "contexts": [" "]}, FaithfulnessEvaluator, "asks nothing about it"),
        ({"passing": True, "query": None}, GuidelineEvaluator, "sample 0 has no query"),
        ({"passing": True}, PairwiseComparisonEvaluator, "sample 0 has no second_response"),
        (
            {"score": 0.3, "second_response": "x"},
            PairwiseComparisonEvaluator,
            "a pair's score must be 1, 0.5",
        ),
    ],
)
def test_a_verdict_that_the_evaluator_could_not_come_to_is_named(verdict, form, message):
    with pytest.raises(DatasetError, match=message):
        judge_rows(one(**verdict), form, passing_score=0.5)


def test_parsers_of_ones_own_are_asked_too():
    form = CorrectnessEvaluator(MockLLM(), parser_function=lambda reply: (1.0, reply))
    with pytest.raises(DatasetError, match=r"its verdict is 1, and the answer .* is read as 0"):
        judge_rows(one(score=5.0), form, passing_score=4)


@pytest.mark.parametrize(
    ("form", "options", "error", "message"),
    [
        ("faithfulness", {}, TypeError, "form must be an evaluator, or its class, .*got str"),
        (SemanticSimilarityEvaluator, {}, TypeError, "SemanticSimilarityEvaluator takes no llm"),
        (
            SemanticSimilarityEvaluator(TableEmbedding()),
            {},
            TypeError,
            "SemanticSimilarityEvaluator has none",
        ),
        (TunedJudge, {}, TypeError, "TunedJudge takes no llm"),
        (FaithfulnessEvaluator, {"too_long": "cut"}, ValueError, "unknown too_long 'cut'"),
        (FaithfulnessEvaluator, {"answer": "YES"}, TypeError, "answer must be a function"),
        (FaithfulnessEvaluator, {"reasons": "no"}, TypeError, "reasons must be True or False"),
        (FaithfulnessEvaluator, {"context_window": 0}, ValueError, "context_window must be"),
        (FaithfulnessEvaluator, {"dataset": []}, TypeError, "dataset must be a JudgmentDataset"),
    ],
)
def test_bad_arguments_are_named(form, options, error, message):
    given = {"dataset": one(passing=True), **options}
    with pytest.raises(error, match=message):
        judge_rows(given.pop("dataset"), form, **given)


def test_relevancies_need_a_line_to_pass():
    with pytest.raises(ValueError, match=r"gives scores and no passing: set JudgeOptions\(passing"):
        judge_rows(one(score=0.5, passing=True), AnswerRelevancyEvaluator)


def test_weights_cannot_be_learnt():
    dataset = JudgmentDataset.from_records(
        [{**ITEM, "passing": True}, {**ITEM, "passing": True, "weight": 2.0}]
    )
    with pytest.raises(DatasetError, match="judgment 1 has weight 2"):
        judge_rows(dataset, FaithfulnessEvaluator)


def test_nothing_is_learnt_from_what_the_teacher_gave_no_verdict_on():
    dataset = JudgmentDataset.from_records(
        [{**ITEM, "invalid": True, "source": "gpt"}, {**ITEM, "passing": False}]
    )
    rows = judge_rows(dataset, FaithfulnessEvaluator)
    assert rows.numbers == [1]
    assert rows.chats.examples[0].messages[-1]["content"] == "NO"
