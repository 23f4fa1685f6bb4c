"""One job on a folder: what a worker does with one of its shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llama_index.tuning.asking.results import Failure
from llama_index.tuning.errors import GenerationError
from llama_index.tuning.scale.folder import OutputFolder
from llama_index.tuning.scale.shards import Columns, Reader, Shard

_OUTAGE = 8
"""From this many calls on, a shard in which all failed is an outage, and ends the job."""

Batch = Callable[[Any, Path | None], tuple[Any, list[Failure]]]
"""Rows, and where to keep calls → results and failures; both tables are Arrow's."""


class Work(Protocol):
    """What a job does with the rows of a shard; it is sent to the workers by pickle."""

    @property
    def title(self) -> str:
        """Of the bar."""

    @property
    def columns(self) -> Columns:
        """What it reads."""

    def header(self) -> dict[str, Any]:
        """What decides the results, beside the rows."""

    def start(self, limiter: Any) -> Batch:
        """The function of a batch, once in each worker.

        Args:
            limiter: a LlamaIndex `BaseRateLimiter`, or `None`.
        """


@dataclass(frozen=True)
class Counts:
    """Rows of one shard that were read, written, and failed."""

    read: int
    written: int
    failed: int


@dataclass(frozen=True)
class Job:
    """All that a worker needs."""

    work: Work
    system: Any
    output: OutputFolder
    limiter: Any = None

    def start(self) -> Worker:
        """A worker, in the process that it will work in."""
        return Worker(self)


@dataclass
class Worker:
    """Reads, works on and writes one shard after the other."""

    job: Job
    _batch: Batch = field(init=False)
    _reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._batch = self.job.work.start(self.job.limiter)
        self._reader = Reader(self.job.system, self.job.work.columns)

    def __call__(self, shard: Shard) -> Counts:
        """Do one shard: it is on disk when this returns."""
        rows, unread = self._reader.read(shard)
        calls = self.job.output.calls_path(shard.number)
        table, failures = self._batch(rows, calls)
        asked = [failure for failure in failures if failure.step != "read"]
        if len(asked) >= _OUTAGE and not len(table):
            raise GenerationError(
                f"all {len(asked)} calls of a shard failed; the first: {asked[0].message}"
            )
        read, failures = len(rows) + len(unread), [*unread, *failures]
        self.job.output.write(shard.number, table, failures, read)
        return Counts(read, len(table), len(failures))
