"""One app's run: what it is asked to keep to, and the way from what is seen to what is served."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning._checks import (
    folder_path,
    number,
    plain_arguments,
    positive,
    whole_number,
)
from llama_index.tuning._files import check_run_folder, locked, remove_locked_folder
from llama_index.tuning.app.ladder.adapters import adapters_for
from llama_index.tuning.app.ladder.choose import Stack
from llama_index.tuning.app.ladder.cost import milliseconds
from llama_index.tuning.app.ladder.measure import Ladder, Measured
from llama_index.tuning.app.ladder.outcome import decided, report_of
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.model import TunedApp
from llama_index.tuning.app.parts.also import Also
from llama_index.tuning.app.parts.judge import verdicts
from llama_index.tuning.app.questions import GENERATE, Questions, Writing, gather
from llama_index.tuning.app.see import SeenApp, language_of, look_at
from llama_index.tuning.asking.run import default_llm
from llama_index.tuning.base import Clock
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.errors import TuningError
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.identity import base_name, model_signature

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

KS = (1, 5, 10)
CALLS, LEAST_CALLS = 400, 20
"""Requests to an LLM that writes questions: by default, and for a number that tells something."""


@plain_arguments
def run_of(
    *,
    also: Sequence[str | BaseNodePostprocessor] = (),
    keep_index: bool = False,
    max_latency_ms: float | None = None,
    max_seconds: float | None = None,
    run_folder: str | PathLike[str] | None = "tuned_app.run",
    num_workers: int = 1,
    seed: int = 0,
    show_progress: bool = False,
) -> Run:
    """What `tune_app` was asked to keep to, checked; its clock starts."""
    return Run(
        also=Also.of(also, keep_index=keep_index),
        milliseconds=max_latency_ms,
        seconds=max_seconds,
        folder=None if run_folder is None else folder_path("run_folder", run_folder),
        num_workers=whole_number("num_workers", num_workers, 1),
        seed=whole_number("seed", seed, 0),
        show_progress=show_progress,
    )


def tune_one(
    app: Any,
    questions: Any,
    run: Run,
    *,
    traffic: Any = None,
    judgments: Any = None,
    llm: LLM | None = None,
    max_calls: int | None = None,
) -> TunedApp:
    """One index, retriever or query engine; the arguments as in `tune_app`."""
    writing = None
    if isinstance(questions, str) and questions == GENERATE:
        writing = run.writing(llm, max_calls)
    elif llm is not None or max_calls is not None:
        raise ValueError(f"llm and max_calls are for questions={GENERATE!r}")
    with run.clock.step("looking"):  # what is wrong is said before anything is written or learnt
        seen = look_at(app)
        run.also.check(seen)
        asked = None if writing is not None else gather(seen, questions, traffic, run.seed)
        judged = verdicts(judgments, traffic, seen.embed_model)
    with run.held():
        if asked is None:
            with run.clock.step("writing questions"):
                asked = gather(seen, None, traffic, run.seed, writing)
        tuned = _tuned(seen, asked, run)
        if judged is not None:
            with run.clock.step("judge"):
                tuned.evaluator, note = judged.learn()
            tuned.report.notes.append(note)
        return tuned


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What a run was asked to keep to, and its clock."""

    also: Also
    milliseconds: float | None
    seconds: float | None
    folder: Path | None
    num_workers: int
    seed: int
    show_progress: bool
    clock: Clock = field(default_factory=Clock)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if self.milliseconds is not None:
            number("max_latency_ms", self.milliseconds, 0)
        if self.seconds is not None:
            positive("max_seconds", self.seconds)

    @property
    def deadline(self) -> float | None:
        """The moment at which learning ends."""
        return None if self.seconds is None else self.started + self.seconds

    @property
    def cache(self) -> Path | None:
        return None if self.folder is None else self.folder / "vectors.sqlite"

    def tell(self, what: str) -> None:
        logger.info("%s", what)
        if self.show_progress:
            from tqdm.auto import tqdm

            tqdm.write(what)

    def writing(self, llm: LLM | None, max_calls: int | None) -> Writing:
        file = None if self.folder is None else self.folder / "questions.json"
        most = CALLS if max_calls is None else whole_number("max_calls", max_calls, LEAST_CALLS)
        model = default_llm(llm)
        return Writing(model, most, file, self.num_workers, self.tell, self.show_progress)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One run at a time in a folder, which is gone after it succeeded."""
        if self.folder is None:
            yield
            return
        check_run_folder(self.folder, TuningError, before="vectors.sqlite")  # of the command line
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise TuningError(
                f"run_folder {self.folder} cannot be made: {exc.strerror}; choose another, or None "
                "to keep nothing"
            ) from exc
        lock = self.folder / "lock"
        busy = TuningError(f"another run is at work on {self.folder}; give each its own run_folder")
        with locked(lock, busy):
            yield
            remove_locked_folder(lock)


def _tuned(seen: SeenApp, asked: Questions, run: Run) -> TunedApp:
    language, prose = language_of(node.get_content() for node in seen.nodes.values())
    embedder = None
    if seen.embed_model is not None:
        embedder = Embedder(
            seen.embed_model,
            cache=run.cache,
            num_workers=run.num_workers,
            show_progress=run.show_progress,
        )
    with run.clock.step("embedding"):
        run.tell(f"embedding {len(asked)} questions; the index has {len(seen.nodes)} nodes")
        search = Search(seen, embedder, language)
        vectors = None if embedder is None else embedder.queries(asked.texts)
        told = [] if vectors is None else search.told_of_vectors(vectors)
        adapters = adapters_for(seen, asked, search, vectors, run.folder, run.seed, prose=prose)
    with run.clock.step("timing"):
        cost = milliseconds(search, asked, vectors, run.also.rerankers)
    parts, notes = run.also.parts(
        seen,
        asked,
        search,
        adapters,
        vectors,
        run.folder,
        seed=run.seed,
        show_progress=run.show_progress,
    )
    ladder = Ladder(
        search,
        asked,
        vectors,
        adapters,
        prose=prose,
        seed=run.seed,
        ks=KS,
        tell=run.tell,
        cost=cost,
        most=run.milliseconds,
        deadline=run.deadline,
        also=run.also.rerankers,
        parts=parts,
    )
    with run.clock.step("tuning"):
        measured = ladder.measure()
    outcome = decided(measured, asked, run.seed)
    measured.notes.extend([*told, *notes])
    report = report_of(seen, asked, measured, outcome, cost, run.clock, run.seed, prose)
    return TunedApp(
        seen,
        outcome.stack,
        report,
        language=language,
        index=search.index,
        written=asked.dataset if asked.kind == "generated questions" else None,
        given=run.also.rerankers.get(outcome.stack.order),
        **_parts(seen, outcome.stack, measured),
    )


def _parts(seen: SeenApp, stack: Stack, measured: Measured) -> dict[str, Any]:
    """The tuned parts of the stack, as `TunedApp` takes them."""
    adapter = None
    if stack.vectors == "adapted" and measured.adapter is not None and seen.embed_model:
        adapter = Adapter(
            measured.adapter.map,
            base_model=base_name(seen.embed_model),
            details={"accepted": True, "signature": model_signature(seen.embed_model)},
        )
    ranker = measured.rankers.get(stack.vectors) if stack.order == "tuned" else None
    served = measured.part if stack == measured.stack else None
    return {"adapter": adapter, "ranker": ranker, "part": served}
