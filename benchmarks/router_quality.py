"""Accuracy and macro-F1 of routers on five sets, on the same vectors.

Settings are chosen by cross-fitting on the training examples. semantic-router and logistic
regression are measured as one would use them, and with the descriptions as examples, which the
tuned router uses too; semantic-router where it is installed.

    python benchmarks/router_quality.py --data ../shared/data
"""

from __future__ import annotations

import time
import warnings
from functools import lru_cache, partial

import numpy as np
from _routing import arguments, load, semantic_router, shots, tuned

from llama_index.tuning.evaluate.routing import macro_f1
from llama_index.tuning.gate import decide
from llama_index.tuning.routers.data import RouterData
from llama_index.tuning.routers.fit import one_thread
from llama_index.tuning.routers.run import Run, scores_of

SETS = ("banking77", "hwu64", "metatool", "datasource_routing", "williams_routing")


def stock(train: RouterData, test: RouterData) -> np.ndarray:
    return (test.vectors @ train.described.T).argmax(axis=1)


def logistic(train: RouterData, test: RouterData, *, described: bool = False) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    vectors, labels = train.vectors, train.labels
    if described:
        vectors = np.concatenate([vectors, train.described])
        labels = np.concatenate([labels, np.arange(train.choices)])
    return LogisticRegression(C=10, max_iter=300).fit(vectors, labels).predict(test.vectors)


@lru_cache(maxsize=3)
def run_of(train: RouterData) -> Run:
    return tuned(train)[0]


def router(train: RouterData, test: RouterData) -> np.ndarray:
    return scores_of(run_of(train), test, np.arange(len(test.dataset))).argmax(axis=1)


def gated(train: RouterData, test: RouterData) -> np.ndarray:
    """What the engine deploys: the stock rule where cross-fitting does not show a gain."""
    measured = run_of(train).measured
    base = train.vectors[measured.examples] @ train.described.T
    shown = decide("accuracy", measured.gains(base, 0)["accuracy"], accept="gain").accepted
    return router(train, test) if shown else stock(train, test)


METHODS = {
    "stock": stock,
    "semantic-router": lambda train, test: semantic_router(train, test)[0],
    "semantic-router+d": lambda train, test: semantic_router(train, test, described=True)[0],
    "logistic C=10": logistic,
    "logistic C=10+d": partial(logistic, described=True),
    "tuned": router,
    "tuned, gated": gated,
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--shots", nargs="+", type=int, default=[3, 10, 0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'set':<20}{'shots':>6}  {'method':<18}{'accuracy':>9}{'macro-F1':>9}{'seconds':>9}")
    for name in args.sets:
        sets = load(args, name)
        truth = sets.test.labels
        for count in args.shots:
            seeds = range(3) if count else range(1)
            drawn = [shots(sets.train, count, seed) for seed in seeds]
            for method in args.methods:
                rows = []
                for train in drawn:
                    began = time.process_time()
                    try:
                        with one_thread():
                            found = METHODS[method](train, sets.test)
                    except ImportError as exc:
                        print(f"{name:<20}{count or 'all':>6}  {method:<18} skipped: {exc}")
                        break
                    spent = time.process_time() - began
                    rows.append(
                        ((found == truth).mean() * 100, macro_f1(truth, found) * 100, spent)
                    )
                if rows:
                    mean = np.mean(rows, axis=0)
                    print(
                        f"{name:<20}{count or 'all':>6}  {method:<18}"
                        f"{mean[0]:>9.1f}{mean[1]:>9.1f}{mean[2]:>9.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
