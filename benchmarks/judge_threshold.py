"""A judge's threshold where another share of the answers passes than in training.

A light judge learns from up to --size answers thinned to each of seven shares of passes, from 10 to
90 %, and is measured on others at nine shares, by Cohen's kappa against the best threshold for that
very share: the regret. Either the others are a random part, or the half with larger values of one
feature (longer answers, more support, …): another domain as well as another share.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _data import arguments
from judge_quality import judgments
from scipy.special import expit, logit

from llama_index.tuning import JudgeFinetuneEngine
from llama_index.tuning.judges import JudgeOptions
from llama_index.tuning.judges.data import judge_data_of
from llama_index.tuning.judges.light.fit import (
    calibrate,
    choose_setting,
    choose_threshold,
    fit_linear,
    held_out,
)
from llama_index.tuning.judges.records import Rows

LEARNT = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
SHARES = np.arange(1, 10) / 10


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=6)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'set':<18}{'others':<10}{'threshold':<26}{'mean':>7}{'worst share':>13}{'runs':>6}")
    for name in ("halueval_qa", "halueval_general"):
        table, labels, clusters = features(args.data, name)
        for kind in ("random", "domain"):
            rng = np.random.default_rng(0)
            found = defaultdict(list)
            for part in parts(table, kind, args.repeats, rng):
                for share in LEARNT:
                    rows = thinned(rng, labels, part, share, args.size)
                    others = np.flatnonzero(~part & ~np.isin(clusters, clusters[rows]))
                    counts = np.bincount(labels[others].astype(int), minlength=2)
                    if len(rows) * min(share, 1 - share) < 8 or counts.min() < 20:
                        continue
                    for rule, regret in regrets(rng, table, labels, clusters, rows, others):
                        found[rule].append(regret)
            for rule, values in found.items():
                mean = np.mean(values, axis=0)
                print(
                    f"{name:<18}{kind:<10}{rule:<26}{mean.mean():>7.3f}{mean.max():>13.3f}"
                    f"{len(values):>6}",
                    flush=True,
                )


def features(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The light features of all answers of a set, without vectors."""
    parts = [judgments(folder, name, split) for split in ("train", "test")]
    engine = JudgeFinetuneEngine(parts[0])
    data = [judge_data_of(part, engine.options) for part in parts]
    maker = engine._maker(data[0])
    return (
        np.concatenate([maker.table(part.items, None) for part in data]),
        np.concatenate([part.labels for part in data]),
        np.concatenate([data[0].clusters, data[1].clusters + 10**6]),
    )


def parts(
    table: np.ndarray, kind: str, repeats: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Which rows may be learnt from."""
    if kind == "random":
        for _ in range(repeats):
            yield rng.random(len(table)) < 0.6
        return
    for column in table.T:
        low = column <= np.median(column)
        if 0.3 < low.mean() < 0.7:
            yield low
            yield ~low


def thinned(
    rng: np.random.Generator, labels: np.ndarray, part: np.ndarray, share: float, size: int
) -> np.ndarray:
    """Rows of which that share passes."""
    passes, fails = (rng.permutation(np.flatnonzero(part & (labels == kind))) for kind in (1, 0))
    count = min(size, len(passes) / share, len(fails) / (1 - share))
    rows = [passes[: round(count * share)], fails[: round(count * (1 - share))]]
    return rng.permutation(np.concatenate(rows))


def regrets(
    rng: np.random.Generator,
    table: np.ndarray,
    labels: np.ndarray,
    clusters: np.ndarray,
    rows: np.ndarray,
    others: np.ndarray,
) -> Iterator[tuple[str, np.ndarray]]:
    """Rule → kappa lost at each share, against the best threshold for it."""
    known, number = np.unique(clusters[rows], return_inverse=True)
    fold = rng.permutation(len(known))[number] % 5
    given = Rows(table[rows], labels[rows], np.ones(len(rows)), fold, False)
    setting = choose_setting(given)
    logits = held_out(given, lambda part: fit_linear(part, setting))
    line = calibrate(logits, given)
    chances = line.chances(logits)
    asked = line.chances(fit_linear(given, setting).logits(table[others]))
    share = float(given.labels.mean())
    rules = {
        "default: between the means": choose_threshold(chances, given, JudgeOptions()),
        "best balanced accuracy": best_balanced(chances, given.labels),
        "best accuracy": choose_threshold(chances, given, JudgeOptions(target="accuracy")),
        "one half": 0.5,
        "share of passes": share,
        "between the last two": float(expit(logit(share) / 2)),
    }
    cuts = np.unique(asked)
    every = np.concatenate([[0.0], (cuts[1:] + cuts[:-1]) / 2, [1.0]])
    best = kappa(asked, labels[others], every).max(axis=1)
    for rule, threshold in rules.items():
        yield rule, best - kappa(asked, labels[others], np.array([threshold]))[:, 0]


def best_balanced(chances: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the best balanced accuracy on what it is chosen on."""
    cuts = np.unique(chances)
    every = np.concatenate([[0.0], (cuts[1:] + cuts[:-1]) / 2, [1.0]])
    values = sum(rates(chances, labels, every))
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return float(every[best[len(best) // 2]])


def rates(
    chances: np.ndarray, labels: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the passing and of the failing answers that are told right."""
    passes, fails = (np.sort(chances[labels == kind]) for kind in (1, 0))
    passed = 1 - np.searchsorted(passes, thresholds, "left") / len(passes)
    return passed, np.searchsorted(fails, thresholds, "left") / len(fails)


def kappa(chances: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Cohen's kappa, shape `(shares, thresholds)`."""
    right, wrong = rates(chances, labels, thresholds)
    pi = SHARES[:, None]
    accuracy = pi * right + (1 - pi) * wrong
    said = pi * right + (1 - pi) * (1 - wrong)
    chance = pi * said + (1 - pi) * (1 - said)
    return np.where(chance < 1, (accuracy - chance) / np.maximum(1 - chance, 1e-12), 0.0)


if __name__ == "__main__":
    main()
