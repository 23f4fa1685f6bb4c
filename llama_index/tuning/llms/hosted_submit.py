"""One job for one run, whatever gets lost on the way.

The client sends no idempotency key, and a repeated request makes a second job. So nothing is sent
again before a look at the server's own list: a job is found by a run key in its metadata, or,
where a server keeps no metadata, by its training file among the jobs that were not there before.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from llama_index.tuning.errors import HostedError
from llama_index.tuning.generate.retries import status_of
from llama_index.tuning.llms.hosted_calls import (
    MOST_LISTED,
    Calls,
    Garbage,
    Tries,
    checked,
    listed,
    transient,
)
from llama_index.tuning.llms.hosted_client import ServerKind
from llama_index.tuning.llms.hosted_file import TrainingFile
from llama_index.tuning.llms.hosted_options import RUN_KEY, JobOptions
from llama_index.tuning.llms.hosted_state import JobState
from llama_index.tuning.llms.hosted_upload import Uploader

logger = logging.getLogger(__name__)

ENDED_BADLY = ("failed", "cancelled")
_NOT_READY = re.compile(r"not (yet )?(been )?(ready|processed)|being processed|pending", re.I)


@dataclass
class Submitter:
    """Brings a run's files and job to the server.

    Args:
        calls: sends the requests.
        kind: the server's dialect.
        state: what is known from before.
        file_timeout: seconds to wait for a file to be ready.
    """

    calls: Calls
    kind: ServerKind
    state: JobState
    file_timeout: float

    def job(self, options: JobOptions, training: TrainingFile, val: TrainingFile | None) -> Any:
        """The run's job: the one that exists, or a new one.

        A job of this run that failed or was cancelled is not taken up again.
        """
        key = options.run_key(training.sha256, val.sha256 if val else None)
        known = self.known_job(key)
        if known is not None and known.status not in ENDED_BADLY:
            logger.info("job %s of this run is %s; nothing is sent again", known.id, known.status)
            return known
        uploader = Uploader(self.calls, self.state, self.file_timeout)
        training_id = uploader.file_id(training)
        val_id = uploader.file_id(val) if val else None
        jobs = self._jobs()
        found = self._interrupted(key, training_id, jobs) or _alive(jobs or [], key)
        if found is None:
            before = [job.id for job in jobs or []]
            found = self._create(options, key, training_id, val_id, before)
        self.note(key, found)
        return found

    def known_job(self, key: str) -> Any | None:
        """The job that the state file names for this run."""
        job_id = self.state.run(key).get("job_id")
        if not job_id:
            return None
        try:
            return self.retrieve(job_id)
        except HostedError as exc:
            if exc.status != 404:
                raise
            raise HostedError(
                f"{self.state.path} names job {job_id} for this data and options, and "
                f"{self.calls.address} does not know it: another key or project? If it is gone "
                "for good, move the state file away"
            ) from exc

    def retrieve(self, job_id: str) -> Any:
        """A job as it is now."""
        jobs = self.calls.quick.fine_tuning.jobs
        return self.calls.send(
            f"look at job {job_id}", lambda: checked(jobs.retrieve(job_id), "id", "status")
        )

    def wait_until_served(self, model: str, timeout: float) -> None:
        """Until a model answers one word: a new name is unknown (404) for some moments."""
        chat = self.calls.client.chat.completions
        deadline = self.calls.clock.now() + timeout
        asked: list[Any] = [{"role": "user", "content": "Hello"}]

        def ask() -> None:
            try:
                chat.create(model=model, messages=asked, max_tokens=1)
            except Exception as exc:
                if status_of(exc) not in (400, 422):  # it is there, and wants to be asked otherwise
                    raise

        policy = Tries(self.calls.clock, deadline=deadline, absent=MOST_LISTED)
        self.calls.send(f"ask {model}", ask, policy)

    def _create(
        self, options: JobOptions, key: str, training: str, val: str | None, before: list[str]
    ) -> Any:
        jobs = self.calls.quick.fine_tuning.jobs
        self.state.keep_run(key, job_id=None, creating=before, training_file=training)
        lost = False
        with_key = self.kind != "nebius"  # its jobs have no metadata

        def create() -> Any:
            nonlocal lost, with_key
            found = self._after_loss(key, training, before) if lost else None
            if found is not None:
                return found
            asked = options.request(self.kind, training, val, key if with_key else None)
            try:
                return checked(jobs.create(**asked), "id", "status")
            except Exception as exc:
                lost = lost or _may_have_arrived(exc)
                if with_key and not options.metadata and _refuses_metadata(exc):
                    with_key = False
                    raise Garbage("the server takes no metadata") from exc
                raise

        try:
            job = self.calls.send("create the job", create, _ForJob(self.calls, self.file_timeout))
        except HostedError:
            if not lost:  # refused: there is no job to look for at the next start
                self.state.keep_run(key, creating=None)
            raise
        logger.info("job %s was created on %s", job.id, options.model)
        return job

    def _after_loss(self, key: str, training: str, before: list[str]) -> Any | None:
        try:
            return _ours(self._jobs(single=True) or [], key, training, before)
        except HostedError as exc:
            raise HostedError(
                f"the reply to the request for a job was lost, and {self.calls.address} cannot "
                f"list jobs ({exc}): whether one runs is unknown. Look at the provider's console; "
                "pass start_job_id= if there is one"
            ) from exc

    def _interrupted(self, key: str, training: str, jobs: list[Any] | None) -> Any | None:
        """The job that a process made which died before it could note its id."""
        before = self.state.run(key).get("creating")
        if before is None:
            return None
        if jobs is None:
            raise HostedError(
                f"a request for a job of this run was interrupted, and {self.calls.address} cannot "
                "list jobs: whether one runs is unknown. Look at the provider's console; pass "
                f"start_job_id= if there is one, else move {self.state.path} away"
            )
        found = _ours(jobs, key, training, before)
        if found is not None:
            logger.info("job %s was made before an interruption; it is taken up", found.id)
        return found

    def _jobs(self, *, single: bool = False) -> list[Any] | None:
        """The newest jobs; None where the server cannot list them.

        With `single`, it is tried once, and an error is the caller's to handle.
        """
        jobs = self.calls.quick.fine_tuning.jobs

        def look() -> list[Any]:
            found = listed(lambda: jobs.list(limit=100), MOST_LISTED)
            return [checked(job, "id", "status") for job in found]

        return self.calls.listing("list jobs", look, single=single)

    def note(self, key: str, job: Any) -> None:
        """Write a job's id and status down."""
        try:
            self.state.keep_run(
                key,
                job_id=job.id,
                status=job.status,
                fine_tuned_model=job.fine_tuned_model,
                creating=None,
            )
        except OSError as exc:  # the job must not be lost for a full disk
            logger.warning("job %s was made, but %s: %s", job.id, self.state.path, exc)


class _ForJob(Tries):
    """Tries of the request for a job: a file that is not ready yet is waited for."""

    def __init__(self, calls: Calls, file_timeout: float) -> None:
        super().__init__(calls.clock)
        self.until = calls.clock.now() + file_timeout

    def again(self, error: BaseException) -> bool:
        if _not_ready(error) and self.clock.now() < self.until:
            return True
        return super().again(error)


def _not_ready(error: BaseException) -> bool:
    said = _said(error)
    return (
        status_of(error) in (400, 409, 422)
        and "file" in said.lower()
        and bool(_NOT_READY.search(said))
    )


def _may_have_arrived(error: BaseException) -> bool:
    """Whether a request that failed so may have made a job."""
    return transient(error) and status_of(error) != 429


def _refuses_metadata(error: BaseException) -> bool:
    return status_of(error) in (400, 422) and "metadata" in _said(error)


def _said(error: BaseException) -> str:
    """All that the server says: the client's message may hold a part of it."""
    return f"{error} {getattr(error, 'body', '')}"


def _ours(jobs: list[Any], key: str, training: str, before: list[str]) -> Any | None:
    """The job of this run among those that were not there before."""
    new = [job for job in jobs if job.id not in before]
    for job in new:
        if _key_of(job) == key:
            return job
    same = [job for job in new if not job.metadata and job.training_file == training]
    return same[-1] if same else None


def _alive(jobs: list[Any], key: str) -> Any | None:
    """The newest job of this run that did not fail and was not cancelled."""
    ours = (job for job in jobs if _key_of(job) == key and job.status not in ENDED_BADLY)
    return next(ours, None)


def _key_of(job: Any) -> str | None:
    metadata = getattr(job, "metadata", None)
    return metadata.get(RUN_KEY) if isinstance(metadata, dict) else None
