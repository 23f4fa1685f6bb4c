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

# Run in the child. Two audit hooks, which nothing can take away, watch the code: one refuses other
# processes, the network and files elsewhere, the other holds the token that says that the tests
# were passed. It writes it for the frame of `main` alone, once all of the code has run.
_CHILD = """
import ast, json, os, resource, subprocess, sys, sysconfig, _posixsubprocess
def refuse(*_, **__):
    raise PermissionError("PythonCheck allows no other process")
_posixsubprocess.fork_exec = subprocess._fork_exec = refuse
def guard():
    here = os.path.realpath(os.getcwd())
    python = [sys.prefix, sys.base_prefix, *sys.path, *sysconfig.get_paths().values()]
    system = ["/usr/share", "/usr/lib", "/dev/null", "/dev/urandom", "/dev/random", "/dev/zero"]
    readable = [os.path.realpath(path) for path in (here, *python, *system) if path]
    never = ("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.", "pty.",
        "socket.", "ctypes.", "gc.get_", "sys._current_", "sys.settrace", "sys.setprofile",
        "sys.addaudithook", "os.kill", "signal.pthread_kill", "syslog.", "python-check.")
    changing = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
        "os.truncate", "os.chmod", "os.chown", "os.utime", "shutil.", "tempfile.")
    reading = ("os.listdir", "os.scandir", "os.chdir", "glob.")
    modules = ("_ctypes", "_testcapi")
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    realpath, fsdecode, starts = os.path.realpath, os.fsdecode, str.startswith
    main = sys._getframe(1).f_back.f_code
    frame_of = sys._getframe
    def inside(path, roots):
        if isinstance(path, int) or path is None:
            return True
        path = realpath(fsdecode(path))
        return any(path == root or starts(path, root + "/") for root in roots)
    def hook(event, args):
        if starts(event, never) and not (
            event == "python-check.passed" and frame_of(1).f_code is main):
            raise PermissionError("PythonCheck does not allow " + event)
        if event == "import" and args[0] in modules:
            raise ImportError("PythonCheck does not allow " + args[0])
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            roots = [here] if flags & writing else readable
            good = args[0] == "/dev/null" or inside(args[0], roots)
        elif starts(event, changing) or starts(event, reading):
            roots = [here] if starts(event, changing) else readable
            good = all(inside(a, roots) for a in args if isinstance(a, (str, bytes)))
        else:
            return
        if not good:
            raise PermissionError("PythonCheck does not allow " + event + " outside of its folder")
    sys.addaudithook(hook)
def pass_on(token, writer):
    main, frame_of, write = sys._getframe(2), sys._getframe, os.write
    def hook(event, args):
        if event == "python-check.passed" and frame_of(1) is main:
            write(writer, token)
    sys.addaudithook(hook)
def prepared():
    given = json.loads(sys.stdin.buffer.read())
    for name, value in given["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    whole = ast.parse(given["code"], "<answer>")
    whole.body += ast.parse(given["tests"], "<tests>").body
    pass_on(given["token"].encode(), given["passed"])
    guard()
    return compile(whole, "<answer>", "exec")
def main():
    audit = sys.audit
    exec(prepared(), {"__name__": "answer"})
    audit("python-check.passed")
main()
"""
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_SHOWN = 300
_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class PythonCheck:
    """A check for `checked_dataset`: the row's `answer` parses and passes the row's `tests`.

    The code runs in a process of its own with limits of time and memory, an empty environment
    and an empty folder that is deleted. There it may start no other process, open no connection,
    read nothing but Python's own files and its folder, and write in its folder alone; it passes
    where all of it has run, and not by ending early. Python's audit hooks see to this: they bound
    what faulty code, and code that cheats, does in Python. They are no sandbox against an attack
    on the interpreter or through a native library that is installed: run it in a container where
    the code's author may try that. POSIX only.

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
