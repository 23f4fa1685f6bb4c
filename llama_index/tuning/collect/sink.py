"""Where records go: which requests are sampled, what a failure costs, and the log."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.schema import MetadataMode

from llama_index.tuning._running import ThreadLock
from llama_index.tuning.collect.log import Batch, TrafficLog
from llama_index.tuning.collect.records import (
    node_attachments,
)

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore


logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(slots=True)
class Request:
    """What the spans of one request share; `root` is the first of them."""

    trace: str
    sampled: bool
    root: str
    batch: Batch


@dataclass
class OpenSpan:
    """A span that has begun: its request, its kind, and what was noted of it."""

    id: str
    parent_id: str | None
    request: Request
    instance: Any
    kind: str | None
    started: float
    # Not of the constructor: most spans leave these as they are, and there are many spans.
    note: dict[str, Any] | None = field(default=None, init=False)
    model: str | None = field(default=None, init=False)
    calls_llm: bool = field(default=False, init=False)
    delegates: bool = field(default=False, init=False)

    @property
    def method(self) -> str:
        """The method's name: the id is `Class.method-uuid`."""
        return self.id[:-37].rpartition(".")[2]


class Sink:
    """Takes what a recorder's handlers hand on; what goes wrong never reaches the app.

    Args:
        log: where records are written.
        sample: share of the requests that are recorded, 0 to 1.
        metadata_mode: which of a passage's metadata its text is written with.
    """

    def __init__(self, log: TrafficLog, sample: float, metadata_mode: MetadataMode) -> None:
        self.log, self.metadata_mode = log, metadata_mode
        self._sample, self._failures, self._lock = sample, 0, ThreadLock()

    @property
    def failures(self) -> int:
        """Records that could not be made or written."""
        return self._failures + self.log.lost

    def samples(self, trace: str) -> bool:
        """Whether a request is recorded; the same in every process."""
        return (
            self._sample >= 1
            or zlib.crc32(trace.encode(errors="surrogatepass")) < self._sample * 2**32
        )

    def safely(self, work: Callable[..., Result], *args: Any) -> Result | None:
        """Do a piece of recording; an error is counted and logged, never raised."""
        try:
            return work(*args)
        except Exception:
            with self._lock:
                self._failures += 1
            if self._failures in (1, 10, 100) or self._failures % 1000 == 0:
                logger.warning("recording failed (%d times)", self._failures, exc_info=True)
            return None

    def write(
        self, kind: str, body: dict[str, Any], span: OpenSpan, nodes: Sequence[NodeWithScore] = ()
    ) -> None:
        """Append a record that a span caused."""
        request = span.request
        if request.sampled:
            record = {
                "kind": kind,
                "trace": request.trace,
                "span": span.id,
                "seconds": int((perf_counter() - span.started) * 1e6) / 1e6,
                "time": time.time(),
                **body,
            }
            attachments = node_attachments(nodes, self.metadata_mode)
            self.log.append(record, attachments, request.batch)
