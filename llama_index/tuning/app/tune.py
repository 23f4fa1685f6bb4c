"""`tune_app`: an app in, the best app it can be out, with what each part gained."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import QueryBundle

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import (
    folder_path,
    items_of,
    number,
    of_type,
    plain_arguments,
    positive,
    whole_number,
)
from llama_index.tuning._files import locked, remove_locked_folder
from llama_index.tuning._running import own_work
from llama_index.tuning.app.choose import BEFORE, PRIMARY, Stack, slices
from llama_index.tuning.app.measure import Ladder, Measured, Tell
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.questions import GENERATE, Questions, Writing, gather
from llama_index.tuning.app.report import AppReport, Rung, moved
from llama_index.tuning.app.search import LEAST, Adapters, Search
from llama_index.tuning.app.see import SeenApp, language_of, look_at
from llama_index.tuning.asking.run import default_llm
from llama_index.tuning.base import Clock
from llama_index.tuning.embeddings.adapter.data import Pairs
from llama_index.tuning.embeddings.adapter.measure import positive_rows
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.errors import DatasetError, TuningError
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.gate import decide
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.report import installed_versions
from llama_index.tuning.rerankers.light.model import LightReranker
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.identity import base_name, model_signature
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

KS = (1, 5, 10)
SHOWN = (PRIMARY, "mrr@10", "hit_rate@1", "hit_rate@5", "hit_rate@10")
SENTENCES = 2000
CALLS, LEAST_CALLS = 400, 20
"""Requests to an LLM that writes questions: by default, and for a number that tells something."""


@own_work
@plain_arguments
def tune_app(
    app: Any,
    questions: Any = None,
    *,
    traffic: Any = None,
    llm: LLM | None = None,
    max_calls: int | None = None,
    also: Sequence[BaseNodePostprocessor] = (),
    max_latency_ms: float | None = None,
    max_seconds: float | None = None,
    run_folder: str | PathLike[str] | None = "tuned_app.run",
    num_workers: int = 1,
    seed: int = 0,
    show_progress: bool = False,
) -> TunedApp:
    """Look at an app, measure what could make it better, and hand back what does.

    Args:
        app: an index, a retriever, or a query engine of LlamaIndex. It stays as it is.
        questions: a `RetrievalDataset`; a file or rows of questions with what answers them;
            `"generate"` for questions that an LLM writes and checks; by default none, for documents
            alone.
        traffic: a log of `FinetuningRecorder`, or `Traffic`: what users asked and liked.
        llm: that writes them; `Settings.llm` by default.
        max_calls: requests that may be sent to it, two for a question; 400 by default.
        also: re-rankers to try last, such as a cross-encoder that was tuned or an LLM's: each
            orders the candidates of every question once, and is served if its gain over all
            that is cheaper is shown.
        max_latency_ms: what a query may cost more than now, beside embedding it and asking the
            store; what costs more is not served.
        max_seconds: after which nothing more is learnt: an adapter that would take longer is left
            out, and in the end every tuned part.
        run_folder: what a killed run goes on from, written questions too; removed when the run
            succeeds. `None` keeps nothing.
        num_workers: concurrent calls of an embedding API or LLM.
        seed: of folds and intervals.
        show_progress: say what is being done, and show bars.

    Returns:
        The app to serve, with its report; the app as it was if nothing better is shown.

    Raises:
        TypeError: `app` or `questions` is something else.
        DatasetError: there are no nodes, or the questions are not about them or tell nothing.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> texts = [f"The fee of the card is due on day {day} of the month." for day in "123"]
        >>> nodes = [TextNode(text=text) for text in texts]
        >>> index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
        >>> app = tune_app(index, run_folder=None)
        >>> app.retriever.retrieve("What is due on day 2?")[0].text
        'The fee of the card is due on day 2 of the month.'
    """
    clock = Clock()
    started = time.perf_counter()
    if max_latency_ms is not None:
        max_latency_ms = number("max_latency_ms", max_latency_ms, 0)
    if max_seconds is not None:
        positive("max_seconds", max_seconds)
    limits = _Limits(max_latency_ms, None if max_seconds is None else started + max_seconds)
    named = _named(also)
    num_workers = whole_number("num_workers", num_workers, 1)
    seed = whole_number("seed", seed, 0)
    folder = None if run_folder is None else folder_path("run_folder", run_folder)
    tell = _teller(show_progress)
    writing = None
    if isinstance(questions, str) and questions == GENERATE:
        file = None if folder is None else folder / "questions.json"
        most = CALLS if max_calls is None else whole_number("max_calls", max_calls, LEAST_CALLS)
        writing = Writing(default_llm(llm), most, file, num_workers, tell, show_progress)
    elif llm is not None or max_calls is not None:
        raise ValueError(f"llm and max_calls are for questions={GENERATE!r}")
    with clock.step("looking"):
        seen = look_at(app)
        if writing is None:  # what is wrong with them is said before anything is written
            asked = gather(seen, questions, traffic, seed)
    with _held(folder):
        if writing is not None:
            with clock.step("writing questions"):
                asked = gather(seen, None, traffic, seed, writing)
        return _tuned(
            seen, asked, folder, num_workers, seed, show_progress, clock, limits, tell, named
        )


def _named(also: Sequence[BaseNodePostprocessor]) -> dict[str, BaseNodePostprocessor]:
    """Re-rankers by the name of their class."""
    named: dict[str, BaseNodePostprocessor] = {}
    for reranker in items_of("also", also, "node postprocessors"):
        of_type("also", reranker, BaseNodePostprocessor, "a list of node postprocessors")
        name = type(reranker).__name__
        alike = sum(type(other).__name__ == name for other in named.values())
        named[f"{name} {alike + 1}" if alike else name] = reranker
    return named


def _teller(show_progress: bool) -> Tell:
    def tell(what: str) -> None:
        logger.info("%s", what)
        if show_progress:
            from tqdm.auto import tqdm

            tqdm.write(what)

    return tell


@dataclass(frozen=True)
class _Limits:
    """What may be spent: milliseconds more a query, and the moment at which learning ends."""

    milliseconds: float | None
    deadline: float | None


@contextmanager
def _held(folder: Path | None) -> Iterator[None]:
    """One run at a time in a folder, which is gone after it succeeded."""
    if folder is None:
        yield
        return
    lock = folder / "lock"
    busy = TuningError(f"another run is at work on {folder}; give each its own run_folder")
    with locked(lock, busy):
        yield
        remove_locked_folder(lock)


def _tuned(
    seen: SeenApp,
    asked: Questions,
    folder: Path | None,
    num_workers: int,
    seed: int,
    show_progress: bool,
    clock: Clock,
    limits: _Limits,
    tell: Tell,
    also: dict[str, BaseNodePostprocessor],
) -> TunedApp:
    language, prose = language_of(node.get_content() for node in seen.nodes.values())
    embedder = None
    if seen.embed_model is not None:
        cache = None if folder is None else folder / "vectors.sqlite"
        embedder = Embedder(
            seen.embed_model, cache=cache, num_workers=num_workers, show_progress=show_progress
        )
    with clock.step("embedding"):
        tell(f"embedding {len(asked)} questions; {len(seen.nodes)} nodes are read from the index")
        search = Search(seen, embedder, language)
        vectors = None if embedder is None else embedder.queries(asked.texts)
        adapters = _adapters(seen, asked, search, vectors, folder, seed)
    with clock.step("timing"):
        cost = _milliseconds(search, asked, vectors, also)
    most = limits.milliseconds
    affordable = {order for order, more in cost.items() if most is None or more <= most}
    ladder = Ladder(
        search,
        asked,
        vectors,
        adapters,
        prose=prose,
        seed=seed,
        ks=KS,
        tell=tell,
        orders=affordable,
        deadline=limits.deadline,
        also={name: reranker for name, reranker in also.items() if name in affordable},
    )
    with clock.step("tuning"):
        measured = ladder.measure()
    outcome = _decided(measured, asked, seed)
    found = _parts(seen, outcome.stack, measured, language)
    if outcome.stack.given:
        found["given"] = also[outcome.stack.order]
    report = _report(seen, asked, measured, outcome, cost, clock, seed, prose)
    written = asked.dataset if asked.kind == "generated questions" else None
    return TunedApp(seen, outcome.stack, report, index=search.index, written=written, **found)


def _adapters(
    seen: SeenApp,
    asked: Questions,
    search: Search,
    vectors: Float32 | None,
    folder: Path | None,
    seed: int,
) -> Adapters | None:
    if vectors is None or search.embedder is None or asked.kind == "stand-ins":
        return None
    if len(asked) < LEAST:
        return None
    positives = positive_rows(asked.dataset)
    sentences = _sentences(seen, search.embedder, seed)
    kept = None if folder is None else folder / "adapters"
    return Adapters(vectors, positives, search.documents, sentences, kept, seed)


def _sentences(seen: SeenApp, embedder: Embedder, seed: int) -> Pairs | None:
    """Sentences of the nodes, which teach an adapter about documents without questions."""
    bodies = {id_: node.get_content() for id_, node in seen.nodes.items()}
    bodies = {id_: text for id_, text in bodies.items() if text.strip()}
    try:
        found = generate_sentence_queries(bodies, per_document=2, seed=seed)
    except DatasetError:  # no text has a sentence: questions teach alone
        return None
    ids = list(found.queries)
    chosen = np.random.default_rng([seed, 3]).permutation(len(ids))[:SENTENCES]
    dataset = found.subset([ids[place] for place in sorted(chosen.tolist())])
    rows = {id_: row for row, id_ in enumerate(seen.nodes)}
    vectors = embedder.queries(list(dataset.queries.values()))
    return Pairs(unit_rows(vectors), positive_rows(dataset, rows))


@dataclass(frozen=True)
class _Outcome:
    stack: Stack
    shown: bool
    reason: str


def _decided(measured: Measured, asked: Questions, seed: int) -> _Outcome:
    """The stack to serve: the ladder's, if the choice as a whole holds against the app before."""
    before = measured.scores[BEFORE].values[PRIMARY]
    served = measured.served.values[PRIMARY]
    gain = paired_gain(before, served, seed=seed)
    seen = asked.seen[measured.rows]
    verdict = decide(PRIMARY, gain, slices(before, served, seen, seed))
    real = asked.kind != "stand-ins"
    stack = measured.stack
    if stack == BEFORE:
        last = measured.steps[-1].reason if measured.steps else "nothing else could be tried"
        return _Outcome(stack, False, last)
    if verdict.accepted and real:
        return _Outcome(stack, True, verdict.reason)
    untuned = [s for s in measured.steps if s.taken and not (s.stack.tuned or s.stack.given)]
    if stack.tuned or stack.given:
        stack = untuned[-1].stack if untuned else BEFORE
    why = untuned[-1].reason if untuned else verdict.reason
    return _Outcome(stack, False, why)


def _parts(seen: SeenApp, stack: Stack, measured: Measured, language: str) -> dict[str, Any]:
    """What `TunedApp` takes beside the stack."""
    adapter = None
    if stack.vectors == "adapted" and measured.adapter is not None and seen.embed_model:
        adapter = Adapter(
            measured.adapter.map,
            base_model="" if seen.embed_model is None else base_name(seen.embed_model),
            details={"accepted": True, "signature": model_signature(seen.embed_model)},
        )
    ranker = measured.rankers.get(stack.vectors) if stack.order == "tuned" else None
    return {"language": language, "adapter": adapter, "ranker": ranker}


def _report(
    seen: SeenApp,
    asked: Questions,
    measured: Measured,
    outcome: _Outcome,
    cost: dict[str, float],
    clock: Clock,
    seed: int,
    prose: bool,
) -> AppReport:
    before = measured.scores[BEFORE]
    served = measured.served if outcome.stack == measured.stack else measured.scores[outcome.stack]
    gains = {
        name: paired_gain(before.values[name], served.values[name], seed=seed) for name in SHOWN
    }
    seen_rows = asked.seen[measured.rows]
    parts = slices(before.values[PRIMARY], served.values[PRIMARY], seen_rows, seed)
    notes = [*seen.notes, *asked.notes, *measured.notes]
    if not prose:
        notes.append("the documents are hardly prose: words must show their gain here")
    if asked.kind == "stand-ins":
        notes.append(
            "sentences of the documents stood in for questions and say little about them: "
            "twenty real questions with their answers would decide it"
        )
    worse, better = moved(asked.dataset, before, served)
    return AppReport(
        served=str(outcome.stack),
        kind=asked.kind,
        changed=outcome.stack != BEFORE,
        shown=outcome.shown,
        reason=outcome.reason,
        gains=gains,
        slices={name: {PRIMARY: gain} for name, gain in parts.items()},
        ladder=_ladder(measured, outcome, cost, seed),
        worse=worse,
        better=better,
        model="" if seen.embed_model is None else base_name(seen.embed_model),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        counts={
            "nodes": len(seen.nodes),
            "questions": len(asked),
            "measured": len(measured.rows),
            "folds": len(measured.chosen),
        },
        top_k=seen.top_k,
        seconds={name: round(value, 1) for name, value in clock.seconds.items()},
        notes=notes,
        seed=seed,
        fingerprint=asked.dataset.fingerprint(),
        versions=installed_versions("torch", "numpy"),
    )


def _ladder(measured: Measured, outcome: _Outcome, cost: dict[str, float], seed: int) -> list[Rung]:
    reasons = {step.stack: step.reason for step in measured.steps}
    before = measured.scores[BEFORE].values[PRIMARY]
    return [
        Rung(
            name=str(stack),
            values={name: float(scores.values[name].mean()) for name in SHOWN},
            gain=paired_gain(before, scores.values[PRIMARY], seed=seed),
            milliseconds=cost[stack.order],
            taken=stack == outcome.stack,
            reason=reasons.get(stack, ""),
        )
        for stack, scores in measured.scores.items()
    ]


def _milliseconds(
    search: Search,
    asked: Questions,
    vectors: Float32 | None,
    also: dict[str, BaseNodePostprocessor],
    questions: int = 10,
    tries: int = 3,
) -> dict[str, float]:
    """What each way to order costs a query beside the app's own search, in milliseconds.

    Of several tries the fastest counts: what else runs on the machine is no part of the app.
    """
    bundles = [
        QueryBundle(text, embedding=None if vectors is None else vectors[row].tolist())
        for row, text in enumerate(asked.texts[:questions])
    ]
    reranker = LightReranker(analyzer=search.analyzer)
    ways = {
        "retriever": search.served.retriever,
        "fusion": search.served,
        "untuned": search.served.with_reranker(reranker),
        **{name: search.served.with_reranker(each) for name, each in also.items()},
    }
    found = {}
    for name, way in ways.items():
        asks, often = (bundles, tries) if name not in also else (bundles[:2], 1)  # may cost much
        spent = [[_seconds(way, bundle) for _ in range(often)] for bundle in asks]
        found[name] = 1000 * float(np.median([min(times) for times in spent]))
    more = {name: round(max(0.0, ms - found["retriever"]), 2) for name, ms in found.items()}
    return {**more, "tuned": more["untuned"]}


def _seconds(retriever: BaseRetriever, question: QueryBundle) -> float:
    started = time.perf_counter()
    retriever.retrieve(question)
    return time.perf_counter() - started
