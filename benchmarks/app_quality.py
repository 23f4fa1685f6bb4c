"""What `tune_app` serves, against every single part and every fixed stack, on test questions.

Each set's training questions tune, its test questions measure; nDCG@10 of the stacks with parts
learnt from all training questions. Every run is a line of `--out`; a run that is there already is
not made again, and `--minutes` ends in time, so that the same command goes on later.

    python benchmarks/app_quality.py --seeds 3                         # the app against its parts
    python benchmarks/app_quality.py --questions 10 30 100 --seeds 20  # few questions
    python benchmarks/app_quality.py --shuffled --questions 100 --seeds 25   # wrong answers
    python benchmarks/app_quality.py --pool --questions 150 --seeds 40 # does the interval hold?
    python benchmarks/app_quality.py --alone --sets …                  # documents alone
    python benchmarks/app_quality.py --table                           # what the lines come to
"""

from __future__ import annotations

import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from _code import code_questions
from _data import ROOT, arguments, dataset, lyft_and_uber, model
from generalisation import tasks
from llama_index.core import VectorStoreIndex

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.app.ladder.adapters import adapters_for
from llama_index.tuning.app.ladder.choose import BEFORE, TUNED, UNTUNED, Stack
from llama_index.tuning.app.ladder.measure import Ladder, Measured
from llama_index.tuning.app.ladder.outcome import decided
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.questions import gather
from llama_index.tuning.app.see import language_of, look_at
from llama_index.tuning.demo import questions_about, reference_nodes
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import score_rankings
from llama_index.tuning.rerankers.light.model import default_ranker
from llama_index.tuning.vectors.embedder import Embedder, document_vectors
from llama_index.tuning.vectors.search import unit_rows

SETS = ("lyft to uber", "chunking_eval", "williams_family", "xquad_en", "cranfield")
MORE = ("python reference", "python functions", "returning")
SINGLE = (Stack("own", "fusion"), UNTUNED, Stack("own", "tuned"), Stack("adapted", "retriever"))


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--questions", type=int, nargs="*", default=[0], help="0: all")
    parser.add_argument("--shuffled", action="store_true", help="answers that are wrong")
    parser.add_argument("--pool", action="store_true", help="measure on all that is not drawn")
    parser.add_argument("--alone", action="store_true", help="documents alone")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "app_quality.jsonl")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.touch()
    done = [json.loads(line) for line in args.out.read_text().splitlines()]
    if args.table:
        tables(done)
        priors(done)
        return
    made = {tuple(row[name] for name in KEY) for row in done}
    mode = "shuffled" if args.shuffled else "pool" if args.pool else "tune"
    mode = "alone" if args.alone else mode
    keys = [
        (name, mode, count, seed)
        for seed in range(args.seeds)
        for name in args.sets
        for count in args.questions
    ]
    deadline, base = time.monotonic() + 60 * args.minutes, model()
    left = [key for key in keys if key not in made]
    places: dict[str, Place] = {}
    while left and time.monotonic() < deadline:
        name, _, count, seed = key = left.pop(0)
        place = places.setdefault(name, Place(args.data, name, base, args.cache))
        row = dict(zip(KEY, key, strict=True)) | place.run(mode, count, seed)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(line(row), flush=True)
    print(f"{len(left)} runs are left" if left else "done")


KEY = ("set", "mode", "count", "seed")


class Place:
    """One set: its app's index, and questions to tune with and to measure on."""

    def __init__(self, folder: Path, name: str, base: Any, cache: Path) -> None:
        self.train, self.test = data_of(folder, name)
        self.embedder = Embedder(base, cache=cache, known={})
        self.index = self.index_of({**self.train.corpus, **self.test.corpus})

    def index_of(self, corpus: dict[str, str]) -> VectorStoreIndex:
        """An app's index, with vectors that were kept."""
        nodes = RetrievalDataset({}, dict(corpus), {}).to_nodes()
        vectors = document_vectors(corpus, None, self.embedder)
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector.tolist()
        return VectorStoreIndex(nodes, embed_model=self.embedder.model)

    def run(self, mode: str, count: int, seed: int) -> dict[str, Any]:
        """Tune, then every stack on the test questions, over the test corpus."""
        started = time.perf_counter()
        train, test = self.train, self.test
        if mode == "pool":
            train, test = split(together(train, test), count, seed)
        elif mode == "alone":  # no question teaches: all of them measure
            test = together(train, test)
        elif count and count < len(train):
            train, _ = split(train, count, seed)
        if mode == "shuffled":
            train = shuffled(train, seed)
        seen = look_at(self.index)
        asked = gather(seen, None if mode == "alone" else train, None, seed)
        language, prose = language_of(node.get_content() for node in seen.nodes.values())
        search = Search(seen, self.embedder, language)
        vectors = self.embedder.queries(asked.texts)
        adapters = adapters_for(seen, asked, search, vectors, None, seed, prose=prose)
        ladder = Ladder(
            search, asked, vectors, adapters, prose=prose, seed=seed, ks=(1, 5, 10), tell=str
        )
        measured = ladder.measure()
        outcome = decided(measured, asked, seed)
        seconds = time.perf_counter() - started
        values = self.on_test(test, ladder, measured, outcome.stack, language, mode != "tune")
        found = {stack: float(value.mean()) for stack, value in values.items()}
        before = measured.scores[BEFORE].values["ndcg@10"]
        promised = paired_gain(before, measured.served.values["ndcg@10"], seed=seed)
        return {
            "n": len(asked),
            "test": len(test),
            "served": str(outcome.stack),
            "shown": outcome.shown,
            "tuned": outcome.stack.tuned,
            "value": found[outcome.stack],
            "truth": found[measured.stack] - found[BEFORE],
            "promised": [promised.mean, promised.low, promised.high],
            "seconds": round(seconds, 1),
            "stacks": {str(stack): value for stack, value in found.items()},
            "cross_fitted": gains_over_untuned(measured),
            "steps": [[s.name, str(s.below), s.taken, s.reason] for s in measured.steps],
        }

    def on_test(
        self,
        test: RetrievalDataset,
        ladder: Ladder,
        measured: Any,
        stack: Stack,
        language: str,
        few: bool,
    ) -> dict[Stack, Any]:
        """nDCG@10 of each stack, its parts learnt from all training questions."""
        seen = look_at(self.index_of(test.corpus))
        search = Search(seen, self.embedder, language)
        texts = list(test.queries.values())
        queries = self.embedder.queries(texts)
        relevant = [test.relevant_docs[id_] for id_ in test.queries]
        wanted = {BEFORE, UNTUNED, stack, measured.stack} if few else set(measured.scores)
        found = {}
        for each in wanted & set(measured.scores):
            rankers = ladder.rankers_of(each)
            mapped = queries
            if each.vectors == "adapted":
                mapped = ladder.adapter.map(unit_rows(queries))
            view = search.find(texts, mapped, relevant)
            rankings = {"retriever": view.retrieved, "fusion": view.fused}.get(each.order)
            if rankings is None:
                ranker = rankers.get(each.vectors, default_ranker())
                rankings = [view.ranked(row, ranker) for row in range(len(test))]
            scores = score_rankings(list(test.queries), rankings, relevant)
            found[each] = scores.values["ndcg@10"]
        return found


def data_of(folder: Path, name: str) -> tuple[RetrievalDataset, RetrievalDataset]:
    """Questions to tune with, and questions to measure on."""
    if name == "lyft to uber":
        return lyft_and_uber(folder)
    if name == "python functions":
        return code_questions()
    if name == "returning":
        task = tasks(folder)["returning"]()
        return task.train, task.test
    if name == "python reference":
        nodes = reference_nodes()
        return questions_about(nodes, "train"), questions_about(nodes, "held_out")
    return dataset(folder, name, "train"), dataset(folder, name, "test")


def split(
    data: RetrievalDataset, count: int, seed: int
) -> tuple[RetrievalDataset, RetrievalDataset]:
    """So many of the questions, and the others."""
    ids = list(data.queries)
    order = np.random.default_rng(seed).permutation(len(ids)).tolist()
    first, others = ([ids[row] for row in part] for part in (order[:count], order[count:]))
    return data.subset(first), data.subset(others)


def together(one: RetrievalDataset, other: RetrievalDataset) -> RetrievalDataset:
    """All questions of two splits, over both corpora."""
    queries = {f"{i}-{k}": v for i, d in enumerate((one, other)) for k, v in d.queries.items()}
    docs = {f"{i}-{k}": v for i, d in enumerate((one, other)) for k, v in d.relevant_docs.items()}
    return RetrievalDataset(queries, {**one.corpus, **other.corpus}, docs)


def shuffled(data: RetrievalDataset, seed: int) -> RetrievalDataset:
    """Each question with the answer of another."""
    docs = list(data.relevant_docs.values())
    order = np.random.default_rng([seed, 7]).permutation(len(docs)).tolist()
    wrong = {id_: docs[row] for id_, row in zip(data.queries, order, strict=True)}
    return RetrievalDataset(data.queries, data.corpus, wrong)


def line(row: dict[str, Any]) -> str:
    """A run in a line, and its stacks in another."""
    stacks = "  ".join(f"{short(name)} {value:.3f}" for name, value in row["stacks"].items())
    mean, low, high = row["promised"]
    return (
        f"{row['set']:16} {row['mode']} n={row['n']:4} seed {row['seed']}: {row['value']:.3f} "
        f"({short(row['served'])}{'' if row['shown'] else ', not shown'}); promised {mean:+.3f} "
        f"({low:+.3f} to {high:+.3f}), came {row['truth']:+.3f}; {row['seconds']:.0f} s\n"
        f"   {stacks}"
    )


def short(name: str) -> str:
    """A stack in a few letters."""
    for long, brief in (
        ("retriever with adapter", "a"),
        ("BM25 fusion + ", ""),
        ("BM25 fusion", "fusion"),
        (" re-ranker", ""),
    ):
        name = name.replace(long, brief)
    return name.replace(" + ", "+")


def tables(rows: Iterable[dict[str, Any]]) -> None:
    """Means over the seeds, by kind of run."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["mode"], row["set"], row["count"]].append(row)
    for (mode, name, count), runs in sorted(groups.items()):
        stacks = {s: np.mean([r["stacks"][s] for r in runs]) for s in shared(runs)}
        served = np.mean([row["value"] for row in runs])
        best = max(
            [(stacks[str(s)], short(str(s))) for s in SINGLE if str(s) in stacks],
            default=(np.nan, ""),
        )
        fixed = max((value, short(name)) for name, value in stacks.items())
        covered = np.mean([r["promised"][1] <= r["truth"] <= r["promised"][2] for r in runs])
        floor = np.mean([max(r["stacks"][str(BEFORE)], r["stacks"][str(UNTUNED)]) for r in runs])
        said = (
            f"{mode:9}{name:18}{count or 'all':>5} ×{len(runs)}",
            f"before {stacks[str(BEFORE)]:.3f}",
            f"untuned {stacks[str(UNTUNED)]:.3f}" if str(UNTUNED) in stacks else "",
            f"single {best[0]:.3f} ({best[1]})",
            f"fixed {fixed[0]:.3f} ({fixed[1]})",
            f"served {served:.3f}",
            f"better of before and untuned {floor:.3f}",
            f"tuned in {sum(r['tuned'] for r in runs)}",
            f"interval holds in {covered:.0%}",
            f"{np.mean([r['seconds'] for r in runs]):.0f} s",
        )
        print("  ".join(said))


def gains_over_untuned(measured: Measured) -> dict[str, tuple[float, float]]:
    """Mean and variance, over the questions, of what tuned parts gain over the untuned stack."""
    if UNTUNED not in measured.scores:
        return {}
    below = measured.scores[UNTUNED].values["ndcg@10"]
    gains = {
        str(stack): measured.scores[stack].values["ndcg@10"] - below
        for stack in TUNED
        if stack in measured.scores
    }
    return {name: (float(gain.mean()), float(gain.var())) for name, gain in gains.items()}


def priors(rows: Iterable[dict[str, Any]]) -> None:
    """What tuned parts gain on all sets but one, and how many questions that is worth."""
    found: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        if row["mode"] == "tune" and not row["count"]:
            for stack, gain in row.get("cross_fitted", {}).items():
                found[stack].setdefault(row["set"], gain)
    for stack, sets in found.items():
        for left_out in sets:
            others = [gain for name, gain in sets.items() if name != left_out]
            if len(others) < 2:
                continue
            means, variances = np.array(others).T
            worth = variances.mean() / means.var(ddof=1)
            print(
                f"{short(stack):12} without {left_out:17} gain {means.mean():.3f}, "
                f"worth {worth:.0f} questions; there {sets[left_out][0]:+.3f}"
            )


def shared(runs: list[dict[str, Any]]) -> list[str]:
    """Stacks that every run measured."""
    return [name for name in runs[0]["stacks"] if all(name in r["stacks"] for r in runs)]


if __name__ == "__main__":
    main()
