"""The process of `PythonCheck`: an answer and its tests, held to one folder.

After the limits on time, memory and file sizes, audit hooks refuse other processes, the network and
files elsewhere. That bounds faulty code; code that studies the hooks can get round them.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import sysconfig
from types import CodeType
from typing import Any

_SYSTEM = ("/usr/share", "/usr/lib", "/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
_EVENTS = (
    "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.", "pty.",
    "socket.", "ctypes.", "gc.get_", "sys._current_", "sys.settrace", "sys.setprofile",
    "sys.addaudithook", "sys.monitoring.", "os.kill", "signal.pthread_kill", "syslog.",
    "python-check.",
)  # fmt: skip
_CHANGING = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "shutil.", "tempfile.",
)  # fmt: skip
_READING = ("os.listdir", "os.scandir", "os.chdir", "glob.")
_MODULES = (
    "_ctypes", "_posixsubprocess", "_testcapi", "_testinternalcapi", "_testlimitedcapi",
    "_xxsubinterpreters", "_xxinterpchannels", "_interpreters", "_interpchannels",
    "_interpqueues",
)  # fmt: skip


def places() -> tuple[str, list[str]]:
    """This folder, and all that may be read: it, Python's own files, the system's libraries."""
    here = os.path.realpath(os.getcwd())
    python = [sys.prefix, sys.base_prefix, *sys.path, *sysconfig.get_paths().values()]
    return here, [os.path.realpath(path) for path in (here, *python, *_SYSTEM) if path]


def guard() -> None:
    """Refuse other processes, the network and files elsewhere, each by its name."""
    here, readable = places()
    never, changing, reading, modules = _EVENTS, _CHANGING, _READING, _MODULES
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    realpath, fsdecode, starts = os.path.realpath, os.fsdecode, str.startswith
    frame_of = sys._getframe
    main = frame_of(1).f_back.f_code  # type: ignore[union-attr] # main called prepared

    def inside(path: Any, roots: list[str]) -> bool:
        if isinstance(path, int) or path is None:
            return True
        path = realpath(fsdecode(path))
        return any(path == root or starts(path, root + "/") for root in roots)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if starts(event, never) and not (
            event == "python-check.passed" and frame_of(1).f_code is main
        ):
            raise PermissionError("PythonCheck does not allow " + event)
        if event == "import" and args[0].rpartition(".")[2] in modules:
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


def pass_on(token: bytes, writer: int) -> None:
    """Write the token once `main` says that all has run: it alone, and its frame alone."""
    main, frame_of, write = sys._getframe(2), sys._getframe, os.write

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "python-check.passed" and frame_of(1) is main:
            write(writer, token)

    sys.addaudithook(hook)


def _refuse(*_: Any, **__: Any) -> Any:
    raise PermissionError("PythonCheck allows no other process")


def prepared() -> CodeType:
    """The code to run, with the guard up."""
    import _posixsubprocess
    import resource

    given = json.loads(sys.stdin.buffer.read())
    for name, value in given["limits"].items():
        # At the hard limit of CPU time the system kills without saying that time was up.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        resource.setrlimit(getattr(resource, name), (value, hard))
    whole = ast.parse(given["code"], "<answer>")
    whole.body += ast.parse(given["tests"], "<tests>").body
    vars(_posixsubprocess)["fork_exec"] = vars(subprocess)["_fork_exec"] = _refuse
    pass_on(given["token"].encode(), given["passed"])
    guard()
    return compile(whole, "<answer>", "exec")


def main() -> None:
    """Run the answer and its tests; only if all has run is it said that they passed."""
    audit = sys.audit
    exec(prepared(), {"__name__": "answer"})  # nosec B102 # what it is for
    audit("python-check.passed")


if __name__ == "__main__":
    main()
