import numpy as np
import pytest
import pytrec_eval

from llama_index.tuning.evaluate import evaluate_vectors, score_grades, score_rankings
from llama_index.tuning.evaluate.retrieval import score_hits

KS = (1, 3, 5, 10, 20)
THEIRS = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}


def reference(run, qrels, query_ids):
    """trec_eval's own numbers, in our names."""
    measures = {f"{name}.{','.join(map(str, KS))}" for name in (*THEIRS.values(), "success")}
    rows = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    values = {
        f"{ours}@{k}": np.array([rows[id_][f"{theirs}_{k}"] for id_ in query_ids])
        for ours, theirs in {**THEIRS, "hit_rate": "success"}.items()
        for k in KS
    }
    for k in KS:  # trec_eval has no cut-off for it: the run is cut instead
        cut = {id_: _first(docs, k) for id_, docs in run.items()}
        found = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(cut)
        values[f"mrr@{k}"] = np.array([found[id_]["recip_rank"] for id_ in query_ids])
    return values


def _first(docs, k):
    """trec_eval's order: by score, ties by document id, both descending."""
    return dict(sorted(docs.items(), key=lambda item: (item[1], item[0]), reverse=True)[:k])


def assert_equal(ours, theirs):
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, atol=1e-9, rtol=0, err_msg=name)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_trec_eval(seed):
    rng = np.random.default_rng(seed)
    ids = [f"q{i}" for i in range(40)]
    rankings = [[f"d{i}" for i in rng.permutation(30)[: rng.integers(1, 30)]] for _ in ids]
    relevant = [{f"d{i}" for i in rng.permutation(30)[: rng.integers(1, 8)]} for _ in ids]
    run = {
        id_: {doc: float(len(ranking) - place) for place, doc in enumerate(ranking)}
        for id_, ranking in zip(ids, rankings, strict=True)
    }
    qrels = {id_: dict.fromkeys(docs, 1) for id_, docs in zip(ids, relevant, strict=True)}
    ours = score_rankings(ids, rankings, relevant, KS).values
    assert_equal(ours, reference(run, qrels, ids))


@pytest.mark.parametrize("seed", range(5))
def test_tied_vectors_equal_trec_eval(seed):
    rng = np.random.default_rng(seed)
    documents = rng.integers(-1, 2, (60, 3)).astype(np.float32)
    documents[~documents.any(axis=1)] = 1
    queries = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 25)]
    positives = [rng.permutation(60)[: rng.integers(1, 6)] for _ in queries]
    ours = evaluate_vectors(queries, documents, positives, ks=KS).values
    # Names fall with the row, since trec_eval puts the larger name first where scores tie.
    names = [f"d{1999 - row}" for row in range(60)]
    units = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    ids = [str(i) for i in range(25)]
    run = {
        id_: dict(zip(names, map(float, units @ query), strict=True))
        for id_, query in zip(ids, queries, strict=True)
    }
    qrels = {id_: {names[r]: 1 for r in rows} for id_, rows in zip(ids, positives, strict=True)}
    assert_equal(ours, reference(run, qrels, ids))


def test_a_hand_worked_case():
    scores = score_rankings(["q"], [["x", "a", "y", "b"]], [{"a", "b", "c"}], [4]).mean()
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert scores["ndcg@4"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert scores["mrr@4"] == 0.5
    assert scores["map@4"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert scores["recall@4"] == pytest.approx(2 / 3)
    assert scores["precision@4"] == 0.5
    assert scores["hit_rate@4"] == 1.0


def test_a_query_without_any_result_scores_zero():
    assert set(score_rankings(["q"], [[]], [{"a"}]).mean().values()) == {0.0}


@pytest.mark.parametrize("ks", [[], [0], [1.5], [True]])
def test_cutoffs_are_checked(ks):
    with pytest.raises(ValueError, match="ks must be whole numbers >= 1"):
        score_rankings(["q"], [["a"]], [{"a"}], ks)


def graded_problem(seed, levels):
    """Rankings of 30 documents with a grade each, some of them not found."""
    rng = np.random.default_rng(seed)
    grades = [np.array([1, *rng.integers(0, levels, 29)]) for _ in range(40)]
    orders = [rng.permutation(30) for _ in grades]
    lengths = rng.integers(1, 30, len(grades))
    found = [g[o[:n]].astype(float) for g, o, n in zip(grades, orders, lengths, strict=True)]
    missed = [g[o[n:]].astype(float) for g, o, n in zip(grades, orders, lengths, strict=True)]
    return [f"q{i}" for i in range(40)], found, missed


@pytest.mark.parametrize("seed", range(5))
def test_graded_metrics_equal_trec_eval(seed):
    ids, found, missed = graded_problem(seed, 5)
    run = {
        id_: {f"d{place}": float(-place) for place in range(len(here))}
        for id_, here in zip(ids, found, strict=True)
    }
    qrels = {
        id_: {f"d{place}": int(grade) for place, grade in enumerate([*here, *elsewhere])}
        for id_, here, elsewhere in zip(ids, found, missed, strict=True)
    }
    assert_equal(score_grades(ids, found, missed, KS).values, reference(run, qrels, ids))


def test_grades_of_zero_and_one_give_the_binary_metrics_bit_for_bit():
    ids, found, missed = graded_problem(0, 2)
    hits = np.zeros((len(ids), max(KS)), dtype=bool)
    for row, here in enumerate(found):
        hits[row, : len(here)] = here[: max(KS)] > 0
    both = zip(found, missed, strict=True)
    counts = np.array([int(here.sum() + elsewhere.sum()) for here, elsewhere in both])
    for name, values in score_hits(hits, counts, KS).items():
        graded = score_grades(ids, found, missed, KS).values[name]
        np.testing.assert_array_equal(graded, values, err_msg=name)


@pytest.mark.parametrize("scale", [0.01, 7.0])
def test_only_the_proportions_of_grades_count(scale):
    ids, found, missed = graded_problem(1, 5)
    one = score_grades(ids, found, missed, KS).values
    other = score_grades(ids, [scale * g for g in found], [scale * g for g in missed], KS).values
    assert_equal(other, one)
