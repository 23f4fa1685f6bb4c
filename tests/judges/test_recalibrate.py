from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from llama_index.tuning import JudgeFinetuneEngine, TunedJudge, recalibrate_judge
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.evaluate.routing import calibration_error
from llama_index.tuning.judges import JudgeOptions
from llama_index.tuning.judges.pass_rates.recalibrate import fit_scale
from tests.judges.conftest import data, pairs, verdicts


def hedged(count, rate, seed):
    """Answers of which `rate` pass; those that hedge pass in one of five, others in four."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, place in enumerate(rng.permutation(count)):
        passing = bool(place < rate * count)
        hedge = rng.random() < (0.2 if passing else 0.8)
        rows.append(
            {
                "query": f"What is fee {number} of list {seed}?",
                "response": "I cannot say." if hedge else f"It is {100 + number} euros a month.",
                "passing": passing,
            }
        )
    return data(rows)


@pytest.fixture(scope="module")
def learned():
    engine = JudgeFinetuneEngine(
        hedged(300, 0.5, seed=0), options=JudgeOptions(folds=3), accept="always"
    )
    engine.finetune()
    return engine.get_finetuned_model()


def labels_of(dataset):
    return np.array([item.passing for item in dataset.judgments], dtype=float)


@pytest.mark.parametrize("method", ["platt", "prior"])
def test_200_answers_put_a_shifted_pass_rate_right(learned, method):
    new = recalibrate_judge(learned, hedged(200, 0.85, seed=1), method=method)
    others = hedged(600, 0.85, seed=2)
    before, after = (
        calibration_error(judge.probabilities(others), labels_of(others))
        for judge in (learned, new)
    )
    assert before > 0.15
    assert after < 0.05


def test_no_verdict_changes_and_as_many_are_handed_over(learned):
    rule = replace(learned.model.rule, margin=0.31)
    judge = learned.with_rule(rule)
    known, others = hedged(200, 0.85, seed=1), hedged(400, 0.85, seed=2)
    new = recalibrate_judge(judge, known)
    old_chances, chances = judge.probabilities(others), new.probabilities(others)
    assert np.abs(chances - old_chances).max() > 0.1
    assert (new.model.rule.verdicts(chances) == rule.verdicts(old_chances)).all()
    shares = [
        (j.model.rule.certainties(j.probabilities(known)) < j.model.rule.margin).mean()
        for j in (judge, new)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.5 if len(set(chances)) < 50 else 0.02)
    assert judge.model.rule is rule  # left as it was


def test_a_recalibrated_judge_is_saved_and_evaluates(learned, tmp_path):
    others = hedged(200, 0.85, seed=1)
    new = recalibrate_judge(learned, others)
    new.save(tmp_path / "judge")
    loaded = TunedJudge.load(tmp_path / "judge")
    assert (loaded.probabilities(others) == new.probabilities(others)).all()
    item = others.judgments[0]
    assert new.evaluate(item.query, item.response).score == new.probabilities([item])[0]


def test_slope_and_shift_are_those_of_a_logistic_regression():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=4000) * 2
    labels = (rng.random(4000) < expit(0.5 * logits + 1)).astype(float)
    slope, offset = fit_scale(expit(logits), labels, np.ones(4000), "platt")
    model = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
    assert slope == pytest.approx(model.coef_[0, 0], abs=0.01)
    assert offset == pytest.approx(model.intercept_[0], abs=0.01)


def test_the_prior_alone_meets_the_labels_mean():
    rng = np.random.default_rng(0)
    chances, labels = rng.random(500), (rng.random(500) < 0.9).astype(float)
    slope, offset = fit_scale(chances, labels, np.ones(500), "prior")
    assert slope == 1
    assert expit(logit(chances) + offset).mean() == pytest.approx(labels.mean(), abs=1e-4)


def test_weights_count():
    chances, labels = np.full(100, 0.5), np.tile([1.0, 0.0], 50)
    weights = np.where(labels == 1, 3.0, 1.0)
    _, offset = fit_scale(chances, labels, weights, "prior")
    assert expit(offset) == pytest.approx(0.75, abs=1e-3)


def test_perfect_separation_does_not_make_it_infinitely_sure():
    chances, labels = np.repeat([0.1, 0.9], 50), np.repeat([0.0, 1.0], 50)
    slope, _ = fit_scale(chances, labels, np.ones(100), "platt")
    assert 1 < slope < 10


def test_pairs_keep_their_symmetry(pair_judge):
    new = recalibrate_judge(pair_judge, data(pairs(60, seed=5)))
    asked = pairs(20, seed=8)
    turned = [
        {**r, "response": r["second_response"], "second_response": r["response"]} for r in asked
    ]
    chances, other = new.probabilities(data(asked)), new.probabilities(data(turned))
    assert chances == pytest.approx(1 - other)
    old = pair_judge.probabilities(data(asked))
    lines = (new.model.rule, pair_judge.model.rule)
    assert (lines[0].verdicts(chances) == lines[1].verdicts(old)).all()
    with pytest.raises(ValueError, match='method="prior" is for single responses'):
        recalibrate_judge(pair_judge, data(pairs(60, seed=5)), method="prior")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (verdicts(49, seed=5), "labelled must hold at least 50 verdicts, got 49"),
        (verdicts(60, seed=5, passing=True), "labelled must hold at least 5 fails, got 0 of 60"),
        (verdicts(60), "60 of 60 labelled items were used to train the judge"),
        (pairs(60, seed=5), "labelled must hold verdicts on single responses"),
        (verdicts(60, seed=5, contexts=None), "judgment 0: there are no contexts"),
        ([], "labelled is empty"),
    ],
)
def test_labels_that_cannot_recalibrate(judge, rows, message):
    with pytest.raises(DatasetError, match=message):
        recalibrate_judge(judge, data(rows))


def test_an_unknown_method(judge):
    with pytest.raises(ValueError, match="unknown method 'em'; choose one of: platt, prior"):
        recalibrate_judge(judge, data(verdicts(60, seed=5)), method="em")
