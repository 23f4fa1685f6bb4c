"""Queries that need two tools: metatool's own, and two questions joined.

The stock ranking is told that two are wanted; the tuned selector decides how many.

    python benchmarks/router_multi.py --data ../shared/data
"""

from __future__ import annotations

import warnings

import numpy as np
from _routing import arguments, load, tuned

from llama_index.tuning import RoutingDataset, TunedSelector
from llama_index.tuning.demo import minilm
from llama_index.tuning.evaluate.routing import evaluate_selector, set_scores
from llama_index.tuning.routers.options import RouterOptions


def main() -> None:
    args = arguments(__doc__ or "").parse_args()
    warnings.simplefilter("ignore")
    sets, model = load(args, "metatool"), minilm()
    choices = sets.train.dataset.choices
    own = RoutingDataset.from_jsonl(args.data / "metatool" / "multi_tool_test.jsonl", choices)
    draw = np.random.default_rng(0).permutation(len(sets.test.dataset))[:600].reshape(-1, 2)
    tests = sets.test.dataset.examples
    joined = RoutingDataset.from_pairs(
        [
            (f"{tests[a].query} {tests[b].query}", {*tests[a].choices, *tests[b].choices})
            for a, b in draw
        ],
        choices=choices,
    )
    run, _ = tuned(sets.train, RouterOptions(tau=5.0, words=True, folds=2))
    names = list(choices)
    print(f"{'queries':<18}{'method':<30}{'exact set':>10}{'recall':>8}")
    for title, data in (("metatool two-tool", own), ("two joined", joined)):
        wanted = [example.choices for example in data.examples]
        vectors = np.array([model.get_query_embedding(query) for query in data.queries])
        top = np.argsort(-(vectors @ sets.train.described.T), axis=1)[:, :2]
        scores = {"stock ranking, top 2": set_scores([[names[i] for i in r] for r in top], wanted)}
        for clauses in (False, True):
            selector = TunedSelector(run.model, model, multi=True, clauses=clauses)
            found = evaluate_selector(selector, data)
            scores[f"tuned, clauses={clauses}"] = (found.exact, found.recall)
        for method, (exact, recall) in scores.items():
            line = f"{title:<18}{method:<30}{exact.mean():>10.3f}{recall.mean():>8.3f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
