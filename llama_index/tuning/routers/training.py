"""Training a router: settings chosen by cross-fitting, then one fit on everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.routers.lexicon import Lexicon
from llama_index.tuning.routers.linear import FloatArray, IntArray, Solution, fit
from llama_index.tuning.routers.material import (
    Material,
    query_rows,
    stratified_folds,
    training_rows,
)
from llama_index.tuning.routers.model import probabilities
from llama_index.tuning.routers.options import RouterOptions

TAUS = (20.0, 5.0, 80.0)
WORDS = (0.5, 1.0, 2.0)
"""Lengths of the words' features beside the vector's, which is 1; tried while they help."""
MAX_TERMS = 1000
NOISE_TO_ACT = 0.05
"""Share of labels that look wrong from which they are weighed down: some always do."""


@dataclass(frozen=True)
class Setting:
    """What cross-fitting chooses: the prior's variance, and how much words count."""

    tau: float
    words: float = 0.0


@dataclass(eq=False)
class CrossFit:
    """Scores of examples by models that did not train on them.

    Attributes:
        examples: which examples were scored.
        folds: the fold of each, shape `(n,)`.
        logits: of each setting tried, shape `(n, choices)`.
        losses: of each setting, one value for each example.
        chosen: the setting with the smallest loss.
        solutions: the last weights of each fold, to start its next fit from.
    """

    examples: IntArray
    folds: IntArray
    logits: dict[Setting, FloatArray] = field(default_factory=dict)
    losses: dict[Setting, NDArray[np.float64]] = field(default_factory=dict)
    chosen: Setting = field(default_factory=lambda: Setting(TAUS[0]))
    solutions: dict[int, Solution] = field(default_factory=dict)

    def honest(self) -> FloatArray:
        """Logits of each example under the setting that the *other* folds chose."""
        found = np.empty_like(self.logits[self.chosen])
        for fold in np.unique(self.folds):
            inside = self.folds == fold
            best = min(self.losses, key=lambda s: float(self.losses[s][~inside].mean()))
            found[inside] = self.logits[best][inside]
        return found


def cross_fit(
    material: Material,
    options: RouterOptions,
    *,
    known: Setting | None = None,
    steps: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> CrossFit:
    """Score each in-scope example by a model of the other folds; choose the setting.

    Args:
        material: the data.
        options: the options.
        known: a setting chosen before; the search is left out then.
        steps: wraps the folds, for a progress bar.
    """
    fold_of = stratified_folds(material, _fold_count(material, options), options.seed)
    examples = np.flatnonzero(fold_of >= 0)
    found = CrossFit(examples, fold_of[examples])
    first = _settings(options) if known is None else [known]
    folds = np.unique(found.folds)
    for fold in steps(folds.tolist()):
        for setting in first:
            _score(material, options, found, setting, int(fold))
    best = _finish(material, found)
    for scale in WORDS if known is None and options.words else ():
        if Setting(best.tau, scale) in found.losses:
            continue
        for fold in folds:
            _score(material, options, found, Setting(best.tau, scale), int(fold))
        best = _finish(material, found)
        if best.words != scale:
            break
    found.chosen = best
    return found


def fit_all(
    material: Material, options: RouterOptions, setting: Setting, start: Solution | None = None
) -> tuple[Solution, Lexicon | None]:
    """The final fit, on every in-scope example."""
    lexicon = _lexicon(material, material.in_scope, setting)
    rows = training_rows(
        material,
        material.in_scope,
        lexicon,
        balanced=options.balanced,
        description_weight=options.description_weight,
    )
    return fit(rows, material.choices, setting.tau, start=start), lexicon


def sharpness_of(logits: FloatArray, targets: Targets) -> float:
    """The factor on the logits that makes their probabilities calibrated (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    if logits.shape[1] < 2:
        return 1.0
    done = minimize_scalar(
        lambda log: float(targets.losses(logits, float(np.exp(log))).mean()),
        bounds=(-3.0, 3.0),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(done.x))


@dataclass(frozen=True, eq=False)
class Targets:
    """The right choices of some examples, in rows of their own."""

    owner: IntArray
    labels: IntArray
    size: int

    @classmethod
    def of(cls, material: Material, examples: IntArray) -> Targets:
        place = np.full(len(material.dataset), -1)
        place[examples] = np.arange(len(examples))
        keep = place[material.owner] >= 0
        return cls(place[material.owner[keep]], material.labels[keep], len(examples))

    def losses(self, logits: FloatArray, sharpness: float) -> NDArray[np.float64]:
        """Log loss of each example; of an example with several choices, their mean."""
        likely = np.maximum(probabilities(logits, sharpness)[self.owner, self.labels], 1e-12)
        total = np.bincount(self.owner, weights=-np.log(likely), minlength=self.size)
        counts = np.bincount(self.owner, minlength=self.size)
        mean: NDArray[np.float64] = total / np.maximum(counts, 1)
        return mean

    def correct(self, predicted: IntArray) -> NDArray[np.bool_]:
        """Whether the predicted choice is one of the right ones."""
        right = np.zeros(self.size, dtype=bool)
        right[self.owner[predicted[self.owner] == self.labels]] = True
        return right


def trust(material: Material, found: CrossFit) -> tuple[FloatArray, float]:
    """How far each label is to be trusted, and the share of labels that look wrong.

    A label looks wrong where held-out models find another choice as likely as they usually find
    that choice for its own examples (confident learning, Northcutt et al. 2021). It then counts
    by how likely it is beside the other choice.
    """
    targets = Targets.of(material, found.examples)
    logits = found.logits[found.chosen]
    chances = probabilities(logits, sharpness_of(logits, targets))
    own = chances[targets.owner, targets.labels]
    totals = np.bincount(targets.labels, weights=own, minlength=material.choices)
    counts = np.bincount(targets.labels, minlength=material.choices)
    usual = np.where(counts > 0, totals / np.maximum(counts, 1), np.inf)
    wanted = np.zeros(chances.shape, dtype=bool)
    wanted[targets.owner, targets.labels] = True
    rival = np.where((chances >= usual) & ~wanted, chances, 0).max(axis=1)[targets.owner]
    wrong = rival > own
    factors = np.ones(len(material.labels), dtype=np.float32)
    inside = np.isin(material.owner, found.examples)
    factors[inside] = np.where(wrong, np.maximum(own / np.maximum(rival, 1e-9), 0.01), 1)
    return factors, float(wrong.mean())


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrix products use one thread: several, with a busy neighbour, wait for each other."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _settings(options: RouterOptions) -> list[Setting]:
    taus = TAUS if options.tau == "auto" else (float(options.tau),)
    return [Setting(tau, WORDS[0] if options.words is True else 0.0) for tau in taus]


def _fold_count(material: Material, options: RouterOptions) -> int:
    counts = np.bincount(material.labels, minlength=material.choices)
    typical = int(np.median(counts[counts > 0])) if (counts > 0).any() else 2
    return max(2, min(options.folds, typical))


def _lexicon(material: Material, examples: IntArray, setting: Setting) -> Lexicon | None:
    if not setting.words:
        return None
    texts = material.texts(examples)
    built = Lexicon.build(texts, scale=setting.words, max_terms=MAX_TERMS)
    return built if len(built) else None


def _score(
    material: Material,
    options: RouterOptions,
    found: CrossFit,
    setting: Setting,
    fold: int,
) -> None:
    """Fit without one fold, score it, and keep both."""
    inside = found.folds == fold
    train = found.examples[~inside]
    lexicon = _lexicon(material, train, setting)
    rows = training_rows(
        material,
        train,
        lexicon,
        balanced=options.balanced,
        description_weight=options.description_weight,
    )
    begin = found.solutions.get(fold)
    solution = fit(rows, material.choices, setting.tau, start=begin)
    found.solutions[fold] = Solution(solution.weight, solution.bias, None, 0)
    scores = found.logits.setdefault(
        setting, np.zeros((len(found.examples), material.choices), dtype=np.float32)
    )
    scores[inside] = solution.logits(query_rows(material, found.examples[inside], lexicon))


def _finish(material: Material, found: CrossFit) -> Setting:
    targets = Targets.of(material, found.examples)
    for setting, logits in found.logits.items():
        if setting not in found.losses:
            found.losses[setting] = targets.losses(logits, sharpness_of(logits, targets))
    return min(found.losses, key=lambda setting: float(found.losses[setting].mean()))
