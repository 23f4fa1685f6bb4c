"""Whether the untuned re-ranker is served unseen: what it gains on other sets, set by set left out.

`tune_app` serves the untuned re-ranker on prose unless the questions speak against what it gained
elsewhere: `UNTUNED_OVER`, a gain that is worth so many questions. Here both are estimated on all
sets of prose but one (the mean gain; and the variance of a question's gain by that of the sets'
means, as empirical Bayes does), and the rule is played on the set left out with 0, 10, 30 and 100
of its questions. Sets that are hardly prose serve it only where its gain is shown.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from _data import arguments, model
from app_quality import MORE, SETS, Place, together

from llama_index.tuning.app.ladder import choose
from llama_index.tuning.app.ladder.choose import BEFORE, UNTUNED
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.see import language_of, look_at
from llama_index.tuning.evaluate.retrieval import score_rankings
from llama_index.tuning.rerankers.light.model import default_ranker

DRAWS = 200


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=(*SETS, *MORE))
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base, used = model(), choose.UNTUNED_OVER[BEFORE]
    found = {name: values_of(Place(args.data, name, base, args.cache)) for name in args.sets}
    prose = [name for name, (is_prose, _, _) in found.items() if is_prose]
    for name, (is_prose, before, untuned) in found.items():
        others = [found[other][2] - found[other][1] for other in prose if other != name]
        gain = float(np.mean([one.mean() for one in others]))
        within = float(np.mean([one.var() for one in others]))
        between = float(np.var([one.mean() for one in others], ddof=1))
        print(
            f"{name:17} {'prose' if is_prose else 'no prose'} n={len(before):4} before "
            f"{before.mean():.3f} untuned {untuned.mean():.3f}; of the others: gain {gain:.3f}, "
            f"worth {within / between:.0f} questions"
        )
        for count in (0, 10, 30, 100):
            for label, prior in (
                ("left out", (gain, within / between)),
                ("as served", (used.gain, used.weight)),
            ):
                played = [
                    play(before, untuned, count, seed, prior, is_prose) for seed in range(DRAWS)
                ]
                loss = np.mean([value for value, _ in played])
                share = np.mean([taken for _, taken in played])
                print(
                    f"    {count:3} questions, prior {label:9}: re-ranker served in {share:4.0%}, "
                    f"mean over the app before {loss:+.3f}",
                    flush=True,
                )


def values_of(place: Place) -> tuple[bool, Any, Any]:
    """Whether it is prose; nDCG@10 of each question, before and with the untuned re-ranker."""
    data = place.test if not place.train else together(place.train, place.test)
    seen = look_at(place.index)
    language, prose = language_of(node.get_content() for node in seen.nodes.values())
    search = Search(seen, place.embedder, language)
    texts, ids = list(data.queries.values()), list(data.queries)
    relevant = [data.relevant_docs[id_] for id_ in ids]
    view = search.find(texts, place.embedder.queries(texts), relevant)
    ranked = [view.ranked(row, default_ranker()) for row in range(len(ids))]
    before, untuned = (
        score_rankings(ids, rankings, relevant).values["ndcg@10"]
        for rankings in (view.retrieved, ranked)
    )
    return prose, before, untuned


def play(
    before: Any, untuned: Any, count: int, seed: int, prior: tuple[float, float], prose: bool
) -> tuple[float, bool]:
    """The rule on so many questions: the mean gain on the others, and whether it was served."""
    order = np.random.default_rng(seed).permutation(len(before))
    drawn, others = order[:count], order[count:]
    gain, weight = prior
    difference = untuned[drawn] - before[drawn]
    taken = prose and difference.sum() + weight * gain > 0
    if not taken and count:
        values = {BEFORE: before[drawn], UNTUNED: untuned[drawn]}
        steps = choose.choose(values, np.ones(count, bool), prose=False, seed=seed)
        taken = any(step.taken for step in steps)
    return float(taken * (untuned[others] - before[others]).mean()), bool(taken)


if __name__ == "__main__":
    main()
