"""Training on matrices: a planted map, seeds, starts, weights, negatives."""

import numpy as np
import pytest
import torch
from llama_index.embeddings.adapter.utils import BaseAdapter
from torch import nn

from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.fit import (
    Epoch,
    log_likelihood,
    make_adapter,
    map_vectors,
    train_adapter,
)
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.solved.start import whitened_form, whitening

DIM = 12
FAST = {"learning_rate": 0.02, "max_epochs": 30, "patience": 30}


def unit(matrix):
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def planted():
    """Documents, and queries that are their documents turned by one rotation."""
    rng = np.random.default_rng(0)
    documents = unit(rng.normal(size=(60, DIM)))
    rotation = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    queries = unit(documents @ rotation + 0.02 * rng.normal(size=(60, DIM)))
    return Pairs(queries, [np.array([row]) for row in range(60)]), documents


def hits(adapter, pairs, documents):
    best = (map_vectors(adapter, pairs.vectors) @ documents.T).argmax(1)
    return np.mean([row in wanted for row, wanted in zip(best, pairs.positives, strict=True)])


class Gate(BaseAdapter):
    """A user's module, with dropout that draws from the global generator."""

    def __init__(self, dim):
        super().__init__()
        self.dim, self.scale, self.drop = dim, nn.Parameter(torch.ones(dim)), nn.Dropout(0.2)

    def forward(self, embed):
        return self.drop(embed) * self.scale

    def get_config_dict(self):
        return {"dim": self.dim}


def test_a_linear_adapter_learns_a_planted_rotation(planted):
    pairs, documents = planted
    options = AdapterOptions(**FAST)
    adapter = make_adapter(DIM, options)
    assert hits(adapter, pairs, documents) < 0.3
    train_adapter(adapter, pairs, documents, options)
    assert hits(adapter, pairs, documents) > 0.9


@pytest.mark.parametrize("kind", ["linear", "low_rank", "two_layer"])
@pytest.mark.parametrize("side", ["query", "both"])
def test_every_form_raises_the_likelihood_of_the_relevant_documents(planted, kind, side):
    pairs, documents = planted
    options = AdapterOptions(adapter=kind, side=side, rank=6, hidden=16, max_epochs=5)
    adapter = make_adapter(DIM, options)
    before = log_likelihood(adapter, pairs, documents, options)
    train_adapter(adapter, pairs, documents, options)
    assert log_likelihood(adapter, pairs, documents, options) > before


@pytest.mark.parametrize("kind", ["linear", "low_rank", "two_layer"])
def test_a_new_adapter_is_the_identity(planted, kind):
    pairs, _ = planted
    adapter = make_adapter(DIM, AdapterOptions(adapter=kind))
    np.testing.assert_allclose(map_vectors(adapter, pairs.vectors), pairs.vectors, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: make_adapter(DIM, AdapterOptions()), lambda: Gate(DIM)])
def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(planted, make):
    pairs, documents = planted
    options = AdapterOptions(batch_size=16, max_epochs=3)
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        adapter = make()
        train_adapter(adapter, pairs, documents, options)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(adapter.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_early_stopping_restores_the_weights_of_the_best_pass(planted):
    pairs, documents = planted
    options = AdapterOptions(learning_rate=0.5, max_epochs=8, patience=2, batch_size=8)
    held_out = pairs.take(np.arange(10))
    adapter = make_adapter(DIM, options)
    seen: list[Epoch] = []
    done = train_adapter(
        adapter, pairs, documents, options, validation=held_out, on_epoch=seen.append
    )
    assert len(seen) == len(done.scores)
    assert done.epochs == int(np.argmax(done.scores))
    now = log_likelihood(adapter, held_out, documents, options)
    assert now == pytest.approx(max(done.scores), abs=1e-5)


def test_the_adapter_handed_to_on_epoch_is_a_copy_that_later_passes_leave_alone(planted):
    pairs, documents = planted
    states = []
    train_adapter(
        make_adapter(DIM, AdapterOptions()),
        pairs,
        documents,
        AdapterOptions(max_epochs=3, batch_size=8),
        on_epoch=lambda epoch: states.append(epoch.best().linear.weight),
    )
    assert len(states) == 4
    assert not any(torch.equal(states[0], later) for later in states[1:])


def test_a_pair_of_weight_zero_teaches_nothing(planted):
    pairs, documents = planted
    rng = np.random.default_rng(1)
    wrong = [rng.integers(60, size=1) for _ in range(60)]
    doubled = Pairs(
        np.concatenate([pairs.vectors, pairs.vectors]),
        [*pairs.positives, *wrong],
        np.repeat(np.array([1, 0], dtype=np.float32), 60),
    )
    options = AdapterOptions(max_epochs=3, start="identity")
    weights = []
    for source in (pairs, doubled):
        adapter = make_adapter(DIM, options)
        train_adapter(adapter, source, documents, options)
        weights.append(adapter.linear.weight.detach().numpy())
    np.testing.assert_allclose(*weights, atol=1e-5)


def test_unlabelled_pairs_teach_what_the_labelled_ones_do_not_hold(planted):
    pairs, documents = planted
    options = AdapterOptions(**FAST, unlabelled_weight=0.9)
    few, rest = pairs.take(np.arange(5)), pairs.take(np.arange(5, 60))
    alone, helped = make_adapter(DIM, options), make_adapter(DIM, options)
    train_adapter(alone, few, documents, options)
    train_adapter(helped, few, documents, options, unlabelled=rest)
    assert hits(helped, rest, documents) > hits(alone, rest, documents) + 0.3


@pytest.mark.parametrize(("count", "passes"), [(60, 40), (8, 40)])
def test_the_budget_is_steps_whatever_the_number_of_queries(planted, count, passes):
    pairs, documents = planted
    options = AdapterOptions(max_steps=40)
    few = pairs.take(np.arange(count))
    done = train_adapter(make_adapter(DIM, options), few, documents, options)
    assert done.epochs == passes  # of one step each
    options = AdapterOptions(max_steps=40, batch_size=count // 2)
    assert train_adapter(make_adapter(DIM, options), few, documents, options).epochs == passes // 2


def test_sampled_negatives_still_learn(planted):
    pairs, documents = planted
    options = AdapterOptions(**FAST, documents_per_step=20, batch_size=16)
    adapter = make_adapter(DIM, options)
    train_adapter(adapter, pairs, documents, options)
    assert hits(adapter, pairs, documents) > 0.9


def test_the_loss_shares_the_target_among_all_relevant_documents():
    documents = np.eye(4, dtype=np.float32)
    pairs = Pairs(documents[:1].copy(), [np.array([1, 2])])
    options = AdapterOptions(learning_rate=0.05, max_epochs=40, start="identity")
    adapter = make_adapter(4, options)
    train_adapter(adapter, pairs, documents, options)
    scores = map_vectors(adapter, pairs.vectors)[0]
    assert scores[1] == pytest.approx(scores[2], abs=1e-5)
    assert scores[1] > scores[0]


def test_whitening_dampens_the_direction_in_which_pairs_disagree():
    rng = np.random.default_rng(0)
    documents = unit(rng.normal(size=(300, 8)))
    noise = 0.1 * rng.normal(size=(300, 8))
    noise[:, 0] *= 20
    pairs = Pairs(unit(documents + noise), [np.array([row]) for row in range(300)])
    start = whitening(pairs, documents, AdapterOptions(start_strength=0.45))
    assert abs(start.directions[0, 0]) > 0.9
    assert start.gains[0] < 0.7 * start.gains[1]
    matrix = whitened_form(start).matrix()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)


def test_whitening_of_few_pairs_in_many_dimensions_is_that_of_the_whole_covariance():
    rng = np.random.default_rng(0)
    documents = unit(rng.normal(size=(30, 40)))
    pairs = Pairs(unit(documents + rng.normal(size=(30, 40))), [np.array([r]) for r in range(30)])
    options = AdapterOptions()
    apart = pairs.vectors - documents
    moment = apart.T @ apart
    part = options.start_strength * 30 / (30 + options.prior_pairs * 40)
    shrunk = part * moment * 40 / np.trace(moment) + (1 - part) * np.eye(40)
    wanted = pairs.vectors @ np.linalg.inv(shrunk)
    found = whitened_form(whitening(pairs, documents, options))(pairs.vectors)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1).mean(), atol=1e-4)


def test_few_pairs_move_the_start_little(planted):
    pairs, documents = planted
    options = AdapterOptions()
    few = whitening(pairs.take(np.arange(2)), documents, options).gains
    many = whitening(pairs, documents, options).gains
    assert np.ptp(few / few.mean()) < np.ptp(many / many.mean())


def test_the_two_layer_start_is_the_low_rank_start(planted):
    pairs, documents = planted
    mapped = []
    for options in (
        AdapterOptions(adapter="low_rank", rank=4),
        AdapterOptions(adapter="two_layer", hidden=8),
    ):
        adapter = make_adapter(DIM, options)
        train_adapter(adapter, pairs, documents, options, epochs=0)
        mapped.append(map_vectors(adapter, pairs.vectors))
    np.testing.assert_allclose(*mapped, atol=1e-5)


def test_a_module_that_was_trained_before_keeps_its_weights_at_the_start(planted):
    pairs, documents = planted
    adapter = make_adapter(DIM, AdapterOptions())
    with torch.no_grad():
        adapter.linear.weight.mul_(torch.linspace(0.5, 2, DIM))
    before = adapter.linear.weight.clone()
    train_adapter(adapter, pairs, documents, AdapterOptions(), epochs=0)
    assert torch.equal(adapter.linear.weight, before)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"adapter": "cubic"}, "unknown adapter 'cubic'; choose one of: linear, low_rank"),
        ({"side": "left"}, "unknown side 'left'; choose one of: query, both"),
        ({"start": "warm"}, "unknown start 'warm'"),
        ({"solver": "magic"}, "unknown solver 'magic'; choose one of: convex, gradient"),
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, got 0"),
        ({"rank": 0}, "rank must be a whole number >= 1, got 0"),
        ({"folds": 1}, "folds must be a whole number >= 2, got 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number >= 1, got 2.5"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, got nan"),
        ({"weight_decay": float("inf")}, "weight_decay must be a number 0 or more, got inf"),
        ({"inner_share": 0.6}, "inner_share must be a number above 0 and at most 0.5, got 0.6"),
        ({"unlabelled_weight": -1}, "unlabelled_weight must be a number from 0 to 1, got -1"),
        ({"scale": "20"}, "scale must be a number above 0, got '20'"),
        ({"seed": True}, "seed must be a whole number >= 0, got True"),
    ],
)
def test_a_wrong_option_names_argument_rule_and_value(argument, message):
    with pytest.raises(ValueError, match=message):
        AdapterOptions(**argument)
