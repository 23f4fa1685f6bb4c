"""Ten new choices, by description alone and by three examples, against refitting.

The prior's variance is fixed and no words are used, to spare the search in every refit.

    python benchmarks/router_new_choices.py --data ../shared/data
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from _routing import arguments, load, only, tuned

from llama_index.tuning.routers.data import RouterData
from llama_index.tuning.routers.options import RouterOptions
from llama_index.tuning.routers.serving.model import RouterModel


def predicted(model: RouterModel, test: RouterData) -> np.ndarray:
    names = list(test.dataset.choices)
    place = np.array([names.index(name) for name in model.choices])
    texts = test.dataset.queries
    rows = [model.logits(v, t).argmax() for v, t in zip(test.vectors, texts, strict=True)]
    return place[np.array(rows)]


def extended(model: RouterModel, source: RouterData, hidden: np.ndarray, rows: list) -> RouterModel:
    items = list(source.dataset.choices.items())
    for choice, own in zip(hidden, rows, strict=True):
        name, text = items[choice]
        vectors = source.vectors[own]
        model = model.added(name, text, source.described[choice], source.texts(own), vectors)
    return model


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--set", default="banking77")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sets = load(args, args.set)
    truth, found = sets.test.labels, {}
    for seed in range(3):
        draw = np.random.default_rng(seed)
        hidden = np.sort(draw.choice(sets.train.choices, 10, replace=False))
        known = np.setdiff1d(np.arange(sets.train.choices), hidden)
        is_new = np.isin(truth, hidden)
        shown = [
            draw.permutation(np.flatnonzero(sets.train.labels == choice))[:3] for choice in hidden
        ]
        options = RouterOptions(tau=20.0, words=False)
        run, _ = tuned(only(sets.train, known), options)
        before = predicted(run.model, sets.test)
        few = np.sort(np.concatenate([np.flatnonzero(np.isin(sets.train.labels, known)), *shown]))
        ways = {
            "before (old only)": before,
            "added, description": predicted(
                extended(run.model, sets.train, hidden, [np.empty(0, int)] * 10), sets.test
            ),
            "added, 3 examples": predicted(
                extended(run.model, sets.train, hidden, shown), sets.test
            ),
            "refit, 3 examples": predicted(
                tuned(sets.train.subset(few), options)[0].model, sets.test
            ),
            "refit, balanced": predicted(
                tuned(sets.train.subset(few), replace(options, balanced=True))[0].model, sets.test
            ),
        }
        for name, answers in ways.items():
            right = answers == truth
            rates = (right[is_new].mean(), right[~is_new].mean(), right.mean())
            found.setdefault(name, []).append(rates)
    print(f"{'way':<22}{'new':>7}{'old':>7}{'all':>7}   (three draws of ten choices)")
    for name, rows in found.items():
        print(f"{name:<22}" + "".join(f"{value * 100:>7.1f}" for value in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
