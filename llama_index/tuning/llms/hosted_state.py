"""The state file of hosted jobs: which file and which job belong to which data and options.

It holds ids, hashes and statuses, no key and no data, and is replaced as a whole.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from llama_index.tuning.datasets._files import PathLike, write_text_atomic
from llama_index.tuning.errors import RunFileError

logger = logging.getLogger(__name__)

FORMAT = 1
_KIND = "llama-index-tuning hosted jobs"


class JobState:
    """What is known of one server's files and jobs.

    Args:
        path: the file; None: nothing is kept.
        address: the server's.

    Raises:
        RunFileError: the file is damaged, or is none of these.
    """

    def __init__(self, path: PathLike | None, address: str) -> None:
        self.path = None if path is None else Path(path)
        self.address = address
        self._all = self._read()
        self._ours = self._all["servers"].setdefault(address, {"files": {}, "runs": {}})

    def file_id(self, sha256: str) -> str | None:
        """The id of a file that was uploaded."""
        found = self._ours["files"].get(sha256)
        return found if isinstance(found, str) else None

    def keep_file(self, sha256: str, file_id: str | None) -> None:
        """Note an upload, or forget one (None)."""
        if file_id is None:
            self._ours["files"].pop(sha256, None)
        else:
            self._ours["files"][sha256] = file_id
        self.save()

    def run(self, key: str) -> dict[str, Any]:
        """What is known of a run: `job_id`, `status`, `fine_tuned_model`, `creating`."""
        return dict(self._ours["runs"].get(key, {}))

    def keep_run(self, key: str, **fields: Any) -> None:
        """Note some of a run's fields."""
        before = self.run(key)
        self._ours["runs"][key] = {**before, **fields}
        if self._ours["runs"][key] != before:
            self.save()

    def save(self) -> None:
        """Write the file.

        Raises:
            OSError: the folder cannot be written, the disk is full.
        """
        if self.path is not None:
            write_text_atomic(self.path, json.dumps(self._all, indent=2))

    def _read(self) -> dict[str, Any]:
        if self.path is not None and self.path.is_dir():
            raise RunFileError(f"state_path: {self.path} is a folder; name a file in it")
        if self.path is None or not self.path.exists():
            return {"kind": _KIND, "format": FORMAT, "servers": {}}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["kind"] != _KIND:
                raise RunFileError(f"{self.path} is no state file of hosted jobs; choose another")
            version = found["format"]
            for server in found["servers"].values():
                if not isinstance(server["files"], dict) or not isinstance(server["runs"], dict):
                    raise TypeError("files and runs must be objects")
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            if isinstance(exc, RunFileError):
                raise
            raise RunFileError(
                f"{self.path} is damaged, or no state file of hosted jobs ({exc}); move it away: "
                "uploads and jobs are then looked for at the server"
            ) from exc
        if version != FORMAT:
            raise RunFileError(f"{self.path} has format {version!r}; this version reads {FORMAT}")
        state: dict[str, Any] = found
        return state
