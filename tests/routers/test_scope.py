"""The scope threshold's promise, an app's own queries, and labels without signal."""

from dataclasses import replace

import numpy as np
import pytest

from llama_index.tuning import RouterFinetuneEngine, RoutingDataset, TunedSelector
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.routers import RouterOptions
from llama_index.tuning.routers.calibrate import scope_threshold
from llama_index.tuning.routers.data import RouterData, twin_groups
from llama_index.tuning.routers.serving import selector as selectors
from llama_index.tuning.routers.serving.model import ScopeScores
from llama_index.tuning.routers.serving.recalibrate import fit_scope
from tests.conftest import TableEmbedding
from tests.routers.conftest import NAMES, world

STEPS = (np.arange(101) + 0.5) / 101


def reference(seed=0):
    inside = np.random.default_rng(seed).normal(8, 2, 5000)
    outside = np.random.default_rng(seed + 1).normal(2, 1, 5000)
    return ScopeScores(
        tuple(np.quantile(inside, STEPS)), tuple(np.quantile(outside, STEPS)), recall=0.95
    )


THRESHOLD = 8 - 1.645 * 2


def traffic(inside, outside, shift=0.0, seed=3):
    rng = np.random.default_rng(seed)
    return np.r_[rng.normal(8 - shift, 2, inside), rng.normal(2, 1, outside)]


def test_at_least_the_promised_share_reaches_the_threshold():
    scores = np.random.default_rng(0).normal(size=101).astype(np.float32)
    assert (scores >= scope_threshold(scores, 0.95)).mean() >= 0.95


def test_the_nearest_two_of_a_choice_stay_together():
    queries = [f"q{number}" for number in range(6)]
    dataset = RoutingDataset.from_pairs([*((q, "a") for q in queries), ("z", "b")])
    angles = np.array([0.0, 0.01, 1.0, 1.5, 1.52, 3.0, 0.005])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    data = RouterData.of(dataset, vectors, np.zeros((2, 2), np.float32))
    assert sorted(map(sorted, twin_groups(data))) == [[0, 1], [2], [3, 4], [5], [6]]


def test_queries_like_those_in_training_leave_the_threshold_about_where_it_is():
    found = fit_scope(traffic(1000, 0), reference(), THRESHOLD)
    assert found.threshold == pytest.approx(THRESHOLD, abs=0.5)
    assert not found.unlike_training
    assert found.kept_interval[0] <= 0.95 <= found.kept_interval[1]


def test_two_kinds_are_told_apart_without_labels_if_they_lie_apart():
    found = fit_scope(traffic(700, 300), reference(), THRESHOLD)
    assert found.in_scope == pytest.approx(0.7, abs=0.05)
    assert found.threshold == pytest.approx(THRESHOLD, abs=0.6)
    assert found.unlike_training
    assert "a few labels (in_scope=) would tell which" in str(found)


def test_labels_tell_how_far_the_apps_own_queries_have_moved():
    scores = traffic(200, 100, shift=1.5)
    labels = [*[True] * 60, *[None] * 140, *[False] * 30, *[None] * 70]
    found = fit_scope(scores, reference(), THRESHOLD, labels)
    kept = (traffic(20_000, 0, shift=1.5, seed=9) >= found.threshold).mean()
    before = (traffic(20_000, 0, shift=1.5, seed=9) >= THRESHOLD).mean()
    assert kept == pytest.approx(0.95, abs=0.03)
    assert found.kept_interval[0] <= before <= found.kept_interval[1]
    assert found.unlike_training
    assert (found.labelled, found.in_scope) == (90, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("count", "labels", "words"),
    [
        (99, None, "at least 100, got 99"),
        (99, [True] * 19 + [None] * 80, "at least 20 queries that belong somewhere, got 19"),
    ],
)
def test_too_few_are_refused(count, labels, words):
    with pytest.raises(DatasetError, match=words):
        fit_scope(traffic(count, 0), reference(), THRESHOLD, labels)
    with pytest.raises(DatasetError, match="tune it anew"):
        fit_scope(traffic(200, 0), ScopeScores(), THRESHOLD)


def test_a_selector_is_recalibrated_and_saved(tuned_world, selector, tmp_path):
    dataset, model = tuned_world[0], tuned_world[1]
    queries = dataset.queries
    before = selector.model.threshold
    found = selector.recalibrate(queries, in_scope=[True] * len(queries))
    assert found.before == before
    assert selector.model.threshold == found.threshold
    selector.save(tmp_path / "router")
    again = TunedSelector.load(tmp_path / "router", model)
    assert again.model.threshold == found.threshold
    assert again.model.scores == selector.model.scores
    for arguments, error in (
        ((queries, {"in_scope": [True]}), "one entry for each"),
        ((queries, {"in_scope": ["x"] * len(queries)}), "must hold True, False and None"),
        (([], {}), "queries is empty"),
        (("one", {}), "queries must be a list of texts, got str"),
    ):
        with pytest.raises((ValueError, TypeError), match=error):
            selector.recalibrate(arguments[0], **arguments[1])


def test_many_low_scores_in_a_row_are_said(tuned_world, selector, caplog, monkeypatch):
    monkeypatch.setattr(selectors, "WATCHED", 20)
    model = tuned_world[1]
    model.table["far off"] = -np.sum([model.table[f"{n} question 0"] for n in NAMES], axis=0)
    sure, unsure = (selector.predict(q).score for q in ("orders question 0", "far off"))
    assert unsure < sure
    selector = TunedSelector(replace(selector.model, threshold=(sure + unsure) / 2), model)
    for _ in range(20):
        selector.select(list(tuned_world[0].choices), "orders question 0")
    assert not caplog.records
    for _ in range(20):
        selector.select(list(tuned_world[0].choices), "far off")
    assert "100 % of the last 20 queries scored below" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_labels_without_signal_are_not_learnt(share):
    dataset, model = world(per_choice=10)
    rng = np.random.default_rng(1)
    names = np.where(rng.random(40) < share, NAMES[0], rng.choice(NAMES[1:], 40))
    examples = [
        RoutingExample(query, (str(name),))
        for query, name in zip(dataset.queries, names, strict=True)
    ]
    given = RoutingDataset(dataset.choices, examples)
    report = RouterFinetuneEngine(given, TableEmbedding(model.table, dim=8)).finetune()
    assert not report.accepted
    part = report.slices["over the choices' frequencies"]["accuracy"]
    assert part.low < part.mean < part.high  # the interval is of the same gain
    assert part.low <= 0


def test_what_is_learnt_is_shown_over_the_frequencies(tuned_world):
    report = tuned_world[3]
    assert report.accepted
    part = report.slices["over the choices' frequencies"]["accuracy"]
    assert part.tuned == pytest.approx(report.gains["accuracy"].tuned)
    assert part.base == pytest.approx(0.25, abs=0.05)
    assert report.also_shown == ["over the choices' frequencies"]


def test_the_options_share_is_what_the_router_promises():
    dataset, model = world()
    options = RouterOptions(words=False, in_scope_recall=0.8)
    engine = RouterFinetuneEngine(dataset, model, options=options)
    engine.finetune()
    scores = engine.get_finetuned_model().model.scores
    assert scores.recall == 0.8
    assert scores.inside == tuple(sorted(scores.inside))
