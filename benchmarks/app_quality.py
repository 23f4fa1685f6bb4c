"""What `tune_app` serves, against every single part and every fixed stack, on test questions.

Each set's training questions tune, its test questions measure; nDCG@10 of the stacks with parts
learnt from all training questions.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _data import arguments, dataset, lyft_and_uber, model
from llama_index.core import VectorStoreIndex

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.app import tune
from llama_index.tuning.app.choose import Stack
from llama_index.tuning.app.measure import Ladder
from llama_index.tuning.app.questions import gather
from llama_index.tuning.app.search import Search
from llama_index.tuning.app.see import language_of, look_at
from llama_index.tuning.evaluate.retrieval import score_rankings
from llama_index.tuning.rerankers.light.model import default_ranker
from llama_index.tuning.vectors.embedder import Embedder, document_vectors

SETS = ("lyft to uber", "chunking_eval", "williams_family", "xquad_en", "cranfield")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--questions", type=int, nargs="*", default=[0], help="0: all")
    parser.add_argument("--draws", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    base = model()
    for name in args.sets:
        train, test = data_of(args.data, name)
        index = index_of({**train.corpus, **test.corpus}, base, args.cache)
        for count in args.questions:
            for seed in range(max(args.seeds, args.draws)):
                given = drawn(train, count, seed)
                one_run(name, index, given, test, Embedder(base, cache=args.cache), seed)


def data_of(folder: Path, name: str) -> tuple[RetrievalDataset, RetrievalDataset]:
    """Questions to tune with, and questions to measure on."""
    if name == "lyft to uber":
        return lyft_and_uber(folder)
    return dataset(folder, name, "train"), dataset(folder, name, "test")


def index_of(corpus: dict[str, str], base: Any, cache: Path) -> VectorStoreIndex:
    """An app's index, with vectors that were kept."""
    nodes = RetrievalDataset({}, corpus, {}).to_nodes()
    vectors = document_vectors(corpus, None, Embedder(base, cache=cache))
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    return VectorStoreIndex(nodes, embed_model=base)


def drawn(train: RetrievalDataset, count: int, seed: int) -> RetrievalDataset:
    """Some of the questions; all for 0."""
    if not count or count >= len(train):
        return train
    chosen = np.random.default_rng(seed).permutation(len(train))[:count]
    ids = list(train.queries)
    return train.subset([ids[row] for row in chosen])


def one_run(
    name: str,
    index: VectorStoreIndex,
    train: RetrievalDataset,
    test: RetrievalDataset,
    embedder: Embedder,
    seed: int,
) -> dict[str, float]:
    """Tune, then every stack on the test questions, over the test corpus."""
    started = time.perf_counter()
    seen = look_at(index)
    asked = gather(seen, train, None, seed)
    language, prose = language_of(node.get_content() for node in seen.nodes.values())
    search = Search(seen, embedder, language)
    vectors = embedder.queries(asked.texts)
    with tempfile.TemporaryDirectory() as folder:
        adapters = tune._adapters(seen, asked, search, vectors, Path(folder), seed)
        ladder = Ladder(
            search, asked, vectors, adapters, prose=prose, seed=seed, ks=(1, 5, 10), tell=str
        )
        measured = ladder.measure()
        outcome = tune._decided(measured, asked, seed)
        seconds = time.perf_counter() - started
        found = on_test(test, index, embedder, ladder, measured, language)
    served = found[outcome.stack]
    best = max(found.values())
    gain = measured.served.mean()["ndcg@10"] - measured.scores[Stack()].mean()["ndcg@10"]
    print(
        f"{name:16} n={len(asked):4} seed {seed}: served {served:.3f} ({outcome.stack}), best "
        f"{best:.3f}, promised {gain:+.3f}, kept {served - found[Stack()]:+.3f}, {seconds:.0f} s"
    )
    print("   " + "  ".join(f"{short(stack)} {value:.3f}" for stack, value in found.items()))
    for step in measured.steps:
        word = "taken" if step.taken else "left"
        print(f"     {word:6}{step.name} on {step.below}: {step.reason}", flush=True)
    return {str(stack): value for stack, value in found.items()}


def on_test(
    test: RetrievalDataset,
    index: VectorStoreIndex,
    embedder: Embedder,
    ladder: Ladder,
    measured: Any,
    language: str,
) -> dict[Stack, float]:
    """nDCG@10 of each stack, its parts learnt from all training questions."""
    nodes = RetrievalDataset({}, dict(test.corpus), {}).to_nodes()
    vectors = document_vectors(test.corpus, index, embedder)
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()
    seen = look_at(VectorStoreIndex(nodes, embed_model=embedder.model))
    search = Search(seen, embedder, language)
    queries = embedder.queries(list(test.queries.values()))
    relevant = [test.relevant_docs[id_] for id_ in test.queries]
    found = {}
    for stack in measured.scores:
        adapter, rankers = (None, {}) if not stack.tuned else ladder.parts_of(stack)
        mapped = adapter.map(queries) if adapter is not None else queries
        view = search.find(list(test.queries.values()), mapped, relevant)
        rankings = {"retriever": view.retrieved, "fusion": view.fused}.get(stack.order)
        if rankings is None:
            ranker = rankers.get(stack.vectors, default_ranker())
            rankings = [view.ranked(row, ranker) for row in range(len(test))]
        scores = score_rankings(list(test.queries), rankings, relevant)
        found[stack] = scores.mean()["ndcg@10"]
    return found


def short(stack: Stack) -> str:
    """A stack in a few letters."""
    return f"{'a+' if stack.vectors == 'adapted' else ''}{stack.order}"


if __name__ == "__main__":
    main()
