"""Probabilities and thresholds on scores whose truth is known."""

import numpy as np
import pytest

from llama_index.tuning.rerankers.light.features import LinearRanker, sigmoid
from llama_index.tuning.rerankers.light.fit import calibrate, precision_curve, ratio_error


def scored(n, seed, slope=2.0):
    """Lists whose candidates are relevant by a logistic function of their score."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 10))
    return [(s, (rng.random(10) < sigmoid(slope * s - 2)).astype(float)) for s in scores]


def flat(ranker, lists):
    chances = np.concatenate([ranker.probabilities(s) for s, _ in lists])
    owner = np.repeat(np.arange(len(lists)), [len(s) for s, _ in lists])
    return chances, np.concatenate([y for _, y in lists]), owner


def test_probabilities_are_right_on_other_lists():
    ranker = calibrate(LinearRanker.fixed("x"), scored(400, 0))
    chances, right, _ = flat(ranker, scored(4_000, 1))
    bins = np.minimum((chances * 10).astype(int), 9)
    for number in range(10):
        inside = bins == number
        assert abs(chances[inside].mean() - right[inside].mean()) < 0.05


@pytest.mark.parametrize("wanted", [0.6, 0.7, 0.8])
def test_the_wanted_precision_holds_on_other_lists(wanted):
    plain, sure = [], []
    for seed in range(20):
        ranker = calibrate(LinearRanker.fixed("x"), scored(150, seed))
        chances, right, _ = flat(ranker, scored(1_000, 100 + seed))
        plain.append(right[chances >= ranker.min_score_for(wanted, confidence=0.5)].mean())
        sure.append(right[chances >= ranker.min_score_for(wanted, confidence=0.8)].mean())
    assert abs(np.mean(plain) - wanted) < 0.03
    assert np.mean(np.array(sure) >= wanted) >= 0.8


def test_the_error_of_a_precision_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(100), 3)

    def draw():  # the three candidates of a query stand or fall together
        return np.repeat(rng.random(100) < 0.7, 3).astype(float)

    spread = np.std([draw().mean() for _ in range(2_000)])
    assert ratio_error(draw(), owner) == pytest.approx(spread, rel=0.15)
    assert ratio_error(np.ones(50), np.arange(50)) > 0.01


def test_a_curve_of_few_candidates_has_one_point():
    thresholds, precisions, errors = precision_curve(
        np.array([0.9, 0.1]), np.array([1.0, 0.0]), np.array([0, 1])
    )
    assert thresholds.tolist() == pytest.approx([0.1])
    assert precisions.tolist() == [0.5]
    assert errors[0] > 0.2


def graded(n, seed, highest=1.0):
    """Lists whose candidates have a logistic function of their score as their grade, and noise."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 10))
    share = sigmoid(2 * scores - 2 + 0.5 * rng.normal(size=scores.shape))
    return [(s, highest * y) for s, y in zip(scores, share, strict=True)]


@pytest.mark.parametrize("highest", [1.0, 3.0, 17.5])
def test_graded_relevance_is_learnt_as_a_share_of_the_highest_grade(highest):
    lists = graded(400, 0, highest)
    ranker = calibrate(LinearRanker.fixed("x"), lists, highest=highest)
    shares, grades, _ = flat(ranker, graded(400, 1))
    assert np.sqrt(np.mean((shares - grades) ** 2)) < 0.1
    limit = ranker.min_score_for(0.5)
    assert grades[shares >= limit].mean() >= 0.5


def test_shares_of_a_dataset_whose_best_is_elsewhere_stay_low():
    ranker = calibrate(LinearRanker.fixed("x"), graded(400, 0), highest=4.0)
    shares, grades, _ = flat(ranker, graded(400, 1))
    assert abs(shares.mean() - grades.mean() / 4) < 0.02


def test_zeros_and_ones_are_calibrated_as_ever():
    lists = scored(50, 0)
    doubled = [(s, 2 * y) for s, y in lists]
    one = calibrate(LinearRanker.fixed("x"), lists)
    two = calibrate(LinearRanker.fixed("x"), doubled, highest=2.0)
    for name, array in one.tensors().items():
        np.testing.assert_array_equal(array, two.tensors()[name])


def test_the_error_of_a_mean_of_shares_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)
    for owner in (np.arange(300), np.repeat(np.arange(100), 3)):
        size = owner[-1] + 1

        def draw(owner=owner, size=size):
            return np.repeat(rng.beta(2, 3, size), len(owner) // size)

        spread = np.std([draw().mean() for _ in range(2_000)])
        assert ratio_error(draw(), owner) == pytest.approx(spread, rel=0.15)
    whole = (rng.random(300) < 0.4).astype(float)
    share = (whole.sum() + 1) / 302
    assert ratio_error(whole, np.arange(300)) >= np.sqrt(share * (1 - share) / 300)
