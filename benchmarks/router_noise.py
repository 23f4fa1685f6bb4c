"""Wrong labels and uneven choices: 10 % of the labels flipped; 100 : 1 imbalance.

The prior's variance is fixed and no words are used, to spare the search.

    python benchmarks/router_noise.py --data ../shared/data
"""

from __future__ import annotations

import warnings

import numpy as np
from _routing import arguments, load, tuned

from llama_index.tuning.evaluate.routing import macro_f1
from llama_index.tuning.routers.data import RouterData
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.run import scores_of


def show(name: str, train: RouterData, test: RouterData, **options: bool) -> None:
    run, _ = tuned(train, RouterOptions(tau=20.0, words=False, **options))
    found = scores_of(run, test, np.arange(len(test.dataset))).argmax(axis=1)
    right = (found == test.labels).mean() * 100
    score = macro_f1(test.labels, found) * 100
    print(f"{name:<34}{right:>9.1f}{score:>9.1f}{run.noise:>13.3f}", flush=True)


def flipped(train: RouterData, share: float) -> RouterData:
    draw = np.random.default_rng(0)
    labels = train.labels.copy()
    rows = draw.permutation(len(labels))[: round(share * len(labels))]
    labels[rows] = (labels[rows] + draw.integers(1, train.choices, len(rows))) % train.choices
    names = list(train.dataset.choices)
    pairs = zip(train.dataset.queries, [names[label] for label in labels], strict=True)
    data = type(train.dataset).from_pairs(pairs, choices=train.dataset.choices)
    return RouterData.of(data, train.vectors, train.described)


def uneven(train: RouterData, ratio: int) -> RouterData:
    draw = np.random.default_rng(0)
    rows = []
    for number, choice in enumerate(draw.permutation(train.choices)):
        own = draw.permutation(np.flatnonzero(train.labels == choice))
        rows.append(own[: 100 if number % 2 else max(1, 100 // ratio)])
    return train.subset(np.sort(np.concatenate(rows)))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--set", default="banking77")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sets = load(args, args.set)
    print(f"{'training data':<34}{'accuracy':>9}{'macro-F1':>9}{'looks wrong':>13}")
    show("as it is", sets.train, sets.test)
    noisy = flipped(sets.train, 0.1)
    show("10 % flipped", noisy, sets.test)
    show("10 % flipped, robust=False", noisy, sets.test, robust=False)
    thin = uneven(sets.train, 100)
    show("half of the choices 100 : 1", thin, sets.test)
    show("half of the choices 100 : 1, balanced", thin, sets.test, balanced=True)


if __name__ == "__main__":
    main()
