"""The recorder: listens to a running app and writes what an engine can learn from."""

from __future__ import annotations

import atexit
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from llama_index.core.evaluation import BaseEvaluator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode
from llama_index_instrumentation import get_dispatcher

from llama_index.tuning._checks import (
    folder_path,
    metadata_mode as checked_mode,
    number,
    plain_arguments,
    text_or_none,
)
from llama_index.tuning.collect.events import Events, EventTap
from llama_index.tuning.collect.log import PathLike, TrafficLog
from llama_index.tuning.collect.masking import Redact, mask_secrets
from llama_index.tuning.collect.recorded import RelevanceSource, Teacher, Where
from llama_index.tuning.collect.records import node_attachments
from llama_index.tuning.collect.sink import Sink
from llama_index.tuning.collect.spans import Spans, SpanTap, begun, chosen_trace
from llama_index.tuning.collect.traffic import Traffic

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode, NodeWithScore
    from typing_extensions import Self

    from llama_index.tuning.datasets.chat import ChatDataset
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.relevance import RelevanceDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.routing import RoutingDataset


dispatcher = get_dispatcher(__name__)

Component = TypeVar("Component", bound=BaseEvaluator | BaseNodePostprocessor)


class FinetuningRecorder:
    """Records a running app's LLM exchanges, retrievals, re-rankings, routes and verdicts.

    Use it as a context manager, or `attach()` it when a server starts and `detach()` it when it
    stops. Everything that one request caused is written under one trace id, to an append-only
    log that threads, asyncio tasks and processes share. Recording never fails the app: what
    goes wrong is counted in `failures` and logged.

    Args:
        path: the log, such as `"traffic.jsonl"`; more processes and rotation add
            `traffic.part2.jsonl`, …
        flush_every: records to hold back before the operating system gets them, each request's
            when it ends; with 1, a kill of the process loses no request that has returned.
        flush_seconds: the longest that a held-back record waits; a request that takes longer
            (an agent's) is written as it goes.
        fsync: wait for the disk at each flush.
        max_bytes: size at which a new file begins.
        redact: applied to every text before it is written, ids aside; the default masks API
            keys and e-mail addresses. None writes texts as they are. The log is locked meanwhile:
            a hook should be quick, and must not wait for another thread that uses the app.
        sample: share of the requests that are recorded, each whole or not at all, 0 to 1.
        metadata_mode: which of a passage's metadata its text is written with; by default what an
            index embeds, which may hold file paths. `MetadataMode.NONE` writes the text alone.

    Example:
        >>> import tempfile
        >>> from llama_index.core.llms import MockLLM
        >>> with FinetuningRecorder(tempfile.mkdtemp() + "/traffic.jsonl") as recorder:
        ...     answer = MockLLM().complete("What is the fee?")
        ...     recorder.feedback(recorder.last_trace_id(), 1.0)
        >>> recorder.traffic().stats()["records"]
        {'llm': 1, 'feedback': 1}
    """

    @plain_arguments
    def __init__(
        self,
        path: PathLike,
        *,
        flush_every: int = 1,
        flush_seconds: float = 1.0,
        fsync: bool = False,
        max_bytes: int = 64 * 2**20,
        redact: Redact | None = mask_secrets,
        sample: float = 1.0,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
    ) -> None:
        sample = number("sample", sample, 0, 1)
        self.path = folder_path("path", path)
        circle = os.path.islink(os.path.realpath(self.path))
        if circle or (self.path.exists() and not self.path.is_file()):
            raise ValueError(
                f"path must be a file, but {path} is a folder, a pipe, a device or a circle"
            )
        self._log = TrafficLog(
            path,
            flush_every=flush_every,
            flush_seconds=flush_seconds,
            fsync=fsync,
            max_bytes=max_bytes,
            redact=redact,
        )
        self._sink = Sink(self._log, sample, checked_mode(metadata_mode))
        spans = Spans(self._sink)
        self._events = Events(self._sink, spans)
        self._event_tap, self._span_tap = EventTap(events=self._events), SpanTap()
        self._span_tap.spans = spans

    @property
    def failures(self) -> int:
        """Records that could not be made or written."""
        return self._sink.failures

    def attach(self) -> Self:
        """Begin to listen, on the root of LlamaIndex's dispatchers."""
        root = get_dispatcher()
        if all(tap is not self._event_tap for tap in root.event_handlers):
            root.add_event_handler(self._event_tap)
            root.add_span_handler(self._span_tap)
            atexit.register(self.detach)
        return self

    def detach(self) -> None:
        """Stop listening, and write what is held back."""
        root = get_dispatcher()
        root.event_handlers = [h for h in root.event_handlers if h is not self._event_tap]
        root.span_handlers = [h for h in root.span_handlers if h is not self._span_tap]
        atexit.unregister(self.detach)
        self._log.close()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def flush(self) -> None:
        """Write what `flush_every` holds back."""
        self._log.flush()

    @contextmanager
    def trace(self, trace_id: str | None = None) -> Iterator[str]:
        """Put everything inside under one trace id, one's own or a new one.

        Without it a request is what one outermost call causes: `query()`, an agent's `run()`.
        """
        if trace_id is not None:
            _check_trace_id(trace_id)
        chosen = trace_id or uuid4().hex
        token = chosen_trace.set(chosen)
        try:
            yield chosen
        finally:
            chosen_trace.reset(token)

    def last_trace_id(self) -> str:
        """The trace id of the request that this thread or task made last.

        What ran in another thread or task (an agent or workflow, `asyncio.to_thread`) cannot be
        seen from here: put it in `with recorder.trace() as trace_id:`.

        Raises:
            RuntimeError: no request was made here, or a later one may have been made elsewhere.
        """
        chosen, last = chosen_trace.get(), begun.get()
        if chosen is not None:
            return chosen
        if last is None:
            raise RuntimeError("no request was made in this thread or task yet")
        if not last.is_mine() or last.elsewhere:
            raise RuntimeError(
                "the last request was made in another thread or task, which cannot be told from "
                "others' requests; put it in `with recorder.trace() as trace_id:`"
            )
        return last.trace

    def feedback(
        self,
        trace_id: str,
        score: float | None = None,
        *,
        comment: str | None = None,
        choice: str | None = None,
        answer: str | None = None,
        relevant: Sequence[str | BaseNode | NodeWithScore] | None = None,
        irrelevant: Sequence[str | BaseNode | NodeWithScore] | None = None,
    ) -> None:
        """Record what a user thought of a request.

        The last feedback with a score counts; feedback without one adds to what was said before.
        Feedback on a request that `sample=` left out is left out too.

        Args:
            trace_id: the request, from `trace()` or `last_trace_id()`.
            score: the higher the better; above 0 counts as liked where no other limit is set.
                It may be left out where something else is said.
            comment: the user's words.
            choice: the router's choice that would have been right.
            answer: the answer that would have been right.
            relevant: the nodes that helped (opened, cited, voted up), or their ids; none, where
                empty. One that the request did not find is worth most; give the node itself, so
                that the log holds its text.
            irrelevant: nodes that did not, or their ids; without, all others that were shown.
        """
        _check_trace_id(trace_id)
        given = {"relevant": relevant, "irrelevant": irrelevant}
        named = {name: _ids(name, nodes) for name, nodes in given.items() if nodes is not None}
        body = {"comment": comment, "choice": choice, "answer": answer}
        for name, said in body.items():
            text_or_none(name, said)
        if score is None and not named and all(said is None for said in body.values()):
            raise ValueError("score must be a number, got None, and nothing else is said")
        if score is not None:
            score = _finite(score)
        if self._sink.samples(trace_id):
            head = {"kind": "feedback", "trace": trace_id, "time": time.time(), "score": score}
            nodes = [n for ns in given.values() for n in ns or () if not isinstance(n, str)]
            attachments = node_attachments(nodes, self._sink.metadata_mode)
            self._sink.safely(self._log.append, {**head, **body, **named}, attachments)

    def watch(self, component: Component) -> Component:
        """Make a component visible that LlamaIndex announces to nobody; returns the same object.

        Needed once for each evaluator, and for re-rankers with an async method of their own
        (`LLMRerank`) where they are awaited. Routers, retrievers, other re-rankers and LLMs need
        no such call.
        """
        if isinstance(component, BaseEvaluator):
            name = "aevaluate"
        elif isinstance(component, BaseNodePostprocessor):
            name = "_apostprocess_nodes"
        else:
            raise TypeError(
                "component must be an evaluator or a node postprocessor, "
                f"got {type(component).__name__}"
            )
        if name not in vars(component):
            # Not setattr(): postprocessors are pydantic models, which take fields only.
            object.__setattr__(component, name, dispatcher.span(getattr(component, name)))
        return component

    def traffic(self) -> Traffic:
        """Everything recorded so far, by all processes that share the path."""
        self.flush()
        return Traffic.load(self.path)

    def chat_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> ChatDataset:
        """LLM exchanges; see `Traffic.chat_dataset`."""
        return self.traffic().chat_dataset(where=where, teacher=teacher)

    def preference_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> ChatDataset:
        """Pairs of answers to one prompt; see `Traffic.preference_dataset`."""
        return self.traffic().preference_dataset(where=where, teacher=teacher)

    def retrieval_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None, top_n: int = 1
    ) -> RetrievalDataset:
        """Queries with the passages that served them; see `Traffic.retrieval_dataset`."""
        return self.traffic().retrieval_dataset(where=where, teacher=teacher, top_n=top_n)

    def routing_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> RoutingDataset:
        """Queries with the choices that a router made; see `Traffic.routing_dataset`."""
        return self.traffic().routing_dataset(where=where, teacher=teacher)

    def relevance_dataset(
        self,
        *,
        where: Where | None = None,
        teacher: Teacher | None = None,
        source: RelevanceSource = "rerankers",
    ) -> RelevanceDataset:
        """Queries with scored passages; see `Traffic.relevance_dataset`."""
        return self.traffic().relevance_dataset(where=where, teacher=teacher, source=source)

    def judgment_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> JudgmentDataset:
        """Verdicts of judges; see `Traffic.judgment_dataset`."""
        return self.traffic().judgment_dataset(where=where, teacher=teacher)


def _check_trace_id(trace_id: object) -> None:
    if not isinstance(trace_id, str) or not trace_id:
        raise ValueError(f"trace_id must be a text that is not empty, got {trace_id!r}")


def _ids(name: str, given: object) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"{name} must be a list of nodes or their ids, got {given!r}")
    ids: list[Any] = [getattr(item, "node_id", item) for item in given]
    for id_ in ids:
        if not isinstance(id_, str) or not id_:
            raise ValueError(f"{name} must hold nodes or their ids, got {id_!r}")
    return ids


def _finite(score: object) -> float:
    if isinstance(score, (str, bytes)):
        raise ValueError(f"score must be a number, got {score!r}")
    try:
        number = float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"score must be a number, got {score!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"score must be a finite number, got {number}")
    return number
