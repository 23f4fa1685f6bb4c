"""LLM exchanges, retrievals and queries, from the events that LlamaIndex emits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llama_index.core.base.response.schema import PydanticResponse, Response
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.events.query import QueryEndEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index_instrumentation.base.event import BaseEvent
from llama_index_instrumentation.event_handlers.base import BaseEventHandler

from llama_index.tuning._running import ThreadLock, at_own_work
from llama_index.tuning.collect.log import Batch
from llama_index.tuning.collect.records import call_record, query_text, scored
from llama_index.tuning.collect.sink import OpenSpan, Request
from llama_index.tuning.collect.spans import Spans
from llama_index.tuning.datasets.formats.messages import message_record

if TYPE_CHECKING:
    from llama_index.tuning.collect.sink import Sink


_MAX_PENDING = 10_000


@dataclass
class _Pending:
    """An LLM call that has begun. A stream outlives its span, so it keeps it."""

    span: OpenSpan
    record: dict[str, Any]
    last_chunk: Any = None


class Events:
    """Joins each LLM call's start with its end, and records retrievals and queries."""

    def __init__(self, sink: Sink, spans: Spans) -> None:
        self.sink, self._spans = sink, spans
        spans.failed = self.forget
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._chunks: dict[int, str] = {}
        self._lock = ThreadLock()
        self.handlers: dict[type[BaseEvent], Callable[[Any], None]] = {
            LLMChatStartEvent: self._start,
            LLMCompletionStartEvent: self._start,
            LLMChatInProgressEvent: self._chunk,
            LLMCompletionInProgressEvent: self._chunk,
            LLMChatEndEvent: self._end,
            LLMCompletionEndEvent: self._end,
            RetrievalEndEvent: self._retrieval,
            QueryEndEvent: self._query,
            ExceptionEvent: self._failed,
        }

    def forget(self, span_id: str) -> None:
        """Let go of a call that failed."""
        with self._lock:
            self._drop(span_id)

    def _start(self, event: LLMChatStartEvent | LLMCompletionStartEvent) -> None:
        span = self._span(event)
        record = call_record(event.additional_kwargs, event.model_dict)
        for outer in self._spans.enclosing(span):
            outer.model = record["model"]
            if not outer.calls_llm:
                continue
            if outer.instance is span.instance:
                return  # chat() answered through complete(): the outer one is recorded
            outer.delegates = True
        span.calls_llm = True
        record["within"] = self._spans.within(span)
        if (
            not span.request.sampled
            or isinstance(span.instance, StructuredLLM)
            or event.span_id is None
        ):
            return
        if isinstance(event, LLMChatStartEvent):
            record["messages"] = [message_record(message) for message in event.messages]
        else:
            record["messages"] = [{"role": "user", "content": event.prompt}]
            record["completion"] = True
        with self._lock:
            self._pending.setdefault(event.span_id, _Pending(span, record))
            if len(self._pending) > _MAX_PENDING:
                self._drop(next(iter(self._pending)))

    def _chunk(self, event: LLMChatInProgressEvent | LLMCompletionInProgressEvent) -> None:
        # A stream that hands on another stream's chunks shows each chunk last, so the outermost
        # stream owns it: astream_chat() over stream_chat() is one exchange.
        with self._lock:
            pending = self._pending.get(event.span_id or "")
            if pending is None:
                return
            self._disown(event.span_id, pending)
            pending.last_chunk = event.response  # held, so that no other object takes its id
            self._chunks[id(event.response)] = event.span_id or ""

    def _end(self, event: LLMChatEndEvent | LLMCompletionEndEvent) -> None:
        with self._lock:
            owner = self._chunks.get(id(event.response))
            pending = self._drop(event.span_id or "")
        if pending is None or event.response is None or owner not in (None, event.span_id):
            return
        if pending.span.delegates:
            return  # another LLM was asked, and that exchange is recorded
        if isinstance(event, LLMChatEndEvent):
            answer = message_record(event.response.message)
        else:
            answer = {"role": "assistant", "content": event.response.text}
        pending.record["response"] = answer
        self.sink.write("llm", pending.record, pending.span)

    def _retrieval(self, event: RetrievalEndEvent) -> None:
        span = self._span(event)
        self.sink.write(
            "retrieval",
            {
                "by": type(span.instance).__name__,
                "query": query_text(event.str_or_query_bundle),
                "nodes": scored(event.nodes),
                "within": self._spans.within(span),
            },
            span,
            event.nodes,
        )

    def _query(self, event: QueryEndEvent) -> None:
        span = self._span(event)
        response = event.response
        known = isinstance(response, Response | PydanticResponse)  # a stream must not be read here
        self.sink.write(
            "query",
            {
                "by": type(span.instance).__name__,
                "query": query_text(event.query),
                "response": str(response) if known else None,
                "nodes": scored(response.source_nodes),
                "within": self._spans.within(span),
                "inner": any(
                    outer.method in ("query", "aquery") for outer in self._spans.enclosing(span)
                ),
            },
            span,
            response.source_nodes,
        )

    def _failed(self, event: ExceptionEvent) -> None:
        self.forget(event.span_id or "")

    def _span(self, event: BaseEvent) -> OpenSpan:
        id_ = event.span_id or event.id_
        found = self._spans.open.get(id_)
        if found is not None and found.id == id_:
            return found
        if found is not None:  # of a class that was not expected to emit this
            own = OpenSpan(id_, found.id, found.request, None, None, perf_counter())
            self._spans.open[id_] = own
            return own
        # An event whose span began before the recorder was attached is a request of its own.
        sampled = not at_own_work.get() and self.sink.samples(id_)
        request = Request(id_, sampled, id_, Batch(open=False))
        return OpenSpan(id_, None, request, None, None, perf_counter())

    def _drop(self, span_id: str) -> _Pending | None:
        pending = self._pending.pop(span_id, None)
        if pending is not None:
            self._disown(span_id, pending)
        return pending

    def _disown(self, span_id: str | None, pending: _Pending) -> None:
        chunk = id(pending.last_chunk)
        if pending.last_chunk is not None and self._chunks.get(chunk) == span_id:
            del self._chunks[chunk]


class EventTap(BaseEventHandler):
    """Hands the dispatcher's events on to a recorder's `Events`."""

    events: Any

    @classmethod
    def class_name(cls) -> str:
        """The name of this handler."""
        return "FinetuningRecorderEvents"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """Something has happened; never raises."""
        handler = self.events.handlers.get(type(event))
        if handler is not None:
            self.events.sink.safely(handler, event)
