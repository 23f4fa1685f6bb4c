"""One upload for one file, whatever gets lost on the way.

Nothing is sent again before a look at the server's own list, where a file is found by its name,
which holds its hash.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from llama_index.tuning.errors import HostedError
from llama_index.tuning.llms.hosted_calls import MOST_LISTED, Calls, checked, listed
from llama_index.tuning.llms.hosted_file import TrainingFile
from llama_index.tuning.llms.hosted_state import JobState

logger = logging.getLogger(__name__)

_BROKEN = ("error", "failed", "deleted", "cancelled")
_READY = ("processed", "succeeded")
_PAUSE = 2.0
"""Seconds between two looks at a file that is not ready."""


@dataclass
class Uploader:
    """Brings a run's files to the server.

    Args:
        calls: sends the requests.
        state: what is known from before.
        timeout: seconds to wait for a file to be ready.
    """

    calls: Calls
    state: JobState
    timeout: float

    def file_id(self, file: TrainingFile) -> str:
        """The file's id at the server, once it is ready: uploaded before, or now."""
        found = self._uploaded(file)
        if found is None:
            found = self._upload(file)
            logger.info("uploaded %s as %s", file.name, found.id)
        self.state.keep_file(file.sha256, found.id)
        self._wait(found)
        return str(found.id)

    def _uploaded(self, file: TrainingFile) -> Any | None:
        file_id = self.state.file_id(file.sha256)
        if file_id is None:
            return self._listed_file(file)
        files = self.calls.quick.files
        try:
            found = self.calls.send(
                f"look at file {file_id}", lambda: checked(files.retrieve(file_id), "id")
            )
        except HostedError as exc:
            if exc.status != 404:
                raise
            return None  # deleted there
        return None if _status(found) in _BROKEN else found

    def _upload(self, file: TrainingFile) -> Any:
        files = self.calls.client.files
        sent = False

        def upload() -> Any:
            nonlocal sent
            found = self._listed_file(file, single=True) if sent else None
            if found is None:
                sent = True
                body = (file.name, file.content, "application/jsonl")
                found = checked(files.create(file=body, purpose="fine-tune"), "id")
            return found

        return self.calls.send(f"upload {file.name}", upload)

    def _listed_file(self, file: TrainingFile, *, single: bool = False) -> Any | None:
        """The same file among those at the server; None too where it cannot list them."""
        files = self.calls.quick.files

        def look() -> Any | None:
            for found in listed(lambda: files.list(purpose="fine-tune"), MOST_LISTED):
                same = found.filename == file.name and _status(found) not in _BROKEN
                if same and found.bytes in (None, len(file.content)):
                    return checked(found, "id")
            return None

        return self.calls.listing("list files", look, single=single)

    def _wait(self, file: Any) -> None:
        """Until it is ready; a server that never says so is asked for the job all the same."""
        clock = self.calls.clock
        deadline = clock.now() + self.timeout
        files = self.calls.quick.files
        while _status(file) not in (None, *_READY):
            if _status(file) in _BROKEN:
                said = self.calls.clean(str(file.status_details or "no reason given"))
                raise HostedError(f"{self.calls.address} refused file {file.id}: {said}")
            if clock.now() >= deadline:
                logger.warning(
                    "file %s is still %r after %s seconds; asking for the job all the same",
                    file.id, file.status, self.timeout,
                )  # fmt: skip
                return
            clock.sleep(_PAUSE)
            file = self.calls.send(
                f"look at file {file.id}",
                lambda id_=file.id: checked(files.retrieve(id_), "id"),  # type: ignore[misc]
            )


def _status(file: Any) -> str | None:
    status = getattr(file, "status", None)
    return status.lower() if isinstance(status, str) else None
