"""Training an adapter by gradient, on matrices of vectors that were embedded once.

For maps whose loss is not convex: low-rank, two-layer, a user's own. The linear map is solved in
`solved/`; its start is theirs too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from llama_index.embeddings.adapter.utils import BaseAdapter, LinearLayer, TwoLayerNN
from torch import Tensor
from torch.nn.functional import normalize

from llama_index.tuning._arrays import Float32
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.modules import LowRankLayer, linear_layer, two_layer
from llama_index.tuning.embeddings.adapter.options import AdapterOptions
from llama_index.tuning.embeddings.adapter.solved.start import (
    LEAST_SCALE,
    Whitening,
    whitened_form,
    whitening,
)

State = dict[str, Tensor]
MAP_BLOCK = 8192
SCORE_BLOCK = 256
SMALL = 4_000_000
"""Cosines in one pass up to which a single thread trains."""
LOOK = 8
"""Steps between two looks at the held-out queries."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """Where training stands.

    Attributes:
        number: passes over the queries so far; 0 is the start.
        steps: of them.
        score: mean of `metric` over held-out queries, `None` without any.
        best: makes the best adapter so far (the last one without held-out queries).
        metric: what `score` is.
    """

    number: int
    steps: int
    score: float | None
    best: Callable[[], BaseAdapter]
    metric: str = "log-likelihood"


@dataclass(frozen=True)
class Training:
    """What a training run came to.

    Attributes:
        epochs: passes after which the weights were taken.
        scores: log-likelihood of `validation` at each look, the start first; empty without it.
    """

    epochs: int
    scores: list[float]


def make_adapter(dim: int, options: AdapterOptions) -> BaseAdapter:
    """A fresh adapter that is the identity; the global random state stays as it was."""
    with _seeded(options.seed):
        if options.adapter == "low_rank":
            return LowRankLayer(dim, min(options.rank, dim))
        if options.adapter == "two_layer":
            return two_layer(dim, options.hidden)
        return linear_layer(dim, bias=options.bias)


def train_adapter(
    adapter: BaseAdapter,
    pairs: Pairs,
    documents: Float32,
    options: AdapterOptions,
    *,
    unlabelled: Pairs | None = None,
    validation: Pairs | None = None,
    epochs: int | None = None,
    device: str = "cpu",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Training:
    """Train `adapter` in place: softmax over documents, relevant ones sharing the target.

    Stops where the log-likelihood of `validation` no longer rises and restores the best weights;
    without `validation` it makes `epochs` passes, by default as many as `options.max_steps` (and
    `options.max_epochs`) allow. It looks after every pass, but not more often than every
    `LOOK` steps.

    Args:
        adapter: maps `(batch, dim)` to `(batch, dim)`.
        pairs: labelled queries.
        documents: unit vectors, shape `(N, dim)`, in memory.
        options: how to train.
        unlabelled: sentences with their documents, weighted by `options.unlabelled_weight`.
        validation: queries that decide when to stop; none of them may be scored later.
        epochs: number of passes, instead of early stopping.
        device: of torch.
        on_epoch: called with the start and after each pass; may save the state it gets.
    """
    if options.unlabelled_weight == 0 or (unlabelled is not None and not len(unlabelled)):
        unlabelled = None
    steps = -(-len(pairs) // options.batch_size)
    limit = _passes(steps, options) if epochs is None else epochs
    stride = -(-LOOK // steps)
    threads = _one_thread() if len(pairs) * len(documents) < SMALL else nullcontext()
    with _seeded(options.seed), threads:
        start_adapter(adapter, pairs, documents, options, unlabelled)
        adapter.to(device).train()
        sources = [_Source(pairs, 1.0 - (options.unlabelled_weight if unlabelled else 0.0), device)]
        if unlabelled is not None:
            sources.append(_Source(unlabelled, options.unlabelled_weight, device))
        run = _Run(adapter, torch.from_numpy(documents).to(device), options)
        scores: list[float] = []
        best, best_epoch, looks = _copy(adapter), 0, 0
        for number in range(limit + 1):
            if number:
                run.one_pass(sources)
            if number % stride and number < limit:
                continue
            score, looks = None, looks + 1
            if validation is not None:
                score = log_likelihood(adapter, validation, documents, options, device=device)
                scores.append(score)
            if score is None or score > max(scores[:-1], default=-math.inf):
                best, best_epoch, looks = _copy(adapter), number, 0
            if on_epoch is not None:
                on_epoch(Epoch(number, number * steps, score, _frozen(adapter, best)))
            if validation is not None and looks >= options.patience:
                break
        adapter.load_state_dict(best)
    adapter.to("cpu").eval()
    return Training(best_epoch, scores)


def start_adapter(
    adapter: BaseAdapter,
    pairs: Pairs,
    documents: Float32,
    options: AdapterOptions,
    unlabelled: Pairs | None = None,
) -> None:
    """Give a known module that is still the identity the whitened start; leave others alone."""
    if options.start == "identity" or options.start_strength == 0:
        return
    place = _PLACES.get(type(adapter))
    probe = np.ascontiguousarray(pairs.vectors[:8])
    if place is None or not np.allclose(map_vectors(adapter, probe), probe, atol=1e-6):
        return
    with torch.no_grad():
        place(adapter, whitening(pairs, documents, options, unlabelled))


def map_vectors(adapter: BaseAdapter, vectors: Float32, *, device: str = "cpu") -> Float32:
    """The adapter's output for `vectors`, both of shape `(n, dim)`; not normalised."""
    adapter.to(device)
    training = adapter.training
    adapter.eval()
    with torch.no_grad():
        parts = [
            adapter(torch.from_numpy(vectors[first : first + MAP_BLOCK]).to(device)).cpu().numpy()
            for first in range(0, len(vectors), MAP_BLOCK)
        ]
    adapter.train(training)
    return np.concatenate(parts) if parts else vectors


def log_likelihood(
    adapter: BaseAdapter,
    pairs: Pairs,
    documents: Float32,
    options: AdapterOptions,
    *,
    device: str = "cpu",
) -> float:
    """Mean logarithm of the softmax's mass on the relevant documents; at most 0.

    It ranks passes as nDCG@10 does but with less noise: on a hundred queries nDCG@10 moves by
    whole ranks.
    """
    adapter.to(device)
    training = adapter.training
    adapter.eval()
    mass: list[Tensor] = []
    with torch.no_grad():
        against = torch.from_numpy(documents).to(device)
        if options.side == "both":
            against = normalize(adapter(against), dim=1)
        for first in range(0, len(pairs), SCORE_BLOCK):
            part = pairs.take(np.arange(first, min(first + SCORE_BLOCK, len(pairs))))
            queries = normalize(adapter(torch.from_numpy(part.vectors).to(device)), dim=1)
            chances = ((options.scale or LEAST_SCALE) * (queries @ against.T)).softmax(1)
            owners, rows = (torch.from_numpy(side).to(device) for side in part.flat())
            found = torch.zeros(len(part), device=device)
            mass.append(found.index_add(0, owners, chances[owners, rows]))
    adapter.train(training)
    return float(torch.cat(mass).clamp_min(1e-12).log().mean())


class _Source:
    """Pairs as tensors, drawn batch by batch."""

    def __init__(self, pairs: Pairs, share: float, device: str) -> None:
        self.share = share
        self.vectors = torch.from_numpy(np.ascontiguousarray(pairs.vectors)).to(device)
        self.weights = torch.from_numpy(pairs.weight_column()[:, 0]).to(device)
        self.positives = pairs.positives


class AdamW:
    """Loshchilov and Hutter 2019. `torch.optim` would import the compiler first: seconds."""

    def __init__(self, parameters: Iterable[Tensor], rate: float, decay: float) -> None:
        self.rate, self.decay, self.count = rate, decay, 0
        trained = [p for p in parameters if p.requires_grad]
        self.moments = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in trained]

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients, which are cleared."""
        self.count += 1
        first_part, second_part = 1 - 0.9**self.count, 1 - 0.999**self.count
        for parameter, first, second in self.moments:
            if parameter.grad is None:
                continue
            first.lerp_(parameter.grad, 0.1)
            second.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
            length = (second / second_part).sqrt_().add_(1e-8)
            parameter.mul_(1 - self.rate * self.decay)
            parameter.addcdiv_(first, length, value=-self.rate / first_part)
            parameter.grad = None


class _Run:
    """The optimiser, the documents and the random numbers of one training run."""

    def __init__(self, adapter: BaseAdapter, documents: Tensor, options: AdapterOptions) -> None:
        self.adapter, self.documents, self.options = adapter, documents, options
        self.generator = torch.Generator().manual_seed(options.seed)
        self.optimiser = AdamW(adapter.parameters(), options.learning_rate, options.weight_decay)

    def one_pass(self, sources: list[_Source]) -> None:
        """Each query of the first source once; of the others a random batch in each step."""
        first, *others = sources
        for rows in torch.split(self._shuffled(first), self.options.batch_size):
            loss = first.share * self._loss(first, rows)
            for other in others:
                batch = self._shuffled(other)[: self.options.batch_size]
                loss = loss + other.share * self._loss(other, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()

    def _shuffled(self, source: _Source) -> Tensor:
        return torch.randperm(len(source.vectors), generator=self.generator)

    def _loss(self, source: _Source, rows: Tensor) -> Tensor:
        """Cross-entropy of softmax(scale · cosines) against the relevant documents."""
        positives = [source.positives[row] for row in rows.tolist()]
        owners = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(p) for p in positives]))
        relevant = torch.from_numpy(np.concatenate(positives))
        documents, columns = self._candidates(relevant)
        queries = normalize(self.adapter(source.vectors[rows]), dim=1)
        logits = (self.options.scale or LEAST_SCALE) * (queries @ documents.T)
        shares = 1.0 / torch.bincount(owners, minlength=len(rows)).to(logits)[owners]
        wanted = torch.zeros(len(rows)).to(logits)
        wanted = wanted.index_add(0, owners.to(logits.device), logits[owners, columns] * shares)
        weights = source.weights[rows]
        return ((logits.logsumexp(1) - wanted) * weights).sum() / weights.sum()

    def _candidates(self, relevant: Tensor) -> tuple[Tensor, Tensor]:
        """Documents of this step's softmax and the columns of the relevant ones in it."""
        total, limit = len(self.documents), self.options.documents_per_step
        documents, columns = self.documents, relevant
        if total > limit:
            drawn = torch.randint(total, (limit,), generator=self.generator)
            chosen = torch.unique(torch.cat([relevant, drawn]))
            documents, columns = self.documents[chosen], torch.searchsorted(chosen, relevant)
        if self.options.side == "both":
            documents = normalize(self.adapter(documents), dim=1)
        return documents, columns


def _place_linear(adapter: BaseAdapter, start: Whitening) -> None:
    assert isinstance(adapter, LinearLayer)
    adapter.linear.weight.copy_(torch.from_numpy(whitened_form(start).matrix()))


def _place_low_rank(adapter: BaseAdapter, start: Whitening) -> None:
    assert isinstance(adapter, LowRankLayer)
    up, down = start.low_rank(adapter.rank)
    adapter.up.weight.copy_(torch.from_numpy(up))
    adapter.down.weight.copy_(torch.from_numpy(down))


def _place_two_layer(adapter: BaseAdapter, start: Whitening) -> None:
    """relu(v·x) - relu(-v·x) = v·x: two hidden units carry one direction exactly."""
    assert isinstance(adapter, TwoLayerNN)
    relu = adapter.activation_fn_str == "relu"
    if not relu or not adapter._add_residual or adapter.residual_weight.item() != 1.0:
        return
    up, down = start.low_rank(adapter.hidden_features // 2)
    rank = len(down)
    for first, sign in ((0, 1.0), (rank, -1.0)):
        units = slice(first, first + rank)
        adapter.linear1.weight[units].copy_(sign * torch.from_numpy(down))
        adapter.linear1.bias[units].zero_()
        adapter.linear2.weight[:, units].copy_(sign * torch.from_numpy(up))


_PLACES: dict[type[BaseAdapter], Callable[[BaseAdapter, Whitening], None]] = {
    LinearLayer: _place_linear,
    LowRankLayer: _place_low_rank,
    TwoLayerNN: _place_two_layer,
}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed modules that draw from the global generator, such as dropout, and put it back."""
    before = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices this small gain little from threads and lose much where other work runs too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _passes(steps: int, options: AdapterOptions) -> int:
    """How many passes of so many steps the options allow."""
    passes = -(-options.max_steps // steps)
    return passes if options.max_epochs is None else min(passes, options.max_epochs)


def _frozen(adapter: BaseAdapter, state: State) -> Callable[[], BaseAdapter]:
    def made() -> BaseAdapter:
        module = copy.deepcopy(adapter)
        module.load_state_dict(state)
        return module

    return made


def _copy(adapter: BaseAdapter) -> State:
    return {name: value.detach().cpu().clone() for name, value in adapter.state_dict().items()}
