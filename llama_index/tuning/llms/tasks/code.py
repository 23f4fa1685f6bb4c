"""Any language that a program can check: a dataset of answers that pass, and a score by passing.

Whether Python code parses and passes its tests, in a process of its own with limits.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._checks import plain_arguments, whole_number
from llama_index.tuning.asking.results import Dropped
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.llms.tasks.knowledge import texts_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


Check = Callable[[Mapping[str, Any]], str | None]
"""A row with its `answer` → what is wrong with it, None if nothing is."""


@plain_arguments
def checked_dataset(
    rows: Iterable[Mapping[str, Any]], *, check: Check
) -> tuple[ChatDataset, list[Dropped]]:
    """Conversations of the rows whose answer passes a check, and the others with their reasons.

    Args:
        rows: each with a `prompt` and its `answer`, and whatever else the check reads.
        check: gives None if the answer is right, else says what is wrong; `PythonCheck()` is
            one. An error that it raises ends the run: it is the check's own fault.

    Raises:
        DatasetError: a row without a prompt or an answer, or no answer that passes.

    Example:
        >>> rows = [{"prompt": "2+2?", "answer": "4"}, {"prompt": "2+3?", "answer": "five"}]
        >>> dataset, dropped = checked_dataset(
        ...     rows, check=lambda row: None if row["answer"].isdigit() else "no number"
        ... )
        >>> len(dataset), dropped
        (1, [Dropped(number=1, reason='no number')])
    """
    _check_callable(check)
    items = _read(rows, "prompt", "answer")
    verdicts = [_verdict(check, row) for row in items]
    dropped = [Dropped(n, reason) for n, reason in enumerate(verdicts) if reason is not None]
    if len(dropped) == len(items):
        raise DatasetError(
            "rows: no answer passes the check:", [f"row {d.number}: {d.reason}" for d in dropped]
        )
    conversations = [
        [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        for row, reason in zip(items, verdicts, strict=True)
        if reason is None
    ]
    return ChatDataset.from_messages(conversations), dropped


@dataclass(frozen=True)
class CheckScorer:
    """Scores an LLM by checking what it answers; made by `check_scorer`."""

    rows: list[Mapping[str, Any]]
    check: Check
    workers: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, llm: LLM) -> NDArray[np.float64]:
        """One 0 or 1 for each row, shape `(len(self),)`."""
        prompts = [row["prompt"] for row in self.rows]
        return self.score(texts_of(llm, prompts, workers=self.workers, **self.settings))

    def score(self, replies: Sequence[str]) -> NDArray[np.float64]:
        """The same for replies that are there already.

        Raises:
            ValueError: not one reply for each row.
        """
        if len(replies) != len(self):
            raise ValueError(f"replies: {len(self)} are asked for, got {len(replies)}")
        right = [
            _verdict(self.check, {**row, "answer": reply}) is None
            for row, reply in zip(self.rows, replies, strict=True)
        ]
        return np.array(right, dtype=np.float64)


@plain_arguments
def check_scorer(
    rows: Iterable[Mapping[str, Any]],
    *,
    check: Check,
    workers: int = 4,
    max_tokens: int | None = None,
) -> CheckScorer:
    """The share of held-out prompts whose answer passes, item by item; for `evaluate=`.

    Args:
        rows: each with a `prompt`, and what the check reads; an `answer` in it is not looked at.
        check: as for `checked_dataset`.
        workers: requests at a time to an LLM without `chat_batch`.
        max_tokens: of a reply; None leaves it to the LLM.

    Raises:
        DatasetError: a row without a prompt, or no rows.
    """
    _check_callable(check)
    workers = whole_number("workers", workers, 1)
    settings = {}
    if max_tokens is not None:
        settings["max_tokens"] = whole_number("max_tokens", max_tokens, 1)
    return CheckScorer(_read(rows, "prompt"), check, workers, settings)


def _check_callable(check: Any) -> None:
    if not callable(check):
        raise TypeError(f"check must be a function of a row, got {check!r}")


def _verdict(check: Check, row: Mapping[str, Any]) -> str | None:
    found = check(row)
    if found is not None and not isinstance(found, str):
        raise TypeError(f"check must give None or what is wrong as a text, got {found!r}")
    return found


def _read(rows: Iterable[Any], *keys: str) -> list[Mapping[str, Any]]:
    items, faults = list(rows), []
    for number, row in enumerate(items):
        if not isinstance(row, Mapping):
            faults.append(f"row {number} must be a mapping with {', '.join(keys)}, got {row!r}")
            continue
        faults += [
            f"row {number}: {key} must be a text, got {row.get(key)!r}"
            for key in keys
            if not isinstance(row.get(key), str) or not row[key].strip()
        ]
    if faults:
        raise DatasetError("rows cannot be read:", faults)
    if not items:
        raise DatasetError("rows: there are none")
    return items


_CHILD = Path(__file__).with_name("code_child.py")
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_SHOWN = 300
_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class PythonCheck:
    """A check for `checked_dataset`: the row's `answer` parses and passes the row's `tests`.

    The code runs in a process of its own with limits of time and memory, an empty environment
    and an empty folder that is deleted. There it may start no other process, open no connection,
    read nothing but Python's own files and its folder, and write in its folder alone; it passes
    if all of it has run, and not by ending early. Python's audit hooks see to this: they bound
    what faulty code does, and code that cheats in ordinary ways. They are no sandbox: code that was
    written to get round them can, and an answer can deceive tests that share its process. Run code
    of strangers in a container or virtual machine. POSIX only.

    Args:
        time_limit: seconds, of CPU and of the clock.
        memory_mb: address space of the process.

    Raises:
        ValueError: a limit that is not positive.
        OSError: no POSIX system.

    Example:
        >>> check = PythonCheck(time_limit=10)
        >>> check({"answer": "def double(n): return 2 * n", "tests": "assert double(2) == 4"})
        >>> check({"answer": "def double(n): return n", "tests": "assert double(2) == 4"})
        'it fails its tests: AssertionError'
    """

    time_limit: float = 10.0
    memory_mb: int = 512

    def __post_init__(self) -> None:
        for name in ("time_limit", "memory_mb"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be > 0 and finite, got {value}")
        if os.name != "posix":
            raise OSError("PythonCheck needs a POSIX system: only there can a process be limited")

    def __call__(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with the row's answer; None: nothing.

        Raises:
            ValueError: the row has no tests, or they do not parse.
        """
        tests = row.get("tests")
        if not isinstance(tests, str) or not tests.strip():
            raise ValueError(f"tests must be Python code in each row, got {tests!r}")
        _parse(tests, "tests do not parse")
        code = python_of(row["answer"])
        try:
            _parse(code, "it does not parse")
        except ValueError as exc:
            return str(exc)
        return self._run(code, tests)

    def _run(self, code: str, tests: str) -> str | None:
        token = secrets.token_hex(16)
        reader, writer = os.pipe()
        limits = {
            "RLIMIT_CPU": max(1, round(self.time_limit)),
            "RLIMIT_AS": int(self.memory_mb * 2**20),
            "RLIMIT_FSIZE": _FILE_BYTES,
            "RLIMIT_CORE": 0,
        }
        given = {"code": code, "tests": tests, "token": token, "passed": writer, "limits": limits}
        try:
            with tempfile.TemporaryDirectory(prefix="python-check-") as folder:
                error = self._child(json.dumps(given).encode(), Path(folder), writer)
            os.set_blocking(reader, False)
            passed = _read_pipe(reader) == token.encode()
        finally:
            os.close(reader)
            os.close(writer)
        return None if passed and error is None else error or "it ended before its tests were over"

    def _child(self, given: bytes, folder: Path, writer: int) -> str | None:
        errors = folder / ".errors"
        with errors.open("wb") as out:
            process = subprocess.Popen(  # nosec B603 # our own program, isolated
                [sys.executable, "-I", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=out,
                cwd=folder,
                env={"PATH": os.defpath, "TMPDIR": str(folder)},
                pass_fds=(writer,),
                start_new_session=True,
            )
            try:
                process.communicate(given, timeout=self.time_limit)
            except subprocess.TimeoutExpired:
                return f"it took longer than {self.time_limit:g} s"
            finally:
                _kill_group(process)
        if process.returncode == 0:
            return None
        if process.returncode == -signal.SIGXCPU:
            return f"it took longer than {self.time_limit:g} s"
        return _said(errors, process.returncode)


def python_of(answer: str) -> str:
    """The code of an answer: what stands in its fences, else all of it.

    Example:
        >>> python_of("Here it is:\\n```python\\nx = 1\\n```")
        'x = 1\\n'
    """
    fenced = _FENCED.findall(answer)
    return "\n".join(fenced) if fenced else answer


def _parse(code: str, what: str) -> None:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise ValueError(f"{what}: {exc}") from None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The process and those it started; it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_pipe(reader: int) -> bytes:
    try:
        return os.read(reader, 1024)
    except BlockingIOError:
        return b""


def _said(errors: Path, status: int) -> str:
    lines = errors.read_text(errors="replace").strip().splitlines() if errors.exists() else []
    if status < 0 or not lines:
        return f"its process ended with status {status}"
    return f"it fails its tests: {lines[-1][:_SHOWN]}"
