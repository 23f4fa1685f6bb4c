"""Cross-fitting: honest folds, averaged maps, working sets, resuming."""

import functools

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from llama_index.tuning.embeddings.adapter import cross_fit as crossfit
from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit, working_set
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.fit import make_adapter, map_vectors
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.splits import (
    assign_folds,
    inner_split,
    seen_documents,
    whole_documents,
)

DIM, DOCUMENTS, QUERIES = 10, 40, 120
OPTIONS = AdapterOptions()
BY_GRADIENT = AdapterOptions(solver="gradient", learning_rate=0.03, max_epochs=16)


def unit(matrix):
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def make(options=OPTIONS):
    return functools.partial(make_adapter, DIM, options)


def same_weights(one, two):
    others = two.state_dict()
    return all(torch.equal(weight, others[name]) for name, weight in one.state_dict().items())


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    documents = unit(rng.normal(size=(DOCUMENTS, DIM)))
    turn = 0.3 * rng.normal(size=(DIM, DIM))
    rotation = expm(turn - turn.T)
    answers = np.arange(QUERIES) % DOCUMENTS
    queries = unit(documents[answers] @ rotation + 0.1 * rng.normal(size=(QUERIES, DIM)))
    return Pairs(queries, [np.array([row]) for row in answers]), documents


def hits(queries, pairs, documents):
    best = (queries @ documents.T).argmax(1)
    return np.array([row in w for row, w in zip(best, pairs.positives, strict=True)], dtype=float)


def shuffled(pairs, seed):
    order = np.random.default_rng(seed).permutation(len(pairs))
    return Pairs(pairs.vectors, [pairs.positives[row] for row in order])


def test_out_of_fold_queries_show_the_gain_of_a_real_signal(planted):
    pairs, documents = planted
    done = cross_fit(make(), pairs, documents, OPTIONS)
    gain = hits(done.queries, pairs, documents) - hits(pairs.vectors, pairs, documents)
    assert gain.mean() > 0.2


def test_shuffled_labels_show_no_gain_out_of_fold(planted):
    pairs, documents = planted
    gains = []
    for seed in range(5):
        noise = shuffled(pairs, seed)
        done = cross_fit(make(), noise, documents, OPTIONS)
        gain = hits(done.queries, noise, documents) - hits(pairs.vectors, noise, documents)
        gains.append(gain.mean())
    assert abs(np.mean(gains)) < 0.03


def test_the_labels_of_a_fold_change_neither_its_adapter_nor_its_number_of_passes(planted):
    pairs, documents = planted
    done = cross_fit(make(), pairs, documents, BY_GRADIENT)
    held = np.flatnonzero(done.fold == 2)
    again = cross_fit(make(), relabelled(pairs, held), documents, BY_GRADIENT)
    assert again.epochs[2] == done.epochs[2]
    np.testing.assert_array_equal(again.queries[held], done.queries[held])


def relabelled(pairs, rows):
    positives = list(pairs.positives)
    for row, other in zip(rows, np.roll(rows, 1), strict=True):
        positives[row] = pairs.positives[other]
    return Pairs(pairs.vectors, positives)


def test_the_labels_of_a_fold_change_none_of_its_convex_solutions(planted):
    pairs, documents = planted
    states = []
    for given in (pairs, relabelled(pairs, np.arange(0, QUERIES, 7))):
        kept = {}
        fold = cross_fit(
            make(),
            given,
            documents,
            OPTIONS,
            groups=[row % 7 for row in range(QUERIES)],
            on_fold=lambda number, state, _, kept=kept: kept.update({number: state}),
        ).fold
        states.append(kept)
    held = int(fold[0])
    assert set(np.flatnonzero(fold == held)) >= set(range(0, QUERIES, 7))
    one, two = states
    assert torch.equal(one[held]["strong"], two[held]["strong"])
    assert not torch.equal(one[1 - held]["strong"], two[1 - held]["strong"])


def test_training_never_receives_a_query_of_the_fold_that_is_scored(planted, monkeypatch):
    pairs, documents = planted
    received = []
    real = crossfit.train_adapter

    def spy(adapter, given, documents, options, **named):
        parts = [given.vectors]
        if named.get("validation") is not None:
            parts.append(named["validation"].vectors)
        received.append({row.tobytes() for part in parts for row in part})
        return real(adapter, given, documents, options, **named)

    monkeypatch.setattr(crossfit, "train_adapter", spy)
    done = cross_fit(make(), pairs, documents, BY_GRADIENT)
    assert len(received) == 2 * OPTIONS.folds + 1  # the last is the final one
    for call, rows in enumerate(received[:-1]):
        held = pairs.vectors[done.fold == call // 2]
        assert not rows & {row.tobytes() for row in held}


def test_other_adapters_are_trained_again_on_all_queries(planted):
    pairs, documents = planted
    options = AdapterOptions(adapter="two_layer", hidden=20, max_steps=100)
    done = cross_fit(make(options), pairs, documents, options)
    tuned = hits(map_vectors(done.adapter, pairs.vectors), pairs, documents)
    assert tuned.mean() > hits(pairs.vectors, pairs, documents).mean() + 0.2


def test_the_same_seed_gives_the_same_weights(planted):
    pairs, documents = planted
    one, two = (cross_fit(make(), pairs, documents, OPTIONS) for _ in range(2))
    assert same_weights(one.adapter, two.adapter)


@pytest.mark.parametrize("options", [OPTIONS, BY_GRADIENT], ids=["convex", "gradient"])
def test_an_interrupted_run_goes_on_from_its_finished_folds(planted, options):
    pairs, documents = planted
    saved = {}

    def keep(fold, state, epochs):
        saved[fold] = (state, epochs)
        if fold == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_fit(make(), pairs, documents, options, on_fold=keep)
    trained = []
    resumed = cross_fit(
        make(),
        pairs,
        documents,
        options,
        finished=saved,
        on_fold=lambda fold, *_: trained.append(fold),
    )
    whole = cross_fit(make(), pairs, documents, options)
    assert trained == [3, 4]
    assert same_weights(resumed.adapter, whole.adapter)


def about(documents):
    vectors = np.zeros((len(documents), 2), np.float32)
    return Pairs(vectors, [np.array([row]) for row in documents])


def test_equal_texts_share_a_fold_and_folds_are_even():
    groups = [f"text {row // 2}" for row in range(50)]
    fold = assign_folds(groups, 5, seed=3)
    assert all(fold[row] == fold[row + 1] for row in range(0, 50, 2))
    assert np.bincount(fold).tolist() == [10] * 5


def test_a_third_of_the_questions_is_tried_on_new_documents():
    pairs = about(np.arange(400) // 4)  # four questions to each document
    new = whole_documents(pairs, range(400), seed=0)
    assert 120 < len(new) <= 134
    assert not set(new // 4) & set(np.setdiff1d(np.arange(400), new) // 4)
    assert not len(whole_documents(about([0] * 50), range(50), seed=0))


def test_a_single_different_query_cannot_be_cross_fitted():
    with pytest.raises(ValueError, match="at least 2 different queries, got 1"):
        assign_folds(["same", "same"], 5, seed=0)


def test_the_inner_split_holds_queries_of_known_and_of_new_documents(planted):
    pairs, _ = planted
    inner = inner_split(pairs, list(range(QUERIES)), AdapterOptions())
    outside = {int(pairs.positives[row][0]) for row in np.flatnonzero(~inner)}
    new = [int(pairs.positives[row][0]) not in outside for row in np.flatnonzero(inner)]
    assert 0.1 * QUERIES < inner.sum() <= 0.2 * QUERIES
    assert 0.2 < np.mean(new) < 0.8


def test_one_document_for_all_queries_leaves_the_inner_split_within_its_share():
    pairs = Pairs(np.eye(50, dtype=np.float32), [np.array([0])] * 50)
    assert inner_split(pairs, list(range(50)), AdapterOptions()).sum() == 10


def test_seen_means_that_another_fold_holds_a_query_of_the_document():
    pairs = Pairs(np.eye(4, dtype=np.float32), [np.array(r) for r in ([0], [0, 1], [2], [2])])
    assert seen_documents(pairs, np.array([0, 1, 0, 0])).tolist() == [True, True, False, False]


def test_the_working_set_keeps_relevant_and_nearest_documents(tmp_path, planted):
    pairs, documents = planted
    rng = np.random.default_rng(1)
    stored = np.lib.format.open_memmap(
        tmp_path / "v.npy", mode="w+", dtype=np.float32, shape=(5000, DIM)
    )
    stored[:] = unit(rng.normal(size=stored.shape))
    stored[-DOCUMENTS:] = documents
    moved = Pairs(pairs.vectors, [rows + 5000 - DOCUMENTS for rows in pairs.positives])
    options = AdapterOptions(max_documents=300, mined_negatives=1)
    kept, chosen, _ = working_set(moved, stored, options)
    assert chosen.shape == (300, DIM)
    for row in range(QUERIES):
        np.testing.assert_allclose(
            chosen[kept.positives[row]], stored[moved.positives[row]], atol=1e-6
        )
    nearest = stored[(pairs.vectors @ stored.T).argmax(1)]
    assert all(np.abs(chosen - vector).max(1).min() < 1e-6 for vector in nearest)
