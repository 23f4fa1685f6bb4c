"""Whether Python code parses and passes its tests, in a process of its own with limits."""

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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Run in the child. What says that the tests were passed is kept from the code: one that
# leaves early with status 0 has passed nothing.
_CHILD = """
import json, os, resource, sys
given = json.loads(sys.stdin.buffer.read())
for name, value in given["limits"].items():
    resource.setrlimit(getattr(resource, name), (value, value))
def run(code, tests):
    scope = {"__name__": "answer"}
    exec(compile(code, "<answer>", "exec"), scope)
    exec(compile(tests, "<tests>", "exec"), scope)
run(given["code"], given["tests"])
os.write(given["passed"], given["token"].encode())
"""
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_SHOWN = 300
_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class PythonCheck:
    """A check for `checked_dataset`: the row's `answer` parses and passes the row's `tests`.

    The code runs in a process of its own, in an empty folder that is deleted, without this
    process' environment. This bounds what faulty code costs. It is no sandbox against hostile
    code: files that the user may read and the network stay within its reach; run it in a container
    where the code's author is not trusted. POSIX only.

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
            passed = _read(reader) == token.encode()
        finally:
            os.close(reader)
            os.close(writer)
        return None if passed and error is None else error or "it ended before its tests were over"

    def _child(self, given: bytes, folder: Path, writer: int) -> str | None:
        errors = folder / ".errors"
        with errors.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=out,
                cwd=folder,
                env={"PATH": os.defpath},
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


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 1024)
    except BlockingIOError:
        return b""


def _said(errors: Path, status: int) -> str:
    lines = errors.read_text(errors="replace").strip().splitlines() if errors.exists() else []
    if status < 0 or not lines:
        return f"its process ended with status {status}"
    return f"it fails its tests: {lines[-1][:_SHOWN]}"
