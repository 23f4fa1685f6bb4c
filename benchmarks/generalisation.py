"""Engines on sets that nothing was tuned to: defaults, and the best setting of each set.

Adapters, the default, are compared with NUDGE-N as well.
Test questions of the corpus that the training questions are about; nDCG@10, and on the test
questions whose documents had no training question. The settings below are the ones that could have
become the default. "others" is the setting that is best on average over all sets but that one,
"best" the one that is best on the set itself, which nobody can know; regret is how far the default
is below it. Each set is fitted on vectors that were embedded once, and no gate keeps the base.
NUDGE-N (Zeighami et al. 2024) moves documents, not questions: `pip install --no-deps nudge-ft`; a
fifth of the training questions chooses its step.

    python benchmarks/generalisation.py --beside      # the documents' sentences teach too
    python benchmarks/generalisation.py --sentences   # they alone
    python benchmarks/generalisation.py --engine router   # or reranker, judge
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from _code import code_questions
from _data import arguments, dataset, lyft_and_uber, model
from _generalisation import ENGINES, SETTINGS as ENGINE_SETTINGS

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.embeddings import AdapterOptions
from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
from llama_index.tuning.embeddings.adapter.data import Pairs, check_data, embed_problem
from llama_index.tuning.embeddings.adapter.fit import make_adapter, map_vectors
from llama_index.tuning.embeddings.adapter.measure import positive_rows
from llama_index.tuning.evaluate import paired_gain
from llama_index.tuning.evaluate.retrieval import evaluate_vectors
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.search import unit_rows

SIXTEEN = {"solver": "gradient", "batch_size": 1024, "max_epochs": 16, "learning_rate": 3e-4}
SETTINGS = {
    "default": {},
    "start identity": {"start": "identity"},
    "start .1": {"start_strength": 0.1},
    "start .45": {"start_strength": 0.45},
    "no memory": {"memory": False},
    "both sides": {"side": "both"},
    "gradient": {"solver": "gradient"},
    "gradient 3e-4": {"solver": "gradient", "learning_rate": 3e-4},
}
BESIDE = {
    "default": {},
    "labels alone": {"unlabelled_weight": 0.0},
    "weight .25": {"unlabelled_weight": 0.25},
    "weight .75": {"unlabelled_weight": 0.75},
}
OTHERS = {
    "16 steps": SIXTEEN,
    "two-layer": {"adapter": "two_layer"},
    "low-rank": {"adapter": "low_rank"},
}
ALONE = ("lyft", "uber", "chunking_eval", "williams_family", "xquad_en", "cranfield")


@dataclass
class Task:
    """One set: what is learnt from, and what is measured."""

    train: RetrievalDataset
    test: RetrievalDataset


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=None)
    parser.add_argument("--engine", choices=["adapter", *ENGINES], default="adapter")
    parser.add_argument("--sentences", action="store_true", help="documents alone teach")
    parser.add_argument("--beside", action="store_true", help="documents' sentences teach too")
    parser.add_argument("--settings", nargs="*", default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.engine != "adapter":
        logging.disable(logging.WARNING)
        return table(dict(ENGINES[args.engine](args)), ENGINE_SETTINGS[args.engine], "served")
    known = BESIDE if args.beside else {**SETTINGS, **OTHERS}
    settings = args.settings or list(known)
    embedder = Embedder(model(), cache=args.cache)
    found: dict[str, dict[str, np.ndarray]] = {}
    all_tasks = tasks(args.data)
    for name, made in all_tasks.items():
        if name not in (args.sets or all_tasks) or (args.sentences and name not in ALONE):
            continue
        task = made()
        if args.sentences:
            sentences_alone(name, task, embedder)
            continue
        scored, unseen, seconds = labelled(
            task, embedder, {name: known[name] for name in settings}, beside=args.beside
        )
        found[name] = scored
        print(f"{name}: {len(task.train)} questions, {len(unseen)} test ({unseen.sum()} unseen)")
        for setting, values in scored.items():
            gain = paired_gain(scored["base"], values)
            new = f"{values[unseen].mean():.3f}" if unseen.any() else "–"
            print(
                f"  {setting:<16}{gain.tuned:.3f}  {gain.mean:+.3f} "
                f"({gain.low:+.3f} to {gain.high:+.3f})  unseen {new}  {seconds[setting]:.1f} s",
                flush=True,
            )
    means = {name: {s: v.mean() for s, v in scored.items()} for name, scored in found.items()}
    if means:
        table(means, [name for name in settings if name in {**SETTINGS, **BESIDE}], "NUDGE-N")


def table(means: dict[str, dict[str, float]], settings: list[str], last: str) -> None:
    """Default, what the other sets would choose, the best of the set itself."""
    print(f"{'set':<22}{'base':>7}{'default':>9}{'others':>9}{'best':>7}{'regret':>8}  {last}")
    regrets = []
    for name, scored in means.items():
        rest = [other for other in means if other != name] or [name]
        chosen = max(settings, key=lambda s: np.mean([means[o][s] for o in rest]))
        best = max(settings, key=lambda s: scored[s])
        regrets.append(scored[best] - scored["default"])
        print(
            f"{name:<22}{scored['base']:>7.3f}{scored['default']:>9.3f}{scored[chosen]:>9.3f}"
            f"{scored[best]:>7.3f}{regrets[-1]:>8.3f}  {scored[last]:.3f}"
            f"   others: {chosen}, best: {best}"
        )
    print(f"regret on average {np.mean(regrets):.3f}")


def tasks(folder) -> dict[str, Callable[[], Task]]:
    """The sets; of the two companies 30 % of the questions are held out."""

    def company(number: int) -> Task:
        return Task(*lyft_and_uber(folder)[number].split(0.3, seed=0))

    def of(name: str) -> Task:
        return Task(dataset(folder, name, "train", "val"), dataset(folder, name, "test"))

    found = {"lyft": partial(company, 0), "uber": partial(company, 1)}
    for name in ("chunking_eval", "williams_family", "xquad_en", "cranfield"):
        found[name] = partial(of, name)
    found["uber, ⅓ unseen"] = lambda: a_third_unseen(company(1))
    found["xquad_en, ⅓ unseen"] = lambda: a_third_unseen(of("xquad_en"))
    found["returning"] = lambda: a_third_unseen(returning(folder))
    found["functions"] = lambda: Task(*code_questions())
    return found


def returning(folder) -> Task:
    """Questions that come back in other words: xquad's, each twice with some words left out.

    Words of the passage are left out more often than others, so that words alone find little.
    """
    data = dataset(folder, "xquad_en", "train", "val", "test")
    queries, relevant = {}, {}
    for id_ in list(data.queries)[:500]:
        texts = " ".join(data.corpus[doc] for doc in data.relevant_docs[id_])
        known = set(re.findall(r"[a-z0-9']+", texts.lower()))
        for number in range(2):
            rng = random.Random(f"{id_}{number}")
            words = re.findall(r"[A-Za-z0-9']+", data.queries[id_])
            kept = [w for w in words if rng.random() > (0.6 if w.lower() in known else 0.25)]
            queries[f"{id_}-{number}"] = " ".join(kept if len(kept) >= 3 else words[:4])
            relevant[f"{id_}-{number}"] = data.relevant_docs[id_]
    return Task(*RetrievalDataset(queries, data.corpus, relevant).split(0.3, seed=0))


def a_third_unseen(task: Task) -> Task:
    """A third of the test questions' documents loses its training questions."""
    asked = sorted({doc for docs in task.test.relevant_docs.values() for doc in docs})
    drawn = np.random.default_rng(0).permutation(len(asked))[: len(asked) // 3]
    gone = {asked[row] for row in drawn}
    kept = [id_ for id_, docs in task.train.relevant_docs.items() if not gone & set(docs)]
    return Task(task.train.subset(kept), task.test)


def labelled(task: Task, embedder: Embedder, settings: dict[str, dict], *, beside: bool):
    """nDCG@10 of each test question by setting, which are unseen, and seconds."""
    sentences = task.test.corpus if beside else None
    data = check_data(task.train, sentences, None, AdapterOptions())
    problem = embed_problem(data, None, embedder, None)
    rows = {id_: row for row, id_ in enumerate(data.corpus())}
    queries = unit_rows(embedder.queries(list(task.test.queries.values())))
    wanted = positive_rows(task.test, rows)
    trained = np.unique(problem.labelled.flat()[1])
    unseen = np.array([not np.isin(docs, trained).any() for docs in wanted])
    scored = {"base": ndcg(queries, problem.documents, wanted)}
    seconds = {"base": 0.0}
    for setting, changed in settings.items():
        options = AdapterOptions(**changed)
        began = time.process_time()
        adapter = fitted(problem, problem.labelled, options)
        seconds[setting] = time.process_time() - began
        documents = problem.documents
        if options.side == "both":
            documents = map_vectors(adapter, unit_rows(documents))
        scored[setting] = ndcg(map_vectors(adapter, queries), documents, wanted)
    began = time.process_time()
    scored["NUDGE-N"] = nudged(problem.labelled, problem.documents, queries, wanted)
    seconds["NUDGE-N"] = time.process_time() - began
    return scored, unseen, seconds


def sentences_alone(name: str, task: Task, embedder: Embedder) -> None:
    """All questions of the set are the test: none is learnt from."""
    data = check_data(None, task.train.corpus, None, AdapterOptions())
    problem = embed_problem(data, None, embedder, None)
    rows = {id_: row for row, id_ in enumerate(data.corpus())}
    both = [task.train, task.test]
    queries = unit_rows(embedder.queries([q for part in both for q in part.queries.values()]))
    wanted = [docs for part in both for docs in positive_rows(part, rows)]
    base = ndcg(queries, problem.documents, wanted)
    for side in ("query", "both"):
        adapter = fitted(problem, problem.labelled, AdapterOptions(side=side))
        documents = problem.documents
        if side == "both":
            documents = map_vectors(adapter, unit_rows(documents))
        gain = paired_gain(base, ndcg(map_vectors(adapter, queries), documents, wanted))
        print(
            f"{name}, {side}: {gain.base:.3f} → {gain.tuned:.3f}  {gain.mean:+.3f} "
            f"({gain.low:+.3f} to {gain.high:+.3f}), n={gain.n}",
            flush=True,
        )


def fitted(problem, pairs: Pairs, options: AdapterOptions):
    """The final adapter of cross-fitting, as the engine trains it."""
    return cross_fit(
        lambda: make_adapter(problem.dim, options),
        pairs,
        problem.documents,
        options,
        groups=problem.groups,
        unlabelled=problem.sentences,
    ).adapter


def ndcg(queries, documents, wanted) -> np.ndarray:
    return evaluate_vectors(queries, documents, wanted, ks=(10,)).values["ndcg@10"]


def nudged(pairs: Pairs, documents, queries, wanted) -> np.ndarray:
    """Of documents as NUDGE-N moves them; NaN if it is not installed."""
    try:
        from nudge import NUDGEN
    except ImportError:
        return np.full(len(queries), np.nan)
    order = np.random.default_rng(0).permutation(len(pairs))
    cut = len(pairs) // 5
    parts = [pairs.take(order[cut:]), pairs.take(order[:cut])]
    given = [
        {"q_embs": part.vectors, "q_ans_indx": [rows.tolist() for rows in part.positives]}
        for part in parts
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        moved = NUDGEN().finetune_embeddings(unit_rows(documents), *given)
    return ndcg(queries, moved, wanted)


if __name__ == "__main__":
    main()
