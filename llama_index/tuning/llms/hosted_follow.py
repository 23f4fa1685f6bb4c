"""Following a job to its end: statuses, events, metrics, a deadline."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llama_index.tuning.errors import HostedError, JobError, JobNotFinishedError
from llama_index.tuning.llms.hosted_calls import Calls, Tries, checked, listed

logger = logging.getLogger(__name__)

SUCCEEDED = "succeeded"
ENDED = (SUCCEEDED, "failed", "cancelled")
"""Any other status, unknown ones too, is a job that still runs."""
_RUNNING = ("validating_files", "queued", "running", "pausing", "paused", "resuming")
_NAME_POLLS = 3
"""A job may have succeeded some moments before it names its model."""
_MOST_EVENTS = 1000
_ABSENT = 5


@dataclass
class Follower:
    """Polls one job.

    Args:
        calls: sends the requests; failures that may pass are waited out until the deadline.
        job_id: whom to follow.
        timeout: seconds from now; None: none.
        poll_interval: seconds between two polls.
        new: the job was made just now, and the server may not know it everywhere yet.
        on_status: is told each new state of the job.
        show_progress: show a bar.
        level: of the log, for the job's events.

    `history` collects the metrics that events carry, `said` the events' messages.
    """

    calls: Calls
    job_id: str
    timeout: float | None = None
    poll_interval: float = 15.0
    new: bool = False
    on_status: Callable[[Any], None] = lambda job: None
    show_progress: bool = False
    level: int = logging.DEBUG
    history: list[dict[str, float]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _with_events: bool = True

    def wait(self) -> Any:
        """The job when it succeeded.

        Raises:
            JobError: it failed or was cancelled.
            JobNotFinishedError: it still runs at the deadline.
            HostedError: the server refuses, or cannot be reached until the deadline.
        """
        clock = self.calls.clock
        deadline = clock.now() + (float("inf") if self.timeout is None else self.timeout)
        bar, last, unnamed = _Bar(self.show_progress, self.job_id), None, 0
        with bar:
            while True:
                job = self._poll(deadline)
                self.new = False
                self._events()
                bar.show(job.status, self.history)
                if job.status != last:
                    self._changed(job)
                    last = job.status
                if job.status == SUCCEEDED:
                    unnamed += 1
                    if job.fine_tuned_model or unnamed > _NAME_POLLS:
                        return job
                elif job.status in ENDED:
                    raise self._ended_badly(job)
                if clock.now() >= deadline:
                    raise self._unfinished(job.status)
                pause = self.poll_interval * random.uniform(0.8, 1.2)
                clock.sleep(min(pause, max(0.0, deadline - clock.now())))

    def _poll(self, deadline: float) -> Any:
        jobs = self.calls.quick.fine_tuning.jobs
        return self.calls.send(
            f"look at job {self.job_id}",
            lambda: checked(jobs.retrieve(self.job_id), "id", "status"),
            Tries(self.calls.clock, deadline=deadline, absent=_ABSENT if self.new else 0),
        )

    def _changed(self, job: Any) -> None:
        logger.info("job %s is %s", job.id, job.status)
        if job.status not in (*ENDED, *_RUNNING):
            logger.warning("job %s: status %r is not known, and waited on", job.id, job.status)
        self.on_status(job)

    def _events(self) -> None:
        """Log what is new; a server without events, or one failure, must not end the wait."""
        if not self._with_events:
            return
        try:
            found = self.calls.send(
                "list events",
                self._new_events,
                Tries(self.calls.clock, deadline=self.calls.clock.now()),  # once: polls go on
            )
        except HostedError as exc:
            self._with_events = exc.status not in (400, 404, 405, 501)
            logger.debug("no events of job %s: %s", self.job_id, exc)
            return
        for event in reversed(found):
            self._seen.add(event.id)
            message = self.calls.clean(str(event.message))
            self.said.append(message)
            logger.log(self.level, "job %s: %s", self.job_id, message)
            metrics = _numbers(event.data)
            if metrics:
                self.history.append(metrics)

    def _new_events(self) -> list[Any]:
        jobs = self.calls.quick.fine_tuning.jobs
        events = listed(lambda: jobs.list_events(self.job_id, limit=100), _MOST_EVENTS)
        new = []
        for event in events:
            if checked(event, "id").id in self._seen:
                break  # newest first
            new.append(event)
        return new

    def _ended_badly(self, job: Any) -> JobError:
        error = job.error
        why = self.calls.clean(str(getattr(error, "message", None) or "the server gives no reason"))
        code, param = getattr(error, "code", None), getattr(error, "param", None)
        about = "".join(f", {name} {value}" for name, value in (("code", code), ("param", param))
                        if value)  # fmt: skip
        reason = "was cancelled" if job.status == "cancelled" else f"failed: {why}{about}"
        return JobError(
            f"job {job.id} {reason}",
            job_id=job.id, state=job.status, code=code, param=param, events=self.said[-10:],
        )  # fmt: skip

    def _unfinished(self, status: str) -> JobNotFinishedError:
        return JobNotFinishedError(
            f"job {self.job_id} is still {status} after {self.timeout} seconds (timeout=); it goes "
            "on at the server: finetune() again waits on, cancel() ends it",
            job_id=self.job_id,
            state=status,
        )


class _Bar:
    """Steps of the job where its events tell them, else its status and the time."""

    def __init__(self, show: bool, job_id: str) -> None:
        self.bar: Any = None
        if show:
            from tqdm.auto import tqdm

            self.bar = tqdm(desc=job_id, unit="step")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, status: str, history: list[dict[str, float]]) -> None:
        if self.bar is None:
            return
        last = history[-1] if history else {}
        self.bar.total = int(last["total_steps"]) if "total_steps" in last else self.bar.total
        self.bar.n = int(last.get("step", self.bar.n))
        self.bar.set_postfix_str(status)


def _numbers(data: Any) -> dict[str, float]:
    if not isinstance(data, dict):
        return {}
    return {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
