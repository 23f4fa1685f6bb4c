"""The open spans of a running app: which request each belongs to, and what encloses it."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import BoundArguments
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.evaluation import BaseEvaluator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index_instrumentation.span.base import BaseSpan
from llama_index_instrumentation.span_handlers.base import BaseSpanHandler

from llama_index.tuning._running import at_own_work
from llama_index.tuning.collect.log import Batch
from llama_index.tuning.collect.records import choice_record, evaluation_record, query_text, scored
from llama_index.tuning.collect.sink import OpenSpan, Request

if TYPE_CHECKING:
    from llama_index.tuning.collect.sink import Sink


chosen_trace: ContextVar[str | None] = ContextVar("chosen_trace", default=None)
begun: ContextVar[Begun | None] = ContextVar("begun", default=None)
_read_on: ContextVar[dict[Spans, OpenSpan]] = ContextVar("read_on")

_KINDS = {
    "selection": (BaseSelector, {"_select", "_aselect"}),
    "rerank": (BaseNodePostprocessor, {"_postprocess_nodes", "_apostprocess_nodes"}),
    "evaluation": (BaseEvaluator, {"evaluate", "aevaluate"}),
}
_REORDERS_ONLY = {"LongContextReorder"}
# What else may emit an event that is recorded, or tells what another one belongs to.
_EMITTERS = (BaseLLM, BaseRetriever, BaseQueryEngine)
_seen: dict[tuple[type, str], tuple[str | None, bool]] = {}
_MAX_OPEN = 100_000  # spans that never end, as of a stream that nobody reads on, would stay


@dataclass(eq=False, slots=True)
class Begun:
    """The request that a thread or task began last.

    Contexts are copied: a task, or a thread that `asyncio.to_thread` starts, inherits what was
    begun where it came from, and what it begins itself is not seen there.
    """

    trace: str
    by: weakref.ref[Any]
    elsewhere: bool = False

    def is_mine(self) -> bool:
        """Whether the running thread or task began it."""
        return self.by() is _runner()


def note_begun(trace: str) -> None:
    """Note that the running thread or task has begun a request.

    A chat engine writes its streamed answer in a thread of its own, which may go on after the
    request's outermost call has ended: that is no later request.
    """
    before = begun.get()
    if before is not None and not before.is_mine() and before.trace != trace:
        before.elsewhere = True
    begun.set(Begun(trace, weakref.ref(_runner())))


def _runner() -> asyncio.Task[Any] | threading.Thread:
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:
        return threading.current_thread()


class Spans:
    """Keeps the open spans, and records selections, re-rankings and evaluations as they end."""

    def __init__(self, sink: Sink) -> None:
        self.open: dict[str, OpenSpan] = {}
        self.failed: Callable[[str], object] = lambda span_id: None
        """Told the id of each span that fails."""
        self._sink = sink

    def enclosing(self, span: OpenSpan) -> Iterator[OpenSpan]:
        """The open spans around a span, innermost first."""
        outer = self.open.get(span.parent_id) if span.parent_id else None
        while outer is not None:
            yield outer
            outer = self.open.get(outer.parent_id) if outer.parent_id else None

    def within(self, span: OpenSpan) -> str | None:
        """The kind of component that a span works for: a judge's own queries are no user's."""
        return next((outer.kind for outer in self.enclosing(span) if outer.kind), None)

    def enter(
        self,
        id_: str,
        arguments: dict[str, Any],
        instance: Any,
        parent_id: str | None,
        tags: dict[str, Any] | None,
    ) -> None:
        """Begin a span; the first of a request gives it its trace id."""
        parent = self._parent(parent_id)
        call = (type(instance), id_[:-37])
        if call not in _seen:
            _seen[call] = _interest(*call)
        kind, has_own = _seen[call]
        if parent is not None and not has_own:
            self.open[id_] = parent  # most spans tell nothing: the one around stands for them
            return
        request = self._begin(id_, parent_id, tags) if parent is None else parent.request
        self.open[id_] = span = OpenSpan(id_, parent_id, request, instance, kind, perf_counter())
        if kind is not None and request.sampled:
            span.note = self._sink.safely(_note, kind, arguments)

    def _parent(self, parent_id: str | None) -> OpenSpan | None:
        """The span around a new one; `None` where the new one begins a request."""
        parent = self.open.get(parent_id) if parent_id else None
        read_on = _read_on.get({}).get(self)
        if read_on is not None and (parent is None or parent.request is not read_on.request):
            parent = read_on
        if parent is not None and parent.request.sampled and at_own_work.get():
            return None
        return parent

    def _begin(self, id_: str, parent_id: str | None, tags: dict[str, Any] | None) -> Request:
        if len(self.open) >= _MAX_OPEN:
            self.open.pop(next(iter(self.open)), None)
        trace = _trace_id(id_, parent_id, tags)
        if at_own_work.get():
            return Request(trace, False, id_, Batch())
        note_begun(trace)
        return Request(trace, self._sink.samples(trace), id_, Batch())

    def exit(self, id_: str, result: Any) -> None:
        """End a span, and record what it was."""
        span = self.open.get(id_)
        if span is None:
            return
        if span.id == id_ and result is not None:
            if span.note is not None:
                self._sink.safely(self._record, span, result)
            if isinstance(result, StreamingResponse | AsyncStreamingResponse):
                self._sink.safely(self._follow, span, result)
        self._close(id_, span.request)

    def _follow(self, span: OpenSpan, answer: StreamingResponse | AsyncStreamingResponse) -> None:
        """See that what is asked while a stream is read belongs to the request it answers.

        A query engine's LLM is called when its stream is read: after the query's span has ended,
        maybe in another thread or task.
        """
        kind = Generator if isinstance(answer, StreamingResponse) else AsyncGenerator
        asked = isinstance(span.instance, BaseQueryEngine) and span.method in ("query", "aquery")
        if not (asked or span.id == span.request.root):
            return
        if not isinstance(answer.response_gen, kind):
            return

        def done(text: str) -> None:
            if asked:
                self._sink.safely(self._sink.write, "answer", {"response": text}, span)

        if isinstance(answer, StreamingResponse):
            answer.response_gen = _followed(answer.response_gen, self, span, done)
        else:
            answer.response_gen = _afollowed(answer.response_gen, self, span, done)

    def drop(self, id_: str) -> None:
        """End a span that failed: nothing of it is recorded."""
        self.failed(id_)
        span = self.open.get(id_)
        if span is not None:
            self._close(id_, span.request)

    def _close(self, id_: str, request: Request) -> None:
        self.open.pop(id_, None)
        if id_ == request.root:
            self._sink.safely(self._sink.log.end, request.batch)

    def _record(self, span: OpenSpan, result: Any) -> None:
        same = (s.instance is span.instance and s.kind == span.kind for s in self.enclosing(span))
        if any(same):
            return  # _aselect() calling _select(): the outer one is recorded
        body = _body(span, result)
        if body is None or span.kind is None:
            return
        name = type(span.instance).__name__
        body = {"by": name, "model": span.model or name, **body}
        nodes = [*span.note["given"], *result] if span.kind == "rerank" and span.note else ()
        self._sink.write(span.kind, body, span, nodes)


def _followed(
    stream: Generator[Any, None, None], spans: Spans, span: OpenSpan, done: Callable[[str], None]
) -> Generator[Any, None, None]:
    """The stream's chunks, each made inside the request of the span."""
    parts: list[str] = []
    try:
        while True:
            token = _read_on.set({**_read_on.get({}), spans: span})
            try:
                chunk = next(stream)
            except StopIteration:
                break
            finally:
                _read_on.reset(token)
            parts.append(str(chunk))
            yield chunk
    finally:
        stream.close()
    done("".join(parts))


async def _afollowed(
    stream: AsyncGenerator[Any, None], spans: Spans, span: OpenSpan, done: Callable[[str], None]
) -> AsyncGenerator[Any, None]:
    """`_followed`, async."""
    parts: list[str] = []
    try:
        while True:
            token = _read_on.set({**_read_on.get({}), spans: span})
            try:
                chunk = await anext(stream)
            except StopAsyncIteration:
                break
            finally:
                _read_on.reset(token)
            parts.append(str(chunk))
            yield chunk
    finally:
        await stream.aclose()
    done("".join(parts))


class SpanTap(BaseSpanHandler[BaseSpan]):
    """Hands the dispatcher's spans on to a recorder's `Spans`, which keeps them."""

    spans: Any = None

    @classmethod
    def class_name(cls) -> str:
        """The name of this handler."""
        return "FinetuningRecorderSpans"

    def span_enter(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any | None = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A span has begun; the base class would keep it a second time."""
        self.spans.enter(id_, bound_args.arguments, instance, parent_id, tags)

    def span_exit(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any | None = None,
        result: Any | None = None,
        **kwargs: Any,
    ) -> None:
        """A span has ended."""
        self.spans.exit(id_, result)

    def span_drop(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any | None = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        """A span has failed."""
        self.spans.drop(id_)

    def new_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """None: the spans are kept by `Spans`."""
        return None

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """None: the spans are kept by `Spans`."""
        return None

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """None: the spans are kept by `Spans`."""
        return None


def _trace_id(span_id: str, parent_id: str | None, tags: dict[str, Any] | None) -> str:
    # A parent that began before the recorder was attached still holds its children together.
    tagged = (tags or {}).get("trace_id")
    return chosen_trace.get() or (str(tagged) if tagged else None) or parent_id or span_id


def _interest(cls: type, call: str) -> tuple[str | None, bool]:
    """The kind of a span by its class and `Class.method`, and whether it is kept by itself."""
    method = call.rpartition(".")[2]
    kinds = (k for k, (base, names) in _KINDS.items() if method in names and issubclass(cls, base))
    kind = None if cls.__name__ in _REORDERS_ONLY else next(kinds, None)
    return kind, kind is not None or issubclass(cls, _EMITTERS)


def _note(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """What must be read off the arguments now, before the component may change them."""
    if kind == "rerank":
        query = given.get("query_bundle")
        nodes = list(given.get("nodes") or [])
        text = None if query is None else query_text(query)
        return {"query": text, "given": nodes, "nodes": scored(nodes)}
    if kind == "selection":
        choices = [choice_record(choice) for choice in given["choices"]]
        return {"query": query_text(given["query"]), "choices": choices}
    return {**given, **given.get("kwargs", {})}


def _body(span: OpenSpan, result: Any) -> dict[str, Any] | None:
    note = span.note or {}
    if span.kind == "selection":
        return {**note, "selected": result.inds, "reasons": result.reasons}
    if span.kind == "evaluation":
        return evaluation_record(result, note)
    ranked = scored(result)
    if note["query"] is None or not _reranks(note["nodes"], ranked):
        return None
    return {"query": note["query"], "nodes": note["nodes"], "ranked": ranked}


def _reranks(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    """Whether scores or order changed; a filter that only leaves nodes out did not rank."""
    kept = {node["id"] for node in after}
    return [node for node in before if node["id"] in kept] != after
