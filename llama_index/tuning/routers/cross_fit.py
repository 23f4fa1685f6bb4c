"""Cross-fitting: honest scores of the training queries, and the setting that does best on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.routers.data import (
    RouterData,
    Targets,
    query_rows,
    sharpness_of,
    stratified_folds,
    training_rows,
    trust,
    twin_groups,
    word_matrix,
)
from llama_index.tuning.routers.fit import Setting, build_lexicon, fit_rows
from llama_index.tuning.routers.linear import Rows, Solution
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.serving.model import Lexicon

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TAUS = (20.0, 5.0, 80.0)
FARTHER = {5.0: (1.5,), 80.0: (320.0,)}
"""Tried if the end of the grid is the best of it."""
WORDS = (0.5, 1.0, 2.0)
DESCRIBED = (5.0, 10.0)
"""Tried one after the other while they help."""
NOISE_TO_ACT = 0.05
"""If a larger share of labels looks wrong, doubting them is tried: some always do."""

SHOWN = 1.64
"""Standard errors by which `noise_robust` must get more labels right: 5 %, one-sided."""


@dataclass(eq=False)
class CrossFit:
    """Scores of examples by models that did not train on them.

    Attributes:
        data: the data.
        examples: which examples were scored.
        folds: the fold of each, shape `(n,)`.
        logits: of each setting tried, shape `(n, choices)`.
        losses: of each setting, one value for each example.
        chosen: the setting that did best.
    """

    data: RouterData
    examples: Ints
    folds: Ints
    logits: dict[Setting, Float32] = field(default_factory=dict)
    losses: dict[Setting, NDArray[np.float64]] = field(default_factory=dict)
    chosen: Setting = field(default_factory=lambda: Setting(TAUS[0]))

    def honest(self) -> Float32:
        """Logits of each example under the setting that the *other* folds chose."""
        found = np.empty_like(self.logits[self.chosen])
        for fold in np.unique(self.folds):
            inside = self.folds == fold
            found[inside] = self.logits[self.best(~inside)][inside]
        return found

    def trust(self) -> tuple[Float32, float]:
        """A factor for each label of the data, and the share that looks wrong."""
        plain = replace(self.chosen, noise_robust=False)
        return trust(self.data, self.examples, self.logits[plain])

    def best(self, among: NDArray[np.bool_] | slice = slice(None)) -> Setting:
        """The setting with the smallest loss on some of the examples.

        Labels are doubted if that is shown to get more of them right. Their log loss would not
        tell: it punishes being certain of what a wrong label contradicts.
        """
        plain = [setting for setting in self.losses if not setting.noise_robust]
        best = min(plain, key=lambda setting: float(self.losses[setting][among].mean()))
        targets = Targets.of(self.data, self.examples)
        before = targets.correct(self.logits[best].argmax(axis=1))[among]
        for setting in self.losses:
            if setting.noise_robust:
                after = targets.correct(self.logits[setting].argmax(axis=1))[among]
                won, lost = int((after & ~before).sum()), int((before & ~after).sum())
                if won - lost > SHOWN * (won + lost) ** 0.5:
                    return setting
        return best


def cross_fit(
    data: RouterData,
    options: RouterOptions,
    *,
    known: Setting | None = None,
    groups: list[list[int]] | None = None,
    steps: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> CrossFit:
    """Score each in-scope example by a model of the other folds; choose the setting.

    Args:
        data: the data.
        options: the options.
        known: a setting chosen before; the search is left out then.
        groups: examples that stay in one fold; by default equal queries.
        steps: wraps the folds, for a progress bar.
    """
    fold_of = stratified_folds(data, _fold_count(data, options), options.seed, groups)
    examples = np.flatnonzero(fold_of >= 0)
    found = CrossFit(data, examples, fold_of[examples])
    folds = [_Fold(found, options, fold) for fold in np.unique(found.folds).tolist()]
    if known is None:
        _search(found, folds, options, steps)
    else:
        _try(found, folds, [replace(known, noise_robust=False)], steps)
    found.chosen = found.best()
    if options.robust if known is None else known.noise_robust:
        noisy = known is not None or found.trust()[1] >= NOISE_TO_ACT
        if noisy and _doubt(found, folds, found.chosen):
            _try(found, folds, [replace(found.chosen, noise_robust=True)], iter)
    found.chosen = known if known is not None and known in found.losses else found.best()
    return found


def scope_scores(data: RouterData, options: RouterOptions, setting: Setting) -> Float32:
    """The largest logit of each in-scope example, as of queries that nobody wrote twice.

    By models of one setting, for a logit's size hangs on it, that saw neither the example nor its
    twin: with the twin in training, scores are higher than an app's queries get, and the share
    that a threshold keeps is less than it promises.
    """
    plain = replace(setting, noise_robust=False)
    found = cross_fit(data, options, known=plain, groups=twin_groups(data))
    scores: Float32 = found.logits[plain].max(axis=1)
    return scores


def _search(
    found: CrossFit,
    folds: list[_Fold],
    options: RouterOptions,
    steps: Callable[[Iterable[int]], Iterable[int]],
) -> None:
    """Try one thing after the other, each beside the best so far."""
    words = WORDS[0] if options.words is True else 0.0
    taus = TAUS if options.tau == "auto" else (float(options.tau),)
    best = _try(found, folds, [Setting(tau, words) for tau in taus], steps)
    if options.tau == "auto":
        best = _while_better(found, folds, [Setting(t, words) for t in FARTHER.get(best.tau, ())])
    if options.words:
        best = _while_better(found, folds, [replace(best, words=w) for w in WORDS if w != words])
    if len(found.data.has_description):
        _while_better(found, folds, [replace(best, described=d) for d in DESCRIBED])


def _while_better(found: CrossFit, folds: list[_Fold], settings: list[Setting]) -> Setting:
    for setting in settings:
        if _try(found, folds, [setting], iter) != setting:
            break
    return found.best()


def _try(
    found: CrossFit,
    folds: list[_Fold],
    settings: list[Setting],
    steps: Callable[[Iterable[int]], Iterable[int]],
) -> Setting:
    """Score some settings on every fold; the best of all so far."""
    shape = (len(found.examples), found.data.choices)
    for setting in settings:
        found.logits[setting] = np.zeros(shape, dtype=np.float32)
    for number in steps(range(len(folds))):
        for setting in settings:
            fold = folds[number]
            found.logits[setting][fold.inside] = fold.scored(setting)
    targets = Targets.of(found.data, found.examples)
    for setting in settings:
        logits = found.logits[setting]
        found.losses[setting] = targets.losses(logits, sharpness_of(logits, targets))
    return found.best()


def _doubt(found: CrossFit, folds: list[_Fold], setting: Setting) -> bool:
    """Trust in the labels of each fold's training part, by models that saw none of the fold.

    A model without two folds judges the one for the other. With fewer than three folds there is
    nothing left to train on.
    """
    if len(folds) < 3:
        return False
    data, examples = found.data, found.examples
    logits = {fold.number: found.logits[setting].copy() for fold in folds}
    for one, two in combinations(folds, 2):
        rows, lexicon = one.without(two, setting)
        solution = fit_rows(rows, data.described, setting, one.solution)
        for outer, inner in ((one, two), (two, one)):
            asked = query_rows(data, examples[inner.inside], lexicon)
            logits[outer.number][inner.inside] = solution.logits(asked)
    for fold in folds:
        rest = ~fold.inside
        fold.factors = trust(data, examples[rest], logits[fold.number][rest])[0]
    return True


class _Fold:
    """One fold held out: fits of the others, each started from the last."""

    def __init__(self, found: CrossFit, options: RouterOptions, number: int) -> None:
        self.number, self.options = number, options
        self.data = found.data
        self.inside = found.folds == number
        self.asked, self.train = found.examples[self.inside], found.examples[~self.inside]
        self.factors: Float32 | None = None
        self.solution: Solution | None = None
        self._words: tuple[Lexicon, csr_matrix, csr_matrix] | None = None

    def scored(self, setting: Setting) -> Float32:
        """Logits of the fold by a model of the others, shape `(len(asked), choices)`."""
        rows, asked = self._rows(setting)
        solution = fit_rows(rows, self.data.described, setting, self.solution)
        self.solution = replace(solution, words=None)
        return solution.logits(asked)

    def without(self, other: _Fold, setting: Setting) -> tuple[Rows, Lexicon | None]:
        """What is left without another fold too."""
        left = np.setdiff1d(self.train, other.asked)
        lexicon = build_lexicon(self.data, self.data.texts(left), setting.words)
        return self._training_rows(self.data, left, lexicon), lexicon

    def _rows(self, setting: Setting) -> tuple[Rows, Rows]:
        data = self.data
        if setting.noise_robust and self.factors is not None:
            data = data.reweighted(self.factors)
        rows = self._training_rows(data, self.train, None)
        asked = query_rows(self.data, self.asked, None)
        found = self._word_matrices() if setting.words else None
        if found is None:
            return rows, asked
        return (
            replace(rows, words=found[1] * np.float32(setting.words)),
            replace(asked, words=found[2] * np.float32(setting.words)),
        )

    def _word_matrices(self) -> tuple[Lexicon, csr_matrix, csr_matrix] | None:
        """Word features of length 1, made once."""
        if self._words is None:
            lexicon = build_lexicon(self.data, self.data.texts(self.train), 1.0)
            if lexicon is None:
                return None
            train = self._training_rows(self.data, self.train, lexicon).words
            asked = word_matrix(lexicon, self.data.texts(self.asked))
            self._words = (lexicon, train, asked)
        return self._words

    def _training_rows(self, data: RouterData, examples: Ints, lexicon: Lexicon | None) -> Rows:
        return training_rows(
            data,
            examples,
            lexicon,
            balanced=self.options.balanced,
        )


def _fold_count(data: RouterData, options: RouterOptions) -> int:
    counts = np.bincount(data.labels, minlength=data.choices)
    typical = int(np.median(counts[counts > 0])) if (counts > 0).any() else 2
    return max(2, min(options.folds, typical))
