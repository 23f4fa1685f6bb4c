"""Out of scope: choices held out entirely, never an out-of-scope example in the training.

Recall of out-of-scope queries at 95 % in-scope recall, and the in-scope recall of the threshold
that the router deploys.

    python benchmarks/router_scope.py --data ../shared/data
"""

from __future__ import annotations

import warnings

import numpy as np
from _routing import arguments, load, only, semantic_router, tuned

from llama_index.tuning.evaluate.routing import auroc, out_of_scope_recall
from llama_index.tuning.routers.data import RouterData
from llama_index.tuning.routers.run import scores_of
from llama_index.tuning.routers.serving.model import probabilities


def confidences(train: RouterData, parts: list[RouterData]) -> list[np.ndarray]:
    """semantic-router's, where it is installed."""
    try:
        return [semantic_router(train, part)[1] for part in parts]
    except ImportError as exc:
        print(f"semantic-router skipped: {exc}")
        return []


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--set", default="hwu64")
    parser.add_argument("--hidden", type=int, default=15)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sets = load(args, args.set)
    print(f"{'draw':<6}{'score':<24}{'OOS recall':>11}{'AUROC':>8}{'deployed in-scope':>19}")
    totals: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(3):
        draw = np.random.default_rng(seed)
        hidden = np.sort(draw.choice(sets.train.choices, args.hidden, replace=False))
        known = np.setdiff1d(np.arange(sets.train.choices), hidden)
        train, inside, outside = (
            only(sets.train, known),
            only(sets.test, known),
            only(sets.test, hidden),
        )
        run, _ = tuned(train)
        one, two = (scores_of(run, m, np.arange(len(m.dataset))) for m in (inside, outside))
        passing = float((one.max(axis=1) >= run.model.threshold).mean())
        scores = {
            "tuned: largest logit": (one.max(axis=1), two.max(axis=1)),
            "largest probability": tuple(
                probabilities(part, run.model.sharpness).max(axis=1) for part in (one, two)
            ),
        }
        if peer := confidences(train, [inside, outside]):
            scores["semantic-router"] = tuple(peer)
        for name, (a, b) in scores.items():
            row = (out_of_scope_recall(a, b), auroc(a, b), passing)
            totals.setdefault(name, []).append(row)
            shown = f"{passing:>19.3f}" if name.startswith("tuned") else ""
            print(f"{seed:<6}{name:<24}{row[0]:>11.3f}{row[1]:>8.3f}{shown}", flush=True)
    for name, rows in totals.items():
        mean = np.mean(rows, axis=0)
        print(f"{'mean':<6}{name:<24}{mean[0]:>11.3f}{mean[1]:>8.3f}")


if __name__ == "__main__":
    main()
