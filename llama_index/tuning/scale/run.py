"""A job on all shards of a folder that are not done yet, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_index.tuning._checks import check_options
from llama_index.tuning._files import PathLike, locked
from llama_index.tuning._running import progress
from llama_index.tuning.asking.results import Failure
from llama_index.tuning.errors import DatasetError, RunFileError
from llama_index.tuning.scale.folder import LOCK, OutputFolder
from llama_index.tuning.scale.job import Counts, Job, Work
from llama_index.tuning.scale.options import Backend, ScaleOptions, check_backend
from llama_index.tuning.scale.shards import Columns, Shard, file_system, fingerprint, plan


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """What became of a folder.

    Attributes:
        output: the folder of the results: `part-*.parquet`, and `_failures/` beside them.
        shards: all of them.
        resumed: those that were done before.
        read: rows in all shards.
        written: rows of the results.
        failed: items in `_failures/`.
        seconds: of this call.
    """

    output: str
    shards: int
    resumed: int
    read: int
    written: int
    failed: int
    seconds: float

    @classmethod
    def of(
        cls, output: PathLike, counts: Sequence[Counts], *, resumed: int, started: float
    ) -> FolderReport:
        """What the shards come to.

        Args:
            output: the folder.
            counts: of every shard.
            resumed: shards that were done before.
            started: when the call began, by `time.monotonic`.
        """
        return cls(
            output=str(output),
            shards=len(counts),
            resumed=resumed,
            read=sum(count.read for count in counts),
            written=sum(count.written for count in counts),
            failed=sum(count.failed for count in counts),
            seconds=time.monotonic() - started,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        before = f", {self.resumed} of them done before" if self.resumed else ""
        return (
            f"{self.read} rows in {self.shards} shards{before}: {self.written} results in "
            f"{self.output}, {self.failed} failed, {self.seconds:.1f} s"
        )


def run_folder(
    work: Work,
    source: PathLike,
    output: PathLike,
    *,
    backend: Backend,
    options: ScaleOptions | None,
    rows_per_shard: int,
) -> FolderReport:
    """Do a job on all shards of a folder that are not done yet.

    Args:
        work: what is done.
        source: a file, or a folder of files.
        output: the folder that is written.
        backend: where.
        options: how.
        rows_per_shard: where the options say nothing.

    Raises:
        DatasetError: the folder has no files, or they lack a column.
        RunFileError: the output belongs to another job, or one is writing it.
    """
    started = time.monotonic()
    check_backend(backend)
    options = check_options(options, ScaleOptions)
    rows = options.rows_per_shard or rows_per_shard
    system, root = file_system("source", source)
    folder = OutputFolder(*file_system("output", output))
    shards = plan(system, root, work.columns, rows)
    header = {
        **work.header(),
        "columns": dict(work.columns.names),
        "source": fingerprint(system, root),
        "rows_per_shard": rows,
    }
    with alone(folder):
        folder.begin(header)
        done = folder.done() - (folder.failed() if options.retry_failed else set())
        todo = [shard for shard in shards if shard.number not in done]
        job = Job(work, system, folder)
        found = _run(job, todo, backend, options) if todo else iter(())
        bar = progress(found, options.show_progress, work.title, len(todo))
        counts = [*bar, *(Counts(*folder.counts(number)) for number in sorted(done))]
    return FolderReport.of(output, counts, resumed=len(done), started=started)


def _run(
    job: Job, shards: Sequence[Shard], backend: Backend, options: ScaleOptions
) -> Iterator[Counts]:
    if backend == "ray":
        from llama_index.tuning.scale.on_ray import run_on_ray

        return run_on_ray(job, shards, options)
    return _run_here(job, shards, options)


def _run_here(job: Job, shards: Sequence[Shard], options: ScaleOptions) -> Iterator[Counts]:
    limiter = None
    if options.requests_per_minute is not None:
        from llama_index.core.rate_limiter import TokenBucketRateLimiter  # not in the oldest core

        limiter = TokenBucketRateLimiter(requests_per_minute=options.requests_per_minute)
    worker = Job(job.work, job.system, job.output, limiter).start()
    for shard in shards:
        yield worker(shard)


def alone(folder: OutputFolder) -> Any:
    """No other job writes the folder at the same time, as far as its file system can tell."""
    if not folder.local:
        return nullcontext()
    refusal = RunFileError(f"{folder.root} is being written by another job")
    return locked(Path(folder.root, LOCK), refusal)


def read_columns(
    types: Mapping[str, str], required: Sequence[str], names: Mapping[str, str] | None
) -> Columns:
    """The columns of a job, with what they are called in the files.

    Raises:
        ValueError: `names` has a key that is none of them.
    """
    names = dict(names or {})
    unknown = sorted(set(names) - set(types))
    if unknown:
        raise ValueError(
            f"unknown column {unknown[0]!r} in columns; choose from: {', '.join(types)}"
        )
    return Columns(dict(types), tuple(required), names)


def row_faults(
    ids: Sequence[str | None], texts: Mapping[str, Sequence[str | None]], *, distinct: bool = False
) -> tuple[list[int], list[Failure]]:
    """Which rows have an id and all texts, and what is wrong with the others.

    Args:
        ids: of the rows.
        texts: column → its texts.
        distinct: an id that was there before is a fault.
    """
    good, failures, seen = [], [], set()
    for n, id_ in enumerate(ids):
        empty = [name for name, column in texts.items() if not (column[n] or "").strip()]
        fault = "the row has no id" if id_ is None else ""
        if empty:
            fault = fault or f"the {empty[0]} is empty"
        elif distinct and id_ in seen:
            fault = f"the id {id_!r} occurs twice"
        if fault:
            name = f"row {n}" if id_ is None else id_
            failures.append(Failure.of(name, "read", DatasetError(fault), 1))
            continue
        good.append(n)
        seen.add(id_)
    return good, failures
