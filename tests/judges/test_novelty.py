import numpy as np
import pytest
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult

from llama_index.tuning import JudgeFinetuneEngine, TunedJudge
from llama_index.tuning.judges import JudgeOptions
from llama_index.tuning.judges.light.model import novelty_of
from llama_index.tuning.judges.records import Rows
from tests.judges.conftest import data, pairs, verdicts

ESSAY = "Whereas the undersigned, on 3 May 1999, at 17 o'clock, ROSE AND SPOKE?\n" * 40


class Says(BaseEvaluator):
    """A teacher that passes everything, and counts."""

    def __init__(self, error=None):
        self.calls, self.error = 0, error

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        self.calls += 1
        if self.error:
            raise self.error
        return EvaluationResult(passing=True, score=1.0)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass


@pytest.fixture(scope="module")
def learned():
    rows = data(verdicts(160))
    engine = JudgeFinetuneEngine(rows, options=JudgeOptions(folds=3), accept="always")
    engine.finetune()
    return engine.get_finetuned_model()


def asked(row):
    return row["query"], row["response"], row["contexts"]


def test_an_answer_unlike_all_that_was_learnt_is_not_judged(learned):
    row = verdicts(1)[0]
    result = learned.evaluate(row["query"], ESSAY, row["contexts"])
    assert result.invalid_result
    assert (result.score, result.passing) == (None, None)
    assert "unlike all that this judge learned from" in result.invalid_reason
    others = TunedJudge(learned.model, refuse_unfamiliar=False)
    assert not others.evaluate(row["query"], ESSAY, row["contexts"]).invalid_result
    # Whoever asks for probabilities gets one for each item.
    assert learned.probabilities(data([{**row, "response": ESSAY}])).shape == (1,)


def test_answers_like_those_learnt_are_judged(learned, tmp_path):
    rows = verdicts(300, seed=5)
    refused = sum(bool(learned.evaluate(*asked(row)).invalid_result) for row in rows)
    assert refused <= 3
    learned.save(tmp_path / "judge")
    loaded = TunedJudge.load(tmp_path / "judge")
    bold = TunedJudge.load(tmp_path / "judge", threshold=0.25, refuse_unfamiliar=False)
    assert (bold.threshold, bold.refuse_unfamiliar) == (0.25, False)
    assert loaded.model.novelty.limit == learned.model.novelty.limit
    for row in (rows[0], {**rows[0], "response": ESSAY}):
        given = [judge.evaluate(*asked(row)) for judge in (learned, loaded)]
        assert given[0] == given[1]


def test_the_teacher_is_asked_instead_and_where_it_fails_nothing_is_guessed(learned):
    row = verdicts(1)[0]
    teacher = Says()
    judge = TunedJudge(learned.model, defer_to=teacher)
    assert judge.evaluate(row["query"], ESSAY, row["contexts"]).passing
    assert teacher.calls == 1
    broken = TunedJudge(learned.model, defer_to=Says(RuntimeError("no connection")))
    result = broken.evaluate(row["query"], ESSAY, row["contexts"])
    assert result.invalid_result
    assert "no connection" in result.feedback


def test_distances_are_those_of_mahalanobis_and_new_rows_of_the_same_kind_are_within():
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((4, 4))
    table = np.c_[rng.standard_normal((900, 4)) @ turn, np.ones(900)]
    rows = Rows(table, np.ones(900), np.ones(900), np.arange(900) % 5, False)
    found = novelty_of(rows, lambda: table)
    centred = table[:, :4] - table[:, :4].mean(axis=0)
    exact = np.sqrt(np.einsum("ij,jk,ik->i", centred, np.linalg.inv(np.cov(centred.T)), centred))
    assert np.corrcoef(found.distances(table), exact)[0, 1] > 0.99
    new = np.c_[rng.standard_normal((2000, 4)) @ turn, np.ones(2000)]
    assert (found.distances(new) > found.limit).mean() < 0.005
    assert (found.distances(new + np.array([20, 20, 20, 20, 0])) > found.limit).all()
    assert (found.distances(new + np.array([0, 0, 0, 0, 9])) > found.limit).mean() < 0.005


def test_a_new_number_in_questions_that_are_all_worded_alike_is_nothing_unfamiliar():
    """Each training question is its template and a number that its own contexts hold as well."""

    def rows(first, count):
        prices = np.random.default_rng(first).integers(100, 999, (count, 2))
        return [
            {
                "query": f"What does plan {first + n} cost?",
                "contexts": [f"Plan {first + n}: {price} euros a year.", "Refunds take a week."],
                "response": f"It costs {price if n % 2 else other} euros.",
                "passing": bool(n % 2),
            }
            for n, (price, other) in enumerate(prices.tolist())
        ]

    engine = JudgeFinetuneEngine(data(rows(0, 120)), accept="always")
    engine.finetune()
    judge = engine.get_finetuned_model()
    for row in [*rows(500, 10), *rows(0, 10)]:  # new plans and old ones
        result = judge.evaluate(*asked(row))
        assert result.passing == row["passing"], result.feedback
    assert judge.evaluate(row["query"], ESSAY, row["contexts"]).invalid_result


def test_pairs_and_small_sets_refuse_nothing():
    for rows in (pairs(160), verdicts(60)):
        engine = JudgeFinetuneEngine(data(rows), options=JudgeOptions(folds=3), accept="always")
        engine.finetune()
        assert engine.get_finetuned_model().model.novelty is None
