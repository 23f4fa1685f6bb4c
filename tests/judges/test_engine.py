import asyncio
from dataclasses import replace

import numpy as np
import pytest
from llama_index.core.base.response.schema import Response
from llama_index.core.evaluation import BaseEvaluator, BatchEvalRunner, EvaluationResult
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import JudgeFinetuneEngine, TunedJudge, get_engine
from llama_index.tuning.errors import ArtifactError, JudgeRefusedError, NotFinetunedError
from llama_index.tuning.judges import JudgeOptions, JudgeReport
from tests.conftest import TableEmbedding
from tests.judges.conftest import data, pairs, verdicts


class Teacher(BaseEvaluator):
    def __init__(self, fails=False):
        self.asked, self.fails = [], fails

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        self.asked.append((query, kwargs))
        if self.fails:
            raise RuntimeError("no more credit")
        return EvaluationResult(query=query, passing=True, score=1.0, feedback="asked the teacher")

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass


def test_it_learns_what_length_cannot_tell(engine):
    report = engine.report
    assert report.gains["balanced accuracy"].tuned > 0.95
    assert report.shortcuts["length only"]["balanced accuracy"] < 0.8
    assert report.shortcuts["most frequent verdict"]["accuracy"] == 0.5
    assert report.summary["auroc"] > 0.95
    assert len(report.deferral) == 10


def test_nothing_is_learnt_from_random_verdicts():
    rows = verdicts(120)
    labels = np.random.default_rng(1).integers(0, 2, 120)
    for row, label in zip(rows, labels, strict=True):
        row["passing"] = bool(label)
    engine = JudgeFinetuneEngine(data(rows))
    report = engine.finetune()
    assert not report.accepted
    assert "base: the shortcut" in report.reason
    with pytest.raises(JudgeRefusedError, match=r"the judge is refused: .*no defer_to"):
        engine.get_finetuned_model()
    teacher = Teacher()
    assert engine.get_finetuned_model(defer_to=teacher) is teacher


def test_a_refused_judge_lies_beside_the_note_that_the_base_is_kept(tmp_path):
    rows = verdicts(40)
    for number, row in enumerate(rows):
        row["passing"] = number % 4 < 2
    engine = JudgeFinetuneEngine(data(rows), model_output_path=tmp_path / "judge")
    assert not engine.finetune().accepted
    with pytest.raises(ArtifactError, match="is kept"):
        TunedJudge.load(tmp_path / "judge")
    assert TunedJudge.load(tmp_path / "judge" / "candidate").model.details["accepted"] is False


def test_validation_verdicts_are_measured_apart():
    engine = JudgeFinetuneEngine(data(verdicts()), val_dataset=data(verdicts(30, seed=9)))
    report = engine.finetune()
    assert report.method == "validation verdicts"
    assert report.data["measured"] == 30
    assert report.gains["accuracy"].tuned > 0.9


def test_the_report_survives_json(tmp_path, pair_engine):
    report = pair_engine.report
    report.save_json(tmp_path / "report.json")
    assert JudgeReport.from_json(tmp_path / "report.json") == report
    assert "most frequent verdict" in str(report)


def test_people_are_the_truth_where_there_are(engine):
    teacher = verdicts(60, seed=2)
    people = [{**row, "source": "human"} for row in teacher]
    for row in people[:12]:
        row["passing"] = not row["passing"]
    report = JudgeFinetuneEngine(
        data(verdicts()), val_dataset=data(teacher + people), accept="always"
    ).finetune()
    assert report.data["by_people"]
    assert report.summary["teacher_agreement"] == pytest.approx(48 / 60)
    assert report.slices["the teacher's verdicts"]["accuracy"].tuned > 0.9
    assert report.gains["accuracy"].tuned == pytest.approx(0.8, abs=0.05)
    assert report.deferral[-1].accuracy == pytest.approx(48 / 60)


def silenced(rows, numbers):
    """The rows, some of which the teacher gave no verdict on."""
    return [
        {**row, "passing": None, "invalid": True} if number in numbers else row
        for number, row in enumerate(rows)
    ]


def test_unreadable_verdicts_of_the_teacher_count_as_wrong():
    teacher = verdicts(60, seed=2)
    people = [{**row, "source": "human"} for row in teacher]
    val = silenced(teacher, range(12)) + people
    engine = JudgeFinetuneEngine(data(verdicts()), val_dataset=data(val), accept="always")
    report = engine.finetune()
    assert report.summary["teacher_agreement"] == pytest.approx(48 / 60)
    assert "on 12 of 60 items the teacher gave no verdict: there it counts as wrong" in report.notes
    assert report.deferral[-1].accuracy == pytest.approx(48 / 60)  # all handed to the teacher
    assert report.gains["accuracy"].n == 60
    assert report.data["measured"] == 60
    left_out = data([*teacher[12:], *people])
    without = JudgeFinetuneEngine(data(verdicts()), val_dataset=left_out, accept="always")
    assert without.finetune().summary["teacher_agreement"] == 1


def test_judge_shortcut_and_teacher_are_compared_on_the_same_items():
    teacher = silenced(verdicts(60, seed=2)[:40], range(4))
    people = [{**row, "source": "human"} for row in verdicts(60, seed=2)]
    for row in people[40:]:  # where the teacher was not asked, people say the opposite
        row["passing"] = not row["passing"]
    report = JudgeFinetuneEngine(
        data(verdicts()), val_dataset=data(teacher + people), accept="always"
    ).finetune()
    same = report.slices["people's verdicts where the teacher was asked"]
    assert same["accuracy"].n == 40
    assert same["accuracy"].tuned > 0.95
    assert report.summary["teacher_agreement"] == pytest.approx(36 / 40)
    assert report.gains["accuracy"].tuned < 0.75


def test_nothing_is_learnt_from_what_has_no_verdict(engine):
    others = silenced(verdicts(20, seed=6), range(20))
    options = JudgeOptions(folds=3)
    again = JudgeFinetuneEngine(data(verdicts() + others), options=options, accept="always")
    again.finetune()
    asked = data(verdicts(10, seed=4))
    first, second = (e.get_finetuned_model().probabilities(asked) for e in (engine, again))
    assert (first == second).all()


def test_several_people_on_an_item_are_compared():
    rows = [{**row, "source": "human"} for row in verdicts(30)]
    twice = rows + [{**row, "passing": not row["passing"]} for row in rows[:15]] + rows[15:]
    report = JudgeFinetuneEngine(data(twice), accept="always").finetune()
    assert report.summary["people_agreement"] == pytest.approx(0.5)
    assert report.gains["accuracy"].n == 30


def test_scores_pass_from_a_given_score():
    rows = [{**row, "score": 5.0 if row["passing"] else 2.0} for row in verdicts()]
    for row in rows:
        del row["passing"]
    options = JudgeOptions(passing_score=4)
    assert JudgeFinetuneEngine(data(rows), options=options).finetune().gains["accuracy"].tuned > 0.9


def test_the_same_seed_gives_the_same_judge(engine):
    again = JudgeFinetuneEngine(data(verdicts()), options=JudgeOptions(folds=3), accept="always")
    again.finetune()
    asked = data(verdicts(10, seed=4))
    first, second = (e.get_finetuned_model().probabilities(asked) for e in (engine, again))
    assert (first == second).all()


def test_texts_are_embedded_once():
    model = TableEmbedding()
    JudgeFinetuneEngine(data(verdicts()), model, accept="always").finetune()
    texts = [text for call in model.calls if len(call) > 1 for text in call]
    assert len(texts) == len(set(texts))


def test_a_context_that_comes_again_is_not_embedded_again():
    model = TableEmbedding()
    engine = JudgeFinetuneEngine(data(verdicts()), model, accept="always")
    engine.finetune()
    judge = engine.get_finetuned_model()
    model.calls.clear()
    contexts = ["The harbour is velvet.", "Its code is copper 7. It was set in spring."]
    for response in ("It is velvet.", "It is amber.", "Copper 7, I think."):
        judge.evaluate("What is the harbour?", response, contexts)
    asked = [text for call in model.calls for text in call]
    assert len(asked) == len(set(asked)) == 1 + 3 + 3  # query, sentences, responses


def test_it_drops_into_the_batch_runner(judge):
    rows = verdicts(20, seed=7)
    found = asyncio.run(
        BatchEvalRunner({"judge": judge}, workers=4).aevaluate_response_strs(
            queries=[r["query"] for r in rows],
            response_strs=[r["response"] for r in rows],
            contexts_list=[r["contexts"] for r in rows],
        )
    )["judge"]
    assert np.mean([f.passing == r["passing"] for f, r in zip(found, rows, strict=True)]) > 0.9
    assert [f.score for f in found] == pytest.approx(judge.probabilities(data(rows)).tolist())


def test_a_pair_drops_into_the_batch_runner(pair_judge):
    rows = pairs(20, seed=7)
    found = asyncio.run(
        BatchEvalRunner({"judge": pair_judge}).aevaluate_response_strs(
            queries=[r["query"] for r in rows],
            response_strs=[r["response"] for r in rows],
            second_response=[r["second_response"] for r in rows],
        )
    )["judge"]
    assert np.mean([f.score == r["score"] for f, r in zip(found, rows, strict=True)]) > 0.9


def test_a_tie_neither_passes_nor_fails(pair_judge):
    found = pair_judge.evaluate("What?", "The same.", second_response="The same.")
    assert (found.score, found.passing) == (0.5, None)
    assert "tie" in found.feedback


def test_a_response_with_its_nodes_is_judged(judge):
    nodes = [NodeWithScore(node=TextNode(text="Code 7 is amber 107."))]
    response = Response(response="Code 7 is amber 107. Elephants invented it.", source_nodes=nodes)
    found = judge.evaluate_response("What is code 7?", response)
    assert "Elephants invented it." in found.feedback
    assert "Code 7 is amber 107" not in found.feedback.split("supported")[1]
    assert f"{found.score:.2f}" in found.feedback


def test_uncertain_answers_go_to_the_teacher(engine):
    teacher = Teacher()
    base = engine.get_finetuned_model(defer_to=teacher).model
    rows = verdicts(60)
    certain = base.rule.certainties(TunedJudge(base).probabilities(data(rows)))
    known = np.sort(certain)
    gap = int(
        np.diff(known).argmax()
    )  # an answer judged alone is rounded otherwise than in a batch
    margin = float(known[gap : gap + 2].mean())
    judge = TunedJudge(replace(base, rule=replace(base.rule, margin=margin)), defer_to=teacher)
    found = [judge.evaluate(r["query"], r["response"], r["contexts"], note=1) for r in rows]
    handed = [f.feedback == "asked the teacher" for f in found]
    assert handed == (certain < margin).tolist()
    assert teacher.asked[0][1] == {"note": 1}
    assert len(teacher.asked) == sum(handed) > 0


def test_a_failing_teacher_leaves_the_judges_verdict(engine, caplog):
    base = engine.get_finetuned_model().model
    unsure = replace(base, rule=replace(base.rule, margin=100.0))
    judge = TunedJudge(unsure, defer_to=Teacher(fails=True))
    row = verdicts(2)[1]
    found = judge.evaluate(row["query"], row["response"], row["contexts"])
    assert found.passing is True
    assert "no more credit" in found.feedback
    assert "no more credit" in caplog.text


def test_judging_does_not_block_the_loop(judge, monkeypatch):
    import time

    plain = judge._judge

    def slow(item):
        time.sleep(0.2)
        return plain(item)

    monkeypatch.setattr(judge, "_judge", slow)
    row = verdicts(1)[0]

    async def ticks():
        task = asyncio.ensure_future(
            judge.aevaluate(row["query"], row["response"], row["contexts"])
        )
        count = 0
        while not task.done():
            await asyncio.sleep(0.01)
            count += 1
        return count

    assert asyncio.run(ticks()) >= 5


def test_another_threshold_moves_the_line(engine):
    row = verdicts(2)[1]
    lenient, strict = (engine.get_finetuned_model(threshold=t) for t in (0.0, 1.0))
    arguments = row["query"], row["response"], row["contexts"]
    assert lenient.evaluate(*arguments).passing
    assert not strict.evaluate(*arguments).passing


def test_a_model_before_finetune_is_refused():
    with pytest.raises(NotFinetunedError, match=r"call finetune\(\)"):
        JudgeFinetuneEngine(data(verdicts())).get_finetuned_model()


def test_it_is_registered():
    assert get_engine("judge") is JudgeFinetuneEngine
