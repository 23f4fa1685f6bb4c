import numpy as np
import pytest

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
