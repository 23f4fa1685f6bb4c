"""Does the interval of a pass rate cover, and how much narrower than the labels' own is it?

Two public sets whose labels are all known are taken as populations; each draw takes n labelled
and 1,000 unlabelled items from one with replacement, so that the truth is known exactly. The
judge is a TunedJudge on words alone, trained once on the items of other queries ("judge"), or a
logistic regression on lengths and overlap, cross-fitted on the draw's own n labels (it is fitted
some 15,000 times).
"""

from __future__ import annotations

import re

import numpy as np
from _data import arguments
from judge_quality import answers, read
from sklearn.linear_model import LogisticRegression

from llama_index.tuning import JudgeFinetuneEngine
from llama_index.tuning.judges.pass_rates.estimate import PassRate, pass_rate_of

FOLDS = 5


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=500)
    args = parser.parse_args()
    print(
        f"{'set, judge, n':<42}{'corr.':>6}{'covered':>9}{'labels':>8}{'width':>7}{'expect':>8}"
        f"{'widest':>8}"
    )
    for name in ("halueval_qa", "halueval_general"):
        rows = [row for split in ("train", "test") for row in read(args.data, name, split)]
        queries = np.unique([row["query"] for row in rows], return_inverse=True)[1]
        other = (np.random.default_rng(0).random(queries.max() + 1) < 0.5)[queries]
        features, labels = population(rows)
        features, labels = features[~other], labels[~other]
        judged = judged_by_tuned(rows, other)
        for n in (50, 100, 300):
            for crossed in (False, True):
                rng = np.random.default_rng(n)
                found = [draw(rng, features, labels, judged, n, crossed) for _ in range(args.draws)]
                kind = "cross-fitted" if crossed else "judge"
                show(f"{name}, {kind}, {n}", found, float(labels.mean()))
        warn(name, features, labels, judged)


def judged_by_tuned(rows, other) -> np.ndarray:
    """Probabilities of the items that the judge was not trained on."""
    known, new = (answers([rows[n] for n in np.flatnonzero(part)]) for part in (other, ~other))
    engine = JudgeFinetuneEngine(known, accept="always")
    engine.finetune()
    return engine.get_finetuned_model().probabilities(new)


def population(rows) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features, shape `(N, 5)`, and labels (1 = faithful)."""
    table = np.array([described(row) for row in rows])
    labels = np.array([row["label"] == "faithful" for row in rows], dtype=float)
    return (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-9), labels


def described(row) -> list[float]:
    words = re.findall(r"\w+", str(row["response"]).lower())
    query = set(re.findall(r"\w+", row["query"].lower()))
    context = set(re.findall(r"\w+", row.get("context", "").lower()))
    known = [sum(word in text for word in words) for text in (query, context, context - query)]
    return [np.log1p(len(words)), np.log1p(len(query)), *(n / max(1, len(words)) for n in known)]


def draw(rng, features, labels, judged, n: int, crossed: bool) -> PassRate:
    mine, others = rng.integers(len(labels), size=n), rng.integers(len(labels), size=1000)
    predicted, unlabelled = judged[mine], judged[others]
    if crossed:
        predicted, unlabelled = cross_fitted(rng, features, labels, mine, others)
    return pass_rate_of(labels[mine], predicted, unlabelled, cross_fitted=crossed, two_sample=False)


def cross_fitted(rng, features, labels, mine, others) -> tuple[np.ndarray, np.ndarray]:
    """Copies of one item, which drawing with replacement makes, stay in one fold."""
    fold = rng.integers(FOLDS, size=len(labels))[mine]
    predicted, unlabelled = np.zeros(len(mine)), np.zeros((FOLDS, len(others)))
    for number in range(FOLDS):
        train, test = mine[fold != number], fold == number
        if len(set(labels[train])) < 2:
            predicted[test], unlabelled[number] = labels[train].mean(), labels[train].mean()
            continue
        model = LogisticRegression(C=0.3).fit(features[train], labels[train])
        if test.any():
            predicted[test] = model.predict_proba(features[mine[test]])[:, 1]
        unlabelled[number] = model.predict_proba(features[others])[:, 1]
    return predicted, unlabelled.mean(axis=0)


def show(title: str, found: list[PassRate], truth: float) -> None:
    covered = np.mean([rate.interval[0] <= truth <= rate.interval[1] for rate in found])
    plain = np.mean(
        [rate.classical_interval[0] <= truth <= rate.classical_interval[1] for rate in found]
    )
    widths = [rate.half_width / rate.classical_half_width for rate in found]
    correlation = float(np.mean([rate.correlation for rate in found]))
    n, size = found[0].n, found[0].unlabelled
    expected = np.sqrt(1 - max(0.0, correlation) ** 2 / (1 + n / size))
    print(
        f"{title:<42}{correlation:>6.2f}{covered:>9.3f}{plain:>8.3f}{np.mean(widths):>7.3f}"
        f"{expected:>8.3f}{max(widths):>8.3f}",
        flush=True,
    )


def warn(name: str, features, labels, judged) -> None:
    """How often honest samples are called different, and one that is."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(50):
        mine, others = rng.integers(len(labels), size=100), rng.integers(len(labels), size=1000)
        tables = {"features": features[mine], "unlabelled_features": features[others]}
        found = pass_rate_of(labels[mine], judged[mine], judged[others], **tables)
        alarms += any("differ" in text for text in found.warnings)
    longest = np.argsort(-features[:, 0])[: len(labels) // 3]
    mine = rng.choice(longest, 100)
    tables = {"features": features[mine], "unlabelled_features": features}
    shifted = pass_rate_of(labels[mine], judged[mine], judged, **tables)
    print(f"    honest samples called different: {alarms} of 50; labelled from the longest third:")
    print(f"    {next((w for w in shifted.warnings if 'differ' in w), 'NOT NOTICED')}")


if __name__ == "__main__":
    main()
