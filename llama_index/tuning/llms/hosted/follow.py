"""Following a job to its end: statuses, events, metrics, a deadline."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from llama_index.tuning.asking.calls import status_of
from llama_index.tuning.errors import HostedError, JobError, JobNotFinishedError
from llama_index.tuning.llms.hosted.calls import SETTLING, Calls, checked, transient
from llama_index.tuning.llms.hosted.submit import ENDED_BADLY

logger = logging.getLogger(__name__)

SUCCEEDED = "succeeded"
_NAME_POLLS = 3
"""A job may have succeeded some moments before it names its model."""


@dataclass
class Follower:
    """Polls one job.

    Args:
        calls: sends the requests; failures that may pass are waited out until the deadline.
        job_id: whom to follow.
        timeout: seconds from now; None: none.
        poll_interval: seconds between two polls.
        new: the server may not know the job everywhere yet.
        show_progress: show a bar.
        level: of the log, for the job's events.

    `history` collects the metrics that events carry, `said` their messages.
    """

    calls: Calls
    job_id: str
    timeout: float | None
    poll_interval: float
    new: bool
    show_progress: bool
    level: int
    history: list[dict[str, float]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def wait(self) -> Any:
        """The job when it succeeded; a status that is not known is a job that still runs.

        Raises:
            JobError: it failed or was cancelled.
            JobNotFinishedError: it still runs at the deadline.
            HostedError: the server refuses, or cannot be reached until the deadline.
        """
        from tqdm.auto import tqdm

        clock, status, unnamed = self.calls.clock, "", 0
        deadline = clock.now() + (float("inf") if self.timeout is None else self.timeout)
        with tqdm(desc=self.job_id, disable=not self.show_progress) as bar:
            while True:
                job = self._poll(deadline)
                self._hear()
                if job.status != status:
                    logger.info("job %s is %s", job.id, job.status)
                    status = job.status
                bar.set_postfix_str(f"{status}, {self.said[-1] if self.said else 'no event yet'}")
                bar.update()
                unnamed += status == SUCCEEDED
                if status == SUCCEEDED and (job.fine_tuned_model or unnamed > _NAME_POLLS):
                    return job
                if status in ENDED_BADLY:
                    raise self._ended_badly(job)
                if clock.now() >= deadline:
                    raise JobNotFinishedError(
                        f"job {job.id} is still {status} after {self.timeout} seconds (timeout=); "
                        "it goes on at the server: finetune() again waits on, cancel() ends it",
                        job_id=job.id, state=status,
                    )  # fmt: skip
                pause = self.poll_interval * random.uniform(0.8, 1.2)
                clock.sleep(min(pause, max(0.0, deadline - clock.now())))

    def _poll(self, deadline: float) -> Any:
        look, now = self.calls.quick.fine_tuning.jobs.retrieve, self.calls.clock.now
        known_at = now() + SETTLING if self.new else 0.0
        job = self.calls.send(
            f"look at job {self.job_id}",
            lambda: checked(look(self.job_id), "id", "status"),
            passes=lambda exc: transient(exc) or (status_of(exc) == 404 and now() < known_at),
            deadline=deadline,
        )
        self.new = False
        return job

    def _hear(self) -> None:
        """Log what is new; a server without events, or one failure, must not end the wait."""
        events = self.calls.quick.fine_tuning.jobs.list_events

        def new() -> Iterator[Any]:  # the newest comes first
            return takewhile(lambda e: e.id not in self._seen, events(self.job_id, limit=100))

        try:
            found = self.calls.send(
                "list events",
                lambda: self.calls.listed(new),
                deadline=self.calls.clock.now(),  # one try: the next poll looks again
            )
        except HostedError as exc:
            logger.debug("no events of job %s: %s", self.job_id, exc)
            return
        for event in reversed(found or []):
            self._seen.add(event.id)
            message = self.calls.clean(str(event.message))
            self.said.append(message)
            logger.log(self.level, "job %s: %s", self.job_id, message)
            data = event.data if isinstance(event.data, dict) else {}
            metrics = {name: float(value) for name, value in data.items() if _is_number(value)}
            if metrics:
                self.history.append(metrics)

    def _ended_badly(self, job: Any) -> JobError:
        said, code, param = (getattr(job.error, key, None) for key in ("message", "code", "param"))
        about = f", code {code}, param {param}" if code or param else ""
        reason = self.calls.clean(f"failed: {said or 'the server gives no reason'}{about}")
        return JobError(
            f"job {job.id} {'was cancelled' if job.status == 'cancelled' else reason}",
            job_id=job.id, state=job.status, code=code, param=param, events=self.said[-10:],
        )  # fmt: skip


def wait_until_served(calls: Calls, model: str) -> None:
    """Until a tuned model answers one word: a new name is unknown (404) for some moments."""
    asked: list[Any] = [{"role": "user", "content": "Hello"}]

    def ask() -> None:
        try:
            calls.client.chat.completions.create(model=model, messages=asked, max_tokens=1)
        except Exception as exc:
            if status_of(exc) not in (400, 422):  # it is there, and wants to be asked otherwise
                raise

    calls.send(
        f"ask {model}",
        ask,
        passes=lambda exc: transient(exc) or status_of(exc) == 404,
        deadline=calls.clock.now() + SETTLING,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
