"""Relevance in degrees: measured, calibrated and cut as such."""

from types import SimpleNamespace

import numpy as np
import pytest

from llama_index.tuning.datasets.records import Candidate, RelevanceList
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.rerankers.data import FeatureMaker
from llama_index.tuning.rerankers.light.fit import (
    FeatureList,
    ListwiseLoss,
    PairwiseLoss,
    ndcg,
    ranking_scores,
    usual_loss,
)
from llama_index.tuning.rerankers.measure import notes_on
from llama_index.tuning.text.statistics import WordStatistics
from llama_index.tuning.text.words import Analyzer


def graded(query_id, *grades, missed=()):
    candidates = [
        Candidate(f"{query_id}-{i}", f"text {i}", grade, 1.0 - 0.1 * i)
        for i, grade in enumerate(grades)
    ]
    return RelevanceList(query_id, f"query {query_id}", candidates, missed)


def numbers(*lists, depth=None):
    return FeatureMaker(Analyzer(), WordStatistics()).lists(RelevanceDataset([*lists]), depth)


def test_an_order_is_measured_by_its_grades():
    lists = numbers(graded("q", 0.1, 0.9, 0.5))
    best = ranking_scores(lists, [np.array([0.0, 2.0, 1.0])]).mean()
    worst = ranking_scores(lists, [np.array([2.0, 0.0, 1.0])]).mean()
    assert best["ndcg@10"] == 1.0
    assert worst["ndcg@10"] < 0.75
    assert {best[name] for name in ("mrr@10", "hit_rate@1", "recall@10")} == {1.0}
    assert {worst[name] for name in ("mrr@10", "hit_rate@1", "recall@10")} == {1.0}


def test_what_was_cut_or_not_found_counts_by_its_grade():
    order = [np.array([1.0])]
    cheap = numbers(graded("q", 3.0, 1.0, missed={"z": 1.0}), depth=1)
    dear = numbers(graded("q", 3.0, 9.0, missed={"z": 9.0}), depth=1)
    ideal = 3 + 1 / np.log2(3) + 1 / 2
    assert ndcg(cheap, order)[0] == pytest.approx(3 / ideal)
    assert ndcg(dear, order)[0] < ndcg(cheap, order)[0] / 2


def test_lists_with_nothing_relevant_are_not_measured():
    lists = numbers(graded("q", 0.0, 0.5), graded("r", 0.0, 0.0))
    scores = [np.array([1.0, 0.0])] * 2
    assert ranking_scores(lists, scores).query_ids == ["0"]


def test_the_report_says_where_only_ndcg_tells_something():
    for worst, said in ((0.1, True), (0.0, False)):
        data = RelevanceDataset([graded("q", 0.9, worst), graded("r", 0.3, 0.2)])
        notes = notes_on(data, numbers(*data.lists), 2)
        assert any("only nDCG@10" in note for note in notes) is said


def test_early_stopping_looks_at_the_same_number():
    torch = pytest.importorskip("torch")
    from llama_index.tuning.rerankers.cross.evaluator import METRIC, RankingEvaluator

    class Last(SimpleNamespace):
        """Prefers what comes later in the list."""

        device = torch.device("cpu")

        def predict(self, pairs, **_):
            return [float(text[-1]) for _, text in pairs]

    data = [graded("q", 0.1, 0.9, 0.5, missed={"z": 0.7}), graded("r", 1.0, 0.0)]
    ours = ndcg(numbers(*data), [np.arange(3.0), np.arange(2.0)]).mean()
    assert RankingEvaluator(data)(Last())[METRIC] == pytest.approx(float(ours))


@pytest.mark.parametrize("loss", [ListwiseLoss, PairwiseLoss])
def test_the_losses_derivatives_are_those_of_their_values(loss):
    rng = np.random.default_rng(0)
    lists = [
        FeatureList(rng.normal(size=(n, 4)), np.round(rng.random(n), 1)) for n in (2, 5, 9, 12)
    ]
    objective = loss(lists, [item.features for item in lists])
    weights, small = rng.normal(size=4), 1e-5 * np.eye(4)
    gradient, hessian = objective.derivatives(weights)
    for i, step in enumerate(small):
        slope = (objective.value(weights + step) - objective.value(weights - step)) / 2e-5
        assert gradient[i] == pytest.approx(slope, abs=1e-6)
        above, below = (objective.derivatives(weights + s)[0] for s in (step, -step))
        np.testing.assert_allclose(hessian[i], (above - below) / 2e-5, atol=1e-5)


def test_pairs_are_weighed_so_that_each_query_counts_one():
    rng = np.random.default_rng(0)
    lists = [FeatureList(rng.normal(size=(n, 3)), np.arange(n) / n) for n in (2, 20)]
    objective = PairwiseLoss(lists, [item.features for item in lists])
    assert objective.value(np.zeros(3)) == pytest.approx(2 * np.log(2))
    assert len(objective.better) == 1 + 190


def test_grades_of_more_than_two_kinds_are_learnt_in_pairs():
    assert usual_loss(numbers(graded("q", 1.0, 0.0, 1.0), graded("r", 0.0, 2.0))) == "listwise"
    assert usual_loss(numbers(graded("q", 1.0, 0.0, 0.5), graded("r", 0.0, 2.0))) == "pairwise"
