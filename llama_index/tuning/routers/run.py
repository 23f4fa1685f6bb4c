"""One tuning run: cross-fit, fit, calibrate, measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning._running import progress
from llama_index.tuning.base import Clock
from llama_index.tuning.routers.calibrate import (
    margin_for,
    margins,
    scope_reference,
    scope_threshold,
    several_threshold,
)
from llama_index.tuning.routers.cross_fit import CrossFit, cross_fit, scope_scores
from llama_index.tuning.routers.data import (
    RouterData,
    Targets,
    query_rows,
    sharpness_of,
    training_rows,
)
from llama_index.tuning.routers.fit import Setting, fit_all, one_thread
from llama_index.tuning.routers.linear import Solution, prototypes
from llama_index.tuning.routers.measure import Measured
from llama_index.tuning.routers.new_choices import HeldOut, hold_out
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.serving.model import Kept, Lexicon, RouterModel, probabilities

MAX_CROSS_FIT = 20_000
"""Cross-fitting looks at no more examples than this; the final fit sees all."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a run leaves: the router, the scores it was measured with, and where to go on from.

    Attributes:
        model: the router.
        measured: scores of the training queries by cross-fitting.
        setting: what was chosen.
        noise: estimated share of wrong labels.
        held_out: what routers showed that never saw some choices.
        solution: the weights, for the next run.
        lexicon: the words that the weights belong to.
    """

    model: RouterModel
    measured: Measured
    setting: Setting
    noise: float
    held_out: HeldOut
    solution: Solution
    lexicon: Lexicon | None


def train(
    data: RouterData,
    options: RouterOptions,
    clock: Clock,
    *,
    base_model: str = "",
    before: Run | None = None,
    show_progress: bool = False,
) -> Run:
    """Choose the setting by cross-fitting, fit on everything, calibrate.

    Args:
        data: the data.
        options: the options.
        clock: notes the seconds of each step.
        base_model: name of the embedding model.
        before: a run on fewer examples to go on from; its setting is kept.
        show_progress: show a bar over the folds.
    """
    known = None if before is None else before.setting
    with one_thread():
        with clock.step("cross-fit"):
            kept = _sampled(data, options)
            sample = data if len(kept) == len(data.dataset) else data.subset(kept)
            found = cross_fit(
                sample,
                options,
                known=known,
                steps=lambda folds: progress(folds, show_progress, "Cross-fitting"),
            )
            factors, noise = found.trust()
            if found.chosen.noise_robust:
                data = _weighted(data, kept, factors)
                sample = sample.reweighted(factors)
        with clock.step("fit"):
            solution, lexicon = fit_all(data, options, found.chosen, _start(before))
        with clock.step("calibrate"):
            held_out = hold_out(sample, options, found.chosen)
            model = _model(data, options, solution, lexicon, held_out)
            scores = scope_scores(sample, options, found.chosen)
            model, measured = _calibrated(model, sample, options, found)
            model = replace(
                model,
                threshold=scope_threshold(scores, options.in_scope_recall),
                scores=scope_reference(scores, held_out, options.in_scope_recall),
            )
    model = replace(model, base_model=base_model)
    return Run(model, measured, found.chosen, noise, held_out, solution, lexicon)


def measure(run: Run, data: RouterData) -> Measured:
    """Scores of queries that no part of the run saw."""
    examples = data.in_scope
    logits = scores_of(run, data, examples)
    return Measured(data, examples, logits, probabilities(logits, run.model.sharpness))


def scores_of(run: Run, data: RouterData, examples: Ints) -> Float32:
    """The router's logits, shape `(n, choices)`."""
    return run.solution.logits(query_rows(data, examples, run.lexicon))


def _calibrated(
    model: RouterModel, data: RouterData, options: RouterOptions, found: CrossFit
) -> tuple[RouterModel, Measured]:
    """Sharpness and margins from held-out scores, each fold's by the other folds."""
    logits = found.honest()
    targets = Targets.of(data, found.examples)
    sharpness = sharpness_of(logits, targets)
    chances = np.empty_like(logits)
    for fold in np.unique(found.folds):
        inside = found.folds == fold
        others = found.examples[~inside]
        chances[inside] = probabilities(
            logits[inside], sharpness_of(logits[~inside], Targets.of(data, others))
        )
    correct = targets.correct(logits.argmax(axis=1))
    calibrated = replace(
        model,
        sharpness=sharpness,
        margin=margin_for(margins(chances), correct, options.target_accuracy),
        several=several_threshold(data, found.examples, logits, sharpness, options.seed),
    )
    return calibrated, Measured(data, found.examples, logits, chances)


def _model(
    data: RouterData,
    options: RouterOptions,
    solution: Solution,
    lexicon: Lexicon | None,
    held_out: HeldOut,
) -> RouterModel:
    rows = training_rows(
        data,
        data.in_scope,
        None,
        balanced=False,
    )
    return RouterModel(
        choices=dict(data.dataset.choices),
        weight=solution.weight,
        bias=solution.bias,
        prototypes=prototypes(rows, data.choices),
        descriptions=data.described,
        kept=_kept(data, options),
        sharpness=1.0,
        threshold=-np.inf,
        by_description=held_out.by_description,
        by_examples=held_out.by_examples,
        lexicon=lexicon if solution.words is not None else None,
        words=solution.words,
    )


def _kept(data: RouterData, options: RouterOptions) -> Kept:
    draw = np.random.default_rng(options.seed)
    order = np.argsort(data.labels, kind="stable")
    bounds = np.searchsorted(data.labels[order], np.arange(data.choices + 1))
    rows, ends = [], [0]
    for start, stop in pairwise(bounds.tolist()):
        own = data.owner[order[start:stop]]
        if len(own) > options.keep_examples:
            own = np.sort(draw.choice(own, options.keep_examples, replace=False))
        rows.append(own)
        ends.append(ends[-1] + len(own))
    chosen = np.concatenate(rows)
    return Kept(data.texts(chosen), data.vectors[chosen], ends)


def _sampled(data: RouterData, options: RouterOptions) -> Ints:
    """The examples to cross-fit: at most `MAX_CROSS_FIT`, drawn from each choice alike."""
    inside = data.in_scope
    if len(inside) <= MAX_CROSS_FIT:
        return np.arange(len(data.dataset))
    draw = np.random.default_rng(options.seed)
    first = data.labels[np.searchsorted(data.owner, inside)]
    keys = np.empty(len(inside))
    for choice in np.unique(first):
        rows = draw.permutation(np.flatnonzero(first == choice))
        keys[rows] = np.arange(len(rows)) / len(rows)
    kept: Ints = np.sort(inside[np.argsort(keys, kind="stable")[:MAX_CROSS_FIT]])
    return kept


def _weighted(data: RouterData, sampled: Ints, factors: Float32) -> RouterData:
    # Of a sample, the labels outside it were never questioned.
    every = np.ones(len(data.labels), dtype=np.float32)
    every[np.isin(data.owner, sampled)] = factors
    return data.reweighted(every)


def _start(before: Run | None) -> Solution | None:
    if before is None:
        return None
    # The words' weights start anew: more examples are another vocabulary.
    return Solution(before.solution.weight, before.solution.bias, None, 0)
