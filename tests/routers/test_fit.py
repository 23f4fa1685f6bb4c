"""The convex fit and the cross-fitting around it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from llama_index.tuning.routers import RouterOptions, linear
from llama_index.tuning.routers.cross_fit import cross_fit
from llama_index.tuning.routers.data import RouterData
from llama_index.tuning.routers.fit import Setting, leaning
from llama_index.tuning.routers.linear import Rows, fit, prototypes
from tests.routers.conftest import NAMES, world


def rows_of(n=60, choices=4, dim=5, seed=0):
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = draw.integers(0, choices, n)
    return Rows(vectors, labels, draw.uniform(0.5, 2, n).astype(np.float32))


def router_data(noise=0.8, per_choice=12, names=NAMES, flip=0.0):
    dataset, model = world(noise=noise, per_choice=per_choice, names=names)
    vectors = np.array([model.table[query] for query in dataset.queries], np.float32)
    described = np.array([model.table[text] for text in dataset.choices.values()], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    described /= np.linalg.norm(described, axis=1, keepdims=True)
    found = RouterData.of(dataset, vectors, described)
    wrong = np.random.default_rng(1).permutation(len(dataset))[: round(flip * len(dataset))]
    labels = found.labels.copy()
    labels[wrong] = (labels[wrong] + 1) % len(names)
    pairs = zip(dataset.queries, [names[label] for label in labels], strict=True)
    data = type(dataset).from_pairs(pairs, choices=dataset.choices)
    return RouterData.of(data, vectors, described), wrong


@pytest.mark.parametrize("leant", [False, True])
def test_the_fit_is_the_minimum_of_the_loss_it_states(leant):
    rows, choices, tau = rows_of(), 4, 3.0
    centre = np.full((choices, 5), 0.7, np.float32) * np.eye(choices, 5) if leant else None
    similar = prototypes(rows, choices)
    inverse = np.linalg.inv(similar @ similar.T + np.eye(choices))

    def loss(point):
        weight, bias = point[:20].reshape(choices, 5), point[20:]
        logits = rows.vectors @ weight.T + bias
        right = logits[np.arange(len(rows)), rows.labels]
        off = weight if centre is None else weight - centre
        penalty = np.einsum("ij,ik,kj->", off, inverse, off) / (2 * tau)
        return float((rows.weights * (logsumexp(logits, axis=1) - right)).sum() + penalty)

    known = minimize(loss, np.zeros(24), method="L-BFGS-B", options={"maxfun": 100_000})
    found = fit(rows, choices, tau, centre=centre, tolerance=1e-9)
    assert loss(np.concatenate([found.weight.ravel(), found.bias])) == pytest.approx(
        known.fun, rel=1e-4
    )
    assert np.abs(found.weight - known.x[:20].reshape(choices, 5)).max() < 0.05


def test_a_fit_started_at_its_solution_stays_there():
    rows = rows_of()
    first = fit(rows, 4, 5.0, tolerance=1e-6)
    again = fit(rows, 4, 5.0, start=first, tolerance=1e-4)
    assert again.steps <= 4 < first.steps / 2
    assert np.abs(again.weight - first.weight).max() < 0.01


def test_a_large_fit_begun_on_a_sample_ends_at_the_same_solution(monkeypatch):
    rows = rows_of(n=2000)
    whole = fit(rows, 4, 5.0, tolerance=1e-8)
    sizes = []
    real = linear._Basis.of

    def counted(rows, *args):
        sizes.append(len(rows))
        return real(rows, *args)

    monkeypatch.setattr(linear._Basis, "of", counted)
    monkeypatch.setattr(linear, "SAMPLE_FROM", 2000 * 4)
    begun = fit(rows, 4, 5.0, tolerance=1e-8)
    assert sizes == [200, 2000]
    assert np.abs(begun.weight - whole.weight).max() < 0.02


def test_weights_lean_on_descriptions_only_where_there_are_any():
    described = np.eye(4, 6, dtype=np.float32)
    described[3] = 0
    leant = leaning(described, Setting(20.0, described=5.0))
    assert leant[3].tolist() == [0] * 6
    assert leant[0] @ described[0] > 0 > leant[0] @ described[1]
    assert leaning(described, Setting(20.0)) is None
    assert leaning(np.zeros_like(described), Setting(20.0, described=5.0)) is None


def test_doubting_finds_the_wrong_labels_and_is_chosen_where_it_helps():
    names = [f"choice {number}" for number in range(8)]
    data, wrong = router_data(noise=0.4, per_choice=40, names=names, flip=0.15)
    found = cross_fit(data, RouterOptions(words=False, tau=20.0))
    factors, share = found.trust()
    assert share == pytest.approx(0.15, abs=0.04)
    assert found.chosen.noise_robust
    assert np.median(factors[wrong]) < 0.2
    assert np.delete(factors, wrong).mean() > 0.95
    found.honest()
    hard, _ = router_data(noise=1.2, per_choice=6, names=names)
    found = cross_fit(hard, RouterOptions(words=False, tau=20.0))
    assert found.trust()[1] > 0.1  # labels look wrong, because the models are bad
    assert not found.chosen.noise_robust


def test_doubting_is_scored_by_models_that_saw_nothing_of_the_fold():
    # Labels drawn at random: noise_robust by the very labels it is scored on would seem to help.
    draw = np.random.default_rng(0)
    data, _ = router_data(per_choice=10, names=[f"choice {n}" for n in range(8)])
    names = list(data.dataset.choices)
    pairs = zip(data.dataset.queries, draw.choice(names, len(data.dataset)), strict=True)
    drawn = type(data.dataset).from_pairs(pairs, choices=data.dataset.choices)
    shuffled = RouterData.of(drawn, data.vectors, data.described)
    known = Setting(20.0, noise_robust=True)
    found = cross_fit(shuffled, RouterOptions(words=False), known=known)
    right = {
        setting.noise_robust: (logits.argmax(axis=1) == shuffled.labels).mean()
        for setting, logits in found.logits.items()
    }
    assert right[True] < 1 / 8 + 0.1
    assert right[True] <= right[False] + 0.05


def test_a_known_setting_is_kept_and_nothing_else_is_tried():
    data, _ = router_data()
    known = Setting(7.0, described=5.0)
    found = cross_fit(data, RouterOptions(), known=known)
    assert found.chosen == known
    assert set(found.logits) == {known}
    assert set(
        cross_fit(data, RouterOptions(), known=replace(known, noise_robust=True)).logits
    ) == {
        known,
        replace(known, noise_robust=True),
    }
