"""The linear map at its optimum: known answers, few coordinates, caution, choice, size on disk."""

import numpy as np
import pytest
import torch
from llama_index.embeddings.adapter import LinearLayer
from torch.nn.functional import cross_entropy

from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
from llama_index.tuning.embeddings.adapter.data import PARTS, Pairs, parts_of
from llama_index.tuning.embeddings.adapter.fit import make_adapter, map_vectors
from llama_index.tuning.embeddings.adapter.maps import LinearForm
from llama_index.tuning.embeddings.adapter.modules import LowRankLayer, map_of_module
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.solved.choice import CHOICES, STRENGTHS, Choice, choose
from llama_index.tuning.embeddings.adapter.solved.linear import LinearProblem
from llama_index.tuning.embeddings.adapter.solved.start import (
    softmax_scale,
    whitened_form,
    whitening,
)
from llama_index.tuning.evaluate.retrieval import evaluate_vectors

OPTIONS = AdapterOptions(scale=20.0)


def unit(matrix):
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def problem_of(dim=10, documents=30, queries=40, seed=0):
    """Queries turned away from their documents; the last third of the documents has none."""
    rng = np.random.default_rng(seed)
    stored = unit(rng.normal(size=(documents, dim)))
    turn = np.linalg.qr(np.eye(dim) + 0.3 * rng.normal(size=(dim, dim)) / np.sqrt(dim))[0]
    answers = rng.integers(0, 2 * documents // 3, queries)
    asked = unit(stored[answers] @ turn + 0.3 * rng.normal(size=(queries, dim)) / np.sqrt(dim))
    return Pairs(asked, [np.array([row]) for row in answers]), stored


def centre_of(pairs, documents, options=OPTIONS):
    return whitened_form(whitening(pairs, documents, options))


def solved(pairs, documents, options=OPTIONS, unlabelled=None, bias=False):
    problem = LinearProblem(pairs, documents, options, unlabelled, bias=bias)
    centre = centre_of(pairs, documents, options)
    return problem, centre, problem.solve(np.arange(len(pairs)), centre)


def by_torch(pairs, documents, centre, strength, columns, scale=20.0):
    """The same optimum in all coordinates, by another optimiser in double precision."""
    start = torch.from_numpy(centre.matrix()).double()
    queries, stored = (torch.from_numpy(m).double() for m in (pairs.vectors, documents[columns]))
    target = torch.from_numpy(np.searchsorted(columns, np.concatenate(pairs.positives)))
    departure = torch.zeros_like(start, requires_grad=True)
    optimiser = torch.optim.LBFGS([departure], max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        logits = scale * queries @ (start + departure).T @ stored.T
        loss = cross_entropy(logits, target, reduction="sum")
        loss = loss + strength * scale**2 / 2 * (departure**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return (start + departure).detach().float().numpy()


@pytest.mark.parametrize("dim", [10, 60], ids=["more questions than dimensions", "fewer"])
def test_the_solutions_are_the_optima_of_the_whole_matrix(dim):
    pairs, documents = problem_of(dim=dim)
    problem, centre, found = solved(pairs, documents)
    for solutions, columns in (
        (found.strong, np.arange(len(documents))),
        (found.cautious, np.unique(np.concatenate(pairs.positives))),
    ):
        for strength in (0, len(STRENGTHS) - 1):
            form = problem.form(centre, solutions[strength])
            wanted = by_torch(pairs, documents, centre, STRENGTHS[strength], columns)
            np.testing.assert_allclose(form.matrix(), wanted, atol=5e-3)


def test_the_gradient_of_both_sides_is_the_slope_of_its_logits():
    pairs, documents = problem_of(dim=12, documents=8, queries=6)
    options = AdapterOptions(scale=20.0, side="both")
    problem = LinearProblem(pairs, documents, options, None, bias=True)
    score = problem._score(centre_of(pairs, documents, options), pairs.vectors, np.arange(8))
    rng = np.random.default_rng(1)
    shape = problem.y.shape[1], problem.basis.shape[1] + 1
    z, along = (0.1 * rng.normal(size=shape).astype(np.float32) for _ in range(2))
    logits, back = score(z)
    weights = rng.normal(size=logits.shape).astype(np.float32)
    step = 1e-2
    ahead, behind = ((score(z + sign * step * along)[0] * weights).sum() for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx((back(weights) * along).sum(), rel=2e-3)


@pytest.mark.parametrize("side", ["query", "both"])
def test_logits_in_few_coordinates_are_cosines_of_the_whole_map(side):
    pairs, documents = problem_of(dim=60, documents=20, queries=15)
    options = AdapterOptions(scale=20.0, side=side)
    problem, centre, found = solved(pairs, documents, options)
    departure = found.strong[-1]
    form = problem.form(centre, departure)
    stored = unit(form(documents)) if side == "both" else documents
    logits, _ = problem._score(centre, pairs.vectors, np.arange(20))(departure)
    np.testing.assert_allclose(logits, 20 * form(pairs.vectors) @ stored.T, atol=2e-3)


def test_documents_without_questions_are_not_pushed_away_by_the_cautious_map():
    pairs, documents = problem_of(dim=30, documents=60, queries=60)
    problem, centre, found = solved(pairs, documents)
    without = np.setdiff1d(np.arange(60), np.concatenate(pairs.positives))
    near = []
    for departure in (np.zeros_like(found.strong[0]), found.cautious[-1], found.strong[-1]):
        mapped = unit(problem.form(centre, departure)(pairs.vectors))
        near.append((mapped @ documents[without].T).max(1).mean())
    start, cautious, strong = near
    assert strong < start - 0.05
    assert cautious > strong + 0.03


def test_a_stronger_prior_departs_less():
    pairs, documents = problem_of()
    _, _, found = solved(pairs, documents)
    lengths = [np.linalg.norm(one) for one in found.strong]
    assert lengths == sorted(lengths)
    assert lengths[0] < 0.7 * lengths[-1]


def test_sentences_teach_by_their_weight():
    pairs, documents = problem_of()
    more, _ = problem_of(queries=200, seed=3)
    centre = centre_of(pairs, documents)
    likelihood = []
    for weight in (0.0, 0.5, 0.9):
        options = AdapterOptions(scale=20.0, unlabelled_weight=weight)
        problem = LinearProblem(pairs, documents, options, more, bias=False)
        form = problem.form(centre, problem.solve(np.arange(40), centre).strong[-1])
        logits = 20 * torch.from_numpy(form(more.vectors) @ documents.T)
        loss = cross_entropy(logits, torch.from_numpy(np.concatenate(more.positives)))
        likelihood.append(-float(loss))
    assert likelihood == sorted(likelihood)


def test_a_bias_learns_what_all_questions_share():
    pairs, documents = problem_of(dim=20)
    shift = np.zeros(20, np.float32)
    shift[0] = 2
    pairs = Pairs(unit(pairs.vectors + shift), pairs.positives)
    problem, centre, found = solved(pairs, documents, bias=True)
    form = problem.form(centre, found.strong[-1])
    assert form.bias is not None
    assert np.abs(form.bias).max() > 1e-3


SEEN = np.ones(100, bool)
BASE = np.full(100, 0.5)


def test_what_seen_documents_gain_is_not_paid_by_unseen_ones():
    seen = np.arange(100) >= 30
    scores = np.full((len(CHOICES), 100), 0.5)
    scores[7, seen], scores[7, ~seen] = 0.7, 0.45  # better on average, at the cost of the unseen
    assert choose(scores, BASE, seen) == CHOICES[0]
    scores[7, ~seen] = 0.5
    assert choose(scores, BASE, seen) == CHOICES[7]


def test_where_every_map_loses_on_unseen_documents_the_least_loss_is_chosen():
    seen = np.arange(100) >= 30
    scores = np.full((len(CHOICES), 100), 0.4)
    scores[5] = 0.45
    assert choose(scores, BASE, seen) == CHOICES[5]


def test_the_best_candidate_is_chosen_if_it_is_better_by_more_than_chance():
    scores = np.full((len(CHOICES), 100), 0.5)
    scores[7] += 0.1  # of every question
    assert choose(scores, BASE, SEEN) == CHOICES[7]
    scores[7] = 0.5
    scores[7, :2] = 1.0, 0.1  # one question won and one lost: no more than chance
    assert choose(scores, BASE, SEEN) == CHOICES[0]


def test_of_equal_candidates_the_most_careful_is_chosen():
    assert choose(np.zeros((len(CHOICES), 100)), BASE, SEEN) == Choice(0, 1.0)
    assert STRENGTHS[0] == max(STRENGTHS)


def test_held_out_questions_are_scored_by_ndcg():
    pairs, documents = problem_of()
    problem = LinearProblem(pairs, documents, OPTIONS, None, bias=False)
    centre = whitened_form(whitening(pairs, documents, OPTIONS))
    rows = np.arange(len(pairs))
    found, memory = problem.solve(rows, centre), problem.memory(rows[:20])
    scores, base = problem.scores(rows, centre, found, memory, CHOICES)
    for number in (0, 5, 11, 20):
        choice = CHOICES[number]
        mapped = problem.form(centre, found.at(choice))(pairs.vectors)
        mapped += np.float32(choice.pull) * memory(pairs.vectors)
        wanted = evaluate_vectors(unit(mapped), documents, pairs.positives, ks=(10,))
        np.testing.assert_allclose(scores[number], wanted.values["ndcg@10"], atol=1e-4)
    wanted = evaluate_vectors(pairs.vectors, documents, pairs.positives, ks=(10,))
    np.testing.assert_allclose(base, wanted.values["ndcg@10"], atol=1e-4)


def test_the_softmax_is_sharper_for_a_model_whose_cosines_lie_close_together():
    pairs, documents = problem_of(dim=30)
    assert softmax_scale(AdapterOptions(), pairs, documents).scale == 20
    crowd = unit(documents + 0.5 * np.ones(30, np.float32))
    near = Pairs(unit(pairs.vectors + 0.5 * np.ones(30, np.float32)), pairs.positives)
    scale = softmax_scale(AdapterOptions(), near, crowd).scale
    assert scale == pytest.approx(2.1 / (near.vectors @ crowd.T).std(), rel=0.05)
    assert scale > 30
    assert softmax_scale(AdapterOptions(scale=7.0), near, crowd).scale == 7


def test_few_questions_in_many_dimensions_give_a_small_map():
    pairs, documents = problem_of(dim=300, documents=60, queries=30)
    options = AdapterOptions(scale=20.0, memory=False)
    done = cross_fit(lambda: make_adapter(300, options), pairs, documents, options)
    assert isinstance(done.adapter, LowRankLayer)
    assert done.adapter.rank <= 60

    def margin(queries):
        scores = queries @ documents.T
        right = scores[np.arange(len(scores)), np.concatenate(pairs.positives)]
        return (right - scores.mean(1)).mean()

    assert margin(unit(map_vectors(done.adapter, pairs.vectors))) > margin(pairs.vectors)


def test_a_compressed_map_is_the_same_map():
    rng = np.random.default_rng(0)
    up, down = (rng.normal(size=s).astype(np.float32) for s in ((40, 3), (3, 40)))
    doubled = LinearForm(2.0, up, down).plus(2 * up, down, None)
    small = doubled.compressed()
    assert small.up.shape == (40, 3)
    np.testing.assert_allclose(small.matrix(), doubled.matrix(), rtol=1e-3, atol=1e-3)


def test_a_given_linear_layer_is_where_the_solution_starts():
    pairs, documents = problem_of()
    given = LinearLayer(10, 10)
    with torch.no_grad():
        given.linear.weight.copy_(torch.from_numpy(np.diag(np.linspace(0.5, 2, 10))).float())
    options = AdapterOptions(scale=20.0, max_epochs=1)
    near = cross_fit(lambda: given, pairs, documents, options).adapter
    far = cross_fit(lambda: LinearLayer(10, 10), pairs, documents, options).adapter
    wanted = map_vectors(given, pairs.vectors)
    cosines = [
        (unit(map_of_module(one)(pairs.vectors)) * unit(wanted)).sum(1).mean()
        for one in (near, far)
    ]
    assert cosines[0] > cosines[1]


def test_max_epochs_bounds_the_steps_of_the_solver():
    pairs, documents = problem_of()
    options = AdapterOptions(scale=20.0, max_epochs=2)
    problem = LinearProblem(pairs, documents, options, None, bias=False)
    steps = problem.solve(np.arange(40), centre_of(pairs, documents)).steps
    assert 0 < steps <= 2 * 2 * len(STRENGTHS)


def test_sentences_of_documents_about_the_same_share_a_fold():
    rng = np.random.default_rng(0)
    about = np.repeat(np.eye(40, dtype=np.float32)[:PARTS], 4, axis=0)
    documents = unit(about + 0.02 * rng.normal(size=about.shape))
    sentences = Pairs(documents.repeat(2, 0), [np.array([row]) for row in np.arange(100).repeat(2)])
    parts = np.array(parts_of(sentences, documents)).reshape(PARTS, 8)
    assert (parts == parts[:, :1]).all(axis=1).mean() > 0.6
    assert len(np.unique(parts)) > PARTS / 2
    few = sentences.take(np.arange(20))
    assert len(set(parts_of(few, documents))) == 10  # of few documents each is a part
