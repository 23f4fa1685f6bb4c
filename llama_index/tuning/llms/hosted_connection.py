"""One server of hosted jobs as an engine uses it: connected, with what is known of its jobs."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._locks import locked
from llama_index.tuning.errors import HostedError, RunFileError
from llama_index.tuning.llms.hosted_calls import Calls, Clock, checked, listed
from llama_index.tuning.llms.hosted_client import Server, secrets_of, server_of
from llama_index.tuning.llms.hosted_state import JobState
from llama_index.tuning.llms.hosted_submit import Submitter

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

_MOST_CHECKPOINTS = 1000
_DONE = {"cancel": ("cancelled",), "pause": ("paused", "pausing")}


@dataclass
class Connection:
    """What exists from the first request on.

    Attributes:
        calls: sends requests.
        server: who answers.
        state: the state file.
        submitter: brings files and jobs there.
    """

    calls: Calls
    server: Server
    state: JobState
    submitter: Submitter

    @classmethod
    def on(
        cls, client: OpenAI, state_path: Path | None, file_timeout: float, clock: Clock
    ) -> Connection:
        """To a client's server; nothing is sent yet."""
        server = server_of(client)
        calls = Calls(client, server.address, secrets_of(client), clock)
        state = JobState(state_path, server.address)
        return cls(calls, server, state, Submitter(calls, server.kind, state, file_timeout))

    def lock(self) -> AbstractContextManager[None]:
        """Held while a job is made: two processes must not make two."""
        path = self.state.path
        if path is None:
            return nullcontext()
        refusal = RunFileError(f"{path} is in use by another run, which is making a job right now")
        return locked(Path(f"{path}.lock"), refusal)

    def check_state(self, *, required: bool) -> None:
        """Find a folder that cannot be written before anything is sent.

        Args:
            required: raise; else go on without a state file.
        """
        if self.state.path is None and self.server.kind == "nebius":
            logger.warning(
                "%s keeps no metadata with a job: only a state file finds the job of a process "
                "that was killed; pass state_path=",
                self.server.address,
            )
        try:
            self.state.save()
        except OSError as exc:
            if required:
                raise OSError(exc.errno, f"state_path {self.state.path}: {exc.strerror}") from exc
            logger.warning("no state is kept, the job is found again at the server: %s", exc)
            self.state.path = None

    def act(self, action: str, job_id: str) -> Any:
        """`cancel`, `pause` or `resume` a job."""
        act = getattr(self.calls.quick.fine_tuning.jobs, action)
        try:
            return self.calls.send(
                f"{action} job {job_id}", lambda: checked(act(job_id), "id", "status")
            )
        except HostedError as exc:
            # The reply to the first try may have been lost: what counts is where the job is now.
            if exc.status not in (400, 409) or action not in _DONE:
                raise
            job = self.submitter.retrieve(job_id)
            if job.status not in _DONE[action]:
                raise
            return job

    def events(self, job_id: str, limit: int) -> list[Any]:
        """A job's newest events, in the order in which they happened."""
        jobs = self.calls.quick.fine_tuning.jobs
        newest = partial(jobs.list_events, job_id, limit=limit)
        return self.calls.send("list events", lambda: list(listed(newest, limit)))[::-1]

    def checkpoints(self, job_id: str) -> list[Any]:
        """The models that a job saved on its way, the newest first."""
        newest = partial(self.calls.quick.fine_tuning.jobs.checkpoints.list, job_id)
        return self.calls.send("list checkpoints", lambda: list(listed(newest, _MOST_CHECKPOINTS)))
