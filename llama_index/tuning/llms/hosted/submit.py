"""One upload and one job for one run, whatever gets lost on the way.

The client sends no idempotency key, and a repeated request makes a second job. So nothing is sent
again before a look at the server's own lists: a file is found by its name, which holds the run's
key, and a job by the key in its metadata, or by its file if a server keeps no metadata.
"""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import Any

from llama_index.tuning._files import locked
from llama_index.tuning.asking.calls import status_of
from llama_index.tuning.errors import HostedError, RunFileError
from llama_index.tuning.llms.hosted.calls import SETTLING, Calls, Garbage, checked, transient
from llama_index.tuning.llms.hosted.client import check_open
from llama_index.tuning.llms.hosted.files import RunFiles
from llama_index.tuning.llms.hosted.options import RUN_KEY, JobOptions

logger = logging.getLogger(__name__)

ENDED_BADLY = ("failed", "cancelled")

_BROKEN = ("error", "failed", "deleted", "cancelled")
_READY = ("processed", "succeeded")
_METADATA = re.compile("metadata")
_NOT_READY = re.compile(
    r"file.* (not (yet )?(been )?(ready|processed)|being processed|pending)", re.I
)
_PAUSE = 2.0
"""Seconds between two looks at a file that is not ready."""


def submit_job(calls: Calls, options: JobOptions, files: RunFiles) -> Any:
    """The run's job: the one that exists, or a new one.

    Raises:
        RunFileError: another process submits the same run at this moment.
        HostedEndedError: the server takes no new jobs.
        HostedError: it refuses, or cannot be reached.
    """
    lock = Path(tempfile.gettempdir()) / f"llama-index-tuning-{files.key}.lock"
    with locked(lock, RunFileError("another process is submitting the same data and options")):
        found = find_job(calls, options, files)
        if found is not None:
            logger.info("job %s of this run is %s; nothing is sent", found.id, found.status)
            return found
        check_open(calls.server, calls.clock.today, new_job=True)
        ids = [_file_id(calls, name, content) for name, content in files.named().items()]
        job = _create(calls, options, files.key, *ids)
        logger.info("job %s was created on %s", job.id, options.model)
        return job


def find_job(calls: Calls, options: JobOptions, files: RunFiles) -> Any | None:
    """The newest job of this run that has not failed and was not cancelled."""
    jobs = calls.send("list jobs", lambda: _jobs(calls)) or []
    alive = [job for job in jobs if job.status not in ENDED_BADLY]
    ours = _ours(alive, options, files.key, None)
    if alive and not ours:
        [name, *_] = files.named()
        file = calls.send("list files", lambda: _listed_file(calls, name, len(files.training)))
        ours = _ours(alive, options, files.key, file.id if file else None)
    return ours[0] if ours else None


def retrieve_job(calls: Calls, job_id: str) -> Any:
    """A job as it is now."""
    look = calls.quick.fine_tuning.jobs.retrieve
    return calls.send(f"look at job {job_id}", lambda: checked(look(job_id), "id", "status"))


def cancel_job(calls: Calls, job_id: str) -> Any:
    """End a job."""
    cancel = calls.quick.fine_tuning.jobs.cancel
    try:
        return calls.send(f"cancel job {job_id}", lambda: checked(cancel(job_id), "id", "status"))
    except HostedError as exc:
        if exc.status not in (400, 409):
            raise
        job = retrieve_job(calls, job_id)  # the reply to a first try may have been lost
        if job.status != "cancelled":
            raise
        return job


def _jobs(calls: Calls) -> list[Any] | None:
    jobs = calls.listed(lambda: calls.quick.fine_tuning.jobs.list(limit=100))
    return None if jobs is None else [checked(job, "status") for job in jobs]


def _ours(jobs: list[Any], options: JobOptions, key: str, training: str | None) -> list[Any]:
    """The jobs of this run, the newest first."""

    def is_ours(job: Any) -> bool:
        noted = (job.metadata or {}).get(RUN_KEY)
        # A server may name a model more fully than it was asked for: `model-2025-04-14`.
        same = job.training_file == training and str(job.model).startswith(options.model)
        return bool(noted == key if noted else training and same)

    return [job for job in jobs if is_ours(job)]


def _listed_file(calls: Calls, name: str, size: int) -> Any | None:
    """The file of that name at the server; None too if it cannot list its files."""
    for file in calls.listed(lambda: calls.quick.files.list(purpose="fine-tune")) or []:
        if file.filename == name and file.bytes in (None, size) and _status(file) not in _BROKEN:
            return file
    return None


def _file_id(calls: Calls, name: str, content: bytes) -> str:
    """The file's id at the server, once it is ready: uploaded before, or now."""

    def upload() -> Any:
        found = _listed_file(calls, name, len(content))
        if found is None:
            body = (name, content, "application/jsonl")
            found = checked(calls.client.files.create(file=body, purpose="fine-tune"), "id")
        return found

    file = calls.send(f"upload {name}", upload)
    deadline = calls.clock.now() + SETTLING
    # One that never becomes ready is left to the job's own refusal, in the server's words.
    while _status(file) not in (None, *_READY) and calls.clock.now() < deadline:
        if _status(file) in _BROKEN:
            said = calls.clean(str(file.status_details or "no reason given"))
            raise HostedError(f"{calls.server.address} refused file {file.id}: {said}")
        calls.clock.sleep(_PAUSE)
        look, file_id = calls.quick.files.retrieve, file.id
        file = calls.send(f"look at file {file_id}", lambda: checked(look(file_id), "id"))  # noqa: B023
    return str(file.id)


def _status(file: Any) -> str | None:
    status = getattr(file, "status", None)
    return status.lower() if isinstance(status, str) else None


def _create(
    calls: Calls, options: JobOptions, key: str, training: str, validation: str | None = None
) -> Any:
    asked = options.request(calls.server.kind, training, validation)
    asked["metadata"] = {RUN_KEY: key}
    before = {job.id for job in calls.send("list jobs", lambda: _jobs(calls)) or []}
    lost = False

    def create() -> Any:
        nonlocal lost
        if lost:
            jobs = _jobs(calls)
            if jobs is None:
                raise HostedError(
                    f"the reply to the request for a job was lost, and {calls.server.address} "
                    "cannot list jobs: whether one runs is unknown. Look at the provider's "
                    "console; pass start_job_id= if there is one"
                )
            new = [job for job in jobs if job.id not in before]
            ours = _ours(new, options, key, training)
            if ours:
                return ours[0]
        try:
            return checked(calls.quick.fine_tuning.jobs.create(**asked), "id", "status")
        except Exception as exc:
            lost = lost or (transient(exc) and status_of(exc) != 429)
            if "metadata" in asked and _refused(exc, _METADATA):
                del asked["metadata"]
                raise Garbage("the server takes no metadata") from exc
            raise

    return calls.send(
        "create the job",
        create,
        passes=lambda exc: transient(exc) or _refused(exc, _NOT_READY),
        deadline=calls.clock.now() + SETTLING,
    )


def _refused(error: BaseException, pattern: re.Pattern[str]) -> bool:
    said = f"{error} {getattr(error, 'body', '')}"
    return status_of(error) in (400, 409, 422) and bool(pattern.search(said))
