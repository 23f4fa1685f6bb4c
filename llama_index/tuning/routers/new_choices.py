"""How a choice without training gets its row: tried on choices held out of the training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.routers.data import RouterData, stratified_folds, training_rows
from llama_index.tuning.routers.fit import Setting, fit_rows
from llama_index.tuning.routers.linear import Solution, prototypes
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.serving.model import NewChoice, make_row
from llama_index.tuning.vectors.search import unit_rows

DRAWS = 2
MIN_CHOICES = 6
"""With fewer, holding one out says little about the next: the defaults stay."""
EXAMPLES = 3
MAX_QUERIES = 4000
STRETCHES = (0.6, 0.8, 1.0, 1.25, 1.5, 2.0)
OLD_LOSS = 0.01
"""What the old choices may lose, as a share of their queries."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What routers showed that never saw some of the choices.

    Attributes:
        by_description: the rule for a choice known by its description.
        by_examples: the rule for a choice with a few examples.
        inside: largest logits of unseen queries of seen choices, shape `(n,)`.
        outside: largest logits of queries of the choices held out, shape `(m,)`.
    """

    by_description: NewChoice
    by_examples: NewChoice
    inside: Float32
    outside: Float32


def hold_out(data: RouterData, options: RouterOptions, setting: Setting) -> HeldOut:
    """Train without some choices, twice; then add them, and send their queries."""
    counts = np.bincount(data.labels, minlength=data.choices)
    usable = np.flatnonzero(counts > EXAMPLES)
    if len(usable) < MIN_CHOICES:
        none = np.empty(0, np.float32)
        return HeldOut(NewChoice(), NewChoice(), none, none)
    draw = np.random.default_rng(options.seed)
    fold = stratified_folds(data, 3, options.seed)
    trials = [_Trial.of(data, options, setting, fold, usable, draw) for _ in range(DRAWS)]
    by_examples = [trial.scored(trial.exampled) for trial in trials]
    described = [t.scored(t.described) for t in trials if t.described is not None]
    first = [scored[0] for scored in by_examples]
    return HeldOut(
        _best(described) if described else NewChoice(),
        _best(by_examples),
        np.concatenate([scored.old[~scored.is_new] for scored in first]),
        np.concatenate([scored.old[scored.is_new] for scored in first]),
    )


class _Trial:
    """A router that never saw some choices, and queries of both kinds."""

    def __init__(
        self,
        solution: Solution,
        seen: Float32,
        described: Float32 | None,
        exampled: Float32,
        vectors: Float32,
        truth: Ints,
    ) -> None:
        self.solution, self.seen = solution, seen
        self.described, self.exampled = described, exampled
        self.vectors, self.truth = vectors, truth

    @classmethod
    def of(
        cls,
        data: RouterData,
        options: RouterOptions,
        setting: Setting,
        fold: Ints,
        usable: Ints,
        draw: np.random.Generator,
    ) -> _Trial:
        hidden = np.sort(draw.choice(usable, max(1, len(usable) // 6), replace=False))
        old = np.setdiff1d(np.arange(data.choices), hidden)
        place = np.full(data.choices, -1)
        place[old], place[hidden] = np.arange(len(old)), len(old) + np.arange(len(hidden))
        rows = training_rows(
            data,
            np.flatnonzero(fold > 0),
            None,
            balanced=options.balanced,
        )
        rows = rows.take(np.flatnonzero(np.isin(rows.labels, old)))
        rows = type(rows)(rows.vectors, place[rows.labels], rows.weights)
        shown, directions = [], []
        for choice in hidden:
            own = draw.permutation(data.owner[data.labels == choice])[:EXAMPLES]
            shown.append(own)
            directions.append(data.vectors[own].sum(axis=0) + data.described[choice])
        described = data.described[hidden]
        has_all = bool((np.einsum("ij,ij->i", described, described) > 0).all())
        is_new = np.isin(data.labels, hidden)
        keep = (fold[data.owner] == 0) | is_new
        keep &= ~np.isin(data.owner, np.concatenate(shown))
        test = draw.permutation(np.flatnonzero(keep))[:MAX_QUERIES]
        return cls(
            fit_rows(rows, data.described[old], setting),
            prototypes(rows, len(old)),
            described if has_all else None,
            unit_rows(np.stack(directions)),
            data.vectors[data.owner[test]],
            place[data.labels[test]],
        )

    def scored(self, directions: Float32) -> list[_Scored]:
        """The scores with each stretch, the new rows without a bias of their own."""
        weight, bias = self.solution.weight, self.solution.bias
        old = self.vectors @ weight.T + bias
        found = []
        for stretch in STRETCHES:
            rule = NewChoice(stretch, 0.0)
            rows = [make_row(weight, bias, self.seen, d, rule) for d in directions]
            new = np.stack([self.vectors @ row + shift for row, shift in rows], axis=1)
            found.append(_Scored.of(old, new, self.truth))
        return found


@dataclass(frozen=True, eq=False)
class _Scored:
    """For each query the best old and the best new choice, and whether each is right."""

    old: Float32
    old_right: NDArray[np.bool_]
    new: Float32
    new_right: NDArray[np.bool_]
    is_new: NDArray[np.bool_]

    @classmethod
    def of(cls, old: Float32, new: Float32, truth: Ints) -> _Scored:
        width = old.shape[1]
        return cls(
            old.max(axis=1),
            old.argmax(axis=1) == truth,
            new.max(axis=1),
            new.argmax(axis=1) + width == truth,
            truth >= width,
        )

    def outcome(self, bias: float) -> tuple[float, float]:
        """(what the old choices lose, the mean of old and new accuracy)."""
        right = np.where(self.new + bias > self.old, self.new_right, self.old_right)
        was, now = self.old_right[~self.is_new].mean(), right[~self.is_new].mean()
        return float(was - now), float(now + right[self.is_new].mean()) / 2


def _best(trials: list[list[_Scored]]) -> NewChoice:
    """The stretch and bias with the best mean of old and new, if the old lose little."""
    candidates = []
    for number, stretch in enumerate(STRETCHES):
        parts = [trial[number] for trial in trials]
        gaps = np.concatenate([part.old - part.new for part in parts])
        for bias in np.quantile(gaps, np.linspace(0.02, 0.98, 49)):
            loss, mean = np.mean([part.outcome(float(bias)) for part in parts], axis=0)
            fine = loss <= OLD_LOSS
            candidates.append((fine, mean if fine else -loss, stretch, float(bias)))
    _, _, stretch, bias = max(candidates)
    return NewChoice(stretch, bias)
