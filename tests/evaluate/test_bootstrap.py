import numpy as np
import pytest
from scipy.stats import binomtest

from llama_index.tuning.evaluate import paired_gain


def test_the_interval_covers_the_true_gain_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        base = rng.random(80)
        gain = paired_gain(base, base + rng.normal(0.05, 0.2, 80), confidence=0.9, seed=seed)
        covered += gain.low <= 0.05 <= gain.high
    assert 0.84 <= covered / 200 <= 0.95


def test_no_difference_is_a_point_and_a_seed_repeats():
    assert (paired_gain([0.5, 1], [0.5, 1]).low, paired_gain([0.5, 1], [0.5, 1]).high) == (0, 0)
    base, tuned = np.arange(30) / 30, np.arange(30)[::-1] / 30
    assert paired_gain(base, tuned, seed=1) == paired_gain(base, tuned, seed=1)


@pytest.mark.parametrize(("base", "tuned"), [([], []), ([1], [1, 2]), ([[1]], [[1]])])
def test_lists_that_do_not_pair_are_refused(base, tuned):
    with pytest.raises(ValueError, match="of equal length"):
        paired_gain(base, tuned)


@pytest.mark.parametrize(("won", "lost"), [(4, 0), (5, 0), (7, 1), (6, 1), (40, 25), (40, 28)])
def test_wins_and_losses_are_shown_exactly_where_the_sign_test_shows_them(won, lost):
    tuned = np.r_[np.ones(won), np.zeros(lost), np.zeros(30)]
    base = np.r_[np.zeros(won), np.ones(lost), np.zeros(30)]
    p_value = binomtest(won, won + lost, alternative="greater").pvalue
    assert (paired_gain(base, tuned).low > 0) == (p_value < 0.05)


def test_all_half_samples_of_few_queries_are_looked_at():
    gain = paired_gain([0, 0, 0], [1, 2, 4])
    assert (gain.low, gain.high, gain.n) == (1.0, 4.0, 3)


@pytest.mark.parametrize("n", [10, 20, 50])
def test_at_most_one_in_twenty_is_shown_by_chance(n):
    rng = np.random.default_rng(n)
    shown = 0
    for _ in range(300):
        base, tuned = rng.random((2, n)) < 0.8
        shown += paired_gain(base.astype(float), tuned.astype(float)).low > 0
    assert shown / 300 <= 0.05


def test_queries_of_a_group_are_taken_together():
    base, groups = np.zeros(60), np.repeat(np.arange(20), 3)
    tuned = np.repeat(np.random.default_rng(0).normal(0, 1, 20), 3)
    alone, together = paired_gain(base, tuned), paired_gain(base, tuned, groups=groups.tolist())
    assert together.n == 20
    assert together.high - together.low > 1.4 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="groups must name 60 queries, got 2"):
        paired_gain(base, tuned, groups=[1, 2])


def test_differences_that_cancel_show_nothing():
    base, tuned = np.zeros(12), np.tile([0.63, -0.63], 6)
    assert paired_gain(base, tuned).low < 0 < paired_gain(base, tuned).high
