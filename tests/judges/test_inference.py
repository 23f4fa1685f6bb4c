import sys
import warnings

import numpy as np
import pytest
from ppi_py import classical_mean_ci, ppi_mean_ci
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from llama_index.tuning.judges.pass_rates import intervals as inference
from llama_index.tuning.judges.pass_rates.intervals import (
    mean_interval,
    powered_mean,
    wilson_interval,
)


def sample(n, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    labels = (score + noise * rng.normal(size=n) > -0.5).astype(float)
    return labels, norm.cdf(score + 0.5)


def test_independent_items_give_the_librarys_estimate_and_error():
    labels, predicted = sample(80)
    _, others = sample(900, seed=1)
    found = powered_mean(labels, predicted, others)
    low, high = ppi_mean_ci(labels, predicted, others, alpha=0.05)
    assert found.value == pytest.approx((low + high)[0] / 2, abs=1e-12)
    error = (high - low)[0] / 2 / norm.ppf(0.975)
    assert found.error == pytest.approx(error * np.sqrt(80 / 78), rel=1e-9)
    low, high = classical_mean_ci(labels, alpha=0.05)
    assert found.classical_error == pytest.approx(
        (high - low) / 2 / norm.ppf(0.975) * np.sqrt(80 / 79), rel=1e-9
    )
    assert found.powered
    assert found.gain > 1.3


def test_predictions_that_say_nothing_leave_the_labels_alone():
    labels, predicted = sample(60)
    against = powered_mean(labels, 1 - predicted, 1 - sample(500, 1)[1])
    constant = powered_mean(labels, np.full(60, 0.7), np.full(500, 0.7))
    for found in (against, constant):
        assert (found.powered, found.gain) == (False, 1.0)
        assert (found.value, found.error) == (found.classical, found.classical_error)
    assert against.correlation < 0
    assert constant.correlation == 0


def test_copies_of_an_item_in_one_cluster_add_nothing():
    labels, predicted = sample(60)
    _, others = sample(500, seed=1)
    once = powered_mean(labels, predicted, others)
    groups = np.repeat(np.arange(60), 3)
    thrice = powered_mean(
        labels.repeat(3), predicted.repeat(3), others.repeat(2), groups, np.arange(500).repeat(2)
    )
    assert thrice.clusters == 60
    assert thrice.value == pytest.approx(once.value)
    assert thrice.error == pytest.approx(once.error)
    naive = powered_mean(labels.repeat(3), predicted.repeat(3), others)
    assert naive.error < 0.8 * once.error


def test_clusters_of_unequal_size_keep_the_items_mean_and_a_ratios_error():
    rng = np.random.default_rng(0)
    errors, values = [], []
    for _ in range(300):
        sizes = rng.integers(1, 6, size=50)
        level = rng.random(50)
        groups = np.repeat(np.arange(50), sizes)
        labels = (rng.random(len(groups)) < level[groups]).astype(float)
        found = powered_mean(labels, np.full(len(groups), 0.5), np.full(9, 0.5), groups)
        assert found.classical == pytest.approx(labels.mean())
        errors.append(found.classical_error)
        values.append(found.classical)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_wilson_is_statsmodels_and_stays_within_bounds():
    assert wilson_interval(0.4, 50) == pytest.approx(proportion_confint(20, 50, method="wilson"))
    assert wilson_interval(1.2, 33.3)[1] == 1.0
    assert wilson_interval(-0.1, 33.3)[0] == 0.0
    assert wilson_interval(0.4, 50, 0.8)[1] < wilson_interval(0.4, 50)[1]


def test_the_interval_of_a_difference_is_students():
    labels, predicted = sample(30)
    found = powered_mean(labels, predicted, sample(500, 1)[1])
    low, high = mean_interval(found)
    assert (high - low) / 2 / found.error == pytest.approx(2.045, abs=0.001)  # t, 29 degrees


def test_the_library_does_not_switch_the_users_warnings_off(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("ppi_py")]:
        monkeypatch.delitem(sys.modules, name)
    before = list(warnings.filters)
    inference._library()
    assert warnings.filters == before
