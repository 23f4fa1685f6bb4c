"""Accuracy and macro-F1 of routers on five sets, on the same vectors.

Settings are chosen by cross-fitting on the training examples. semantic-router is measured where
it is installed.

    python benchmarks/router_quality.py --data ../shared/data
"""

from __future__ import annotations

import time
import warnings

import numpy as np
from _routing import arguments, load, shots, tuned

from llama_index.tuning.evaluate.routing import macro_f1
from llama_index.tuning.routers.material import Material
from llama_index.tuning.routers.run import scores_of
from llama_index.tuning.routers.training import one_thread

SETS = ("banking77", "hwu64", "metatool", "datasource_routing", "williams_routing")


def stock(train: Material, test: Material) -> np.ndarray:
    return (test.vectors @ train.described.T).argmax(axis=1)


def logistic(train: Material, test: Material) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10, max_iter=300).fit(train.vectors, train.labels)
    return model.predict(test.vectors)


def router(train: Material, test: Material) -> np.ndarray:
    run, _ = tuned(train)
    return scores_of(run, test, np.arange(len(test.dataset))).argmax(axis=1)


def semantic_router(train: Material, test: Material) -> np.ndarray:
    from semantic_router import Route
    from semantic_router.encoders import DenseEncoder
    from semantic_router.routers import IndexedRouter

    known = {
        text: vector
        for part in (test, train)
        for text, vector in zip(part.dataset.queries, part.vectors.tolist(), strict=True)
    }

    class Known(DenseEncoder):
        name: str = "known"

        def __call__(self, docs: list[str]) -> list[list[float]]:
            return [known[text] for text in docs]

    names = list(train.dataset.choices)
    texts: dict[str, list[str]] = {name: [] for name in names}
    for label, query in zip(train.labels, train.dataset.queries, strict=True):
        texts[names[label]].append(query)
    routes = [Route(name=name, utterances=found) for name, found in texts.items() if found]
    made = IndexedRouter(Known(), routes)
    found = [made(text).name for text in test.dataset.queries]
    return np.array([names.index(name) if name in names else -1 for name in found])


METHODS = {
    "stock": stock,
    "semantic-router": semantic_router,
    "logistic C=10": logistic,
    "tuned": router,
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--shots", nargs="+", type=int, default=[3, 10, 0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'set':<20}{'shots':>6}  {'method':<16}{'accuracy':>9}{'macro-F1':>9}{'seconds':>9}")
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
                        print(f"{name:<20}{count or 'all':>6}  {method:<16} skipped: {exc}")
                        break
                    spent = time.process_time() - began
                    rows.append(
                        ((found == truth).mean() * 100, macro_f1(truth, found) * 100, spent)
                    )
                if rows:
                    mean = np.mean(rows, axis=0)
                    print(
                        f"{name:<20}{count or 'all':>6}  {method:<16}"
                        f"{mean[0]:>9.1f}{mean[1]:>9.1f}{mean[2]:>9.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
