"""The process of `PythonCheck`: an answer and its tests, held to one folder.

Two guards, after the limits on time, memory and file sizes. Audit hooks refuse other processes,
the network and files elsewhere, and say so; Python code that studies them can get round them. On
Linux the kernel refuses the same, and no code of the process can take that back.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import struct
import subprocess
import sys
import sysconfig
from types import CodeType
from typing import Any

_SYSTEM = ("/usr/share", "/usr/lib", "/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")


def places() -> tuple[str, list[str]]:
    """This folder, and all that may be read: it, Python's own files, the system's libraries."""
    here = os.path.realpath(os.getcwd())
    python = [sys.prefix, sys.base_prefix, *sys.path, *sysconfig.get_paths().values()]
    return here, [os.path.realpath(path) for path in (here, *python, *_SYSTEM) if path]


# ------------------------------------------------------------------ the kernel

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine → its place in the pairs below, and what seccomp calls it."""
# Numbers of system calls, on x86_64 and on aarch64.
_CLONE, _CLONE3, _THREAD = (56, 220), (435, 435), 0x10000
_OF_ITSELF_ALONE = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
}
_NEVER = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),  # it would do what is refused here
    "shmget": (29, 194),  # what outlives the process
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "reboot": (169, 142),
}
_ALLOW, _REFUSE, _ABSENT = 0x7FFF0000, 0x00050001, 0x00050026  # EPERM, ENOSYS


def _no_processes(ctypes: Any, libc: Any) -> None:
    """No other process, no network, no signal to others: seccomp, for all threads to come."""
    if platform.machine() not in _ARCHITECTURES:
        return
    column, architecture = _ARCHITECTURES[platform.machine()]
    load, equal, at_least, has_bits, end = 0x20, 0x15, 0x35, 0x45, 0x06

    def step(code: int, value: int, then: int = 0, other: int = 0) -> bytes:
        return struct.pack("HBBI", code, then, other, value)

    refuse = [step(end, _REFUSE)]
    program = [step(load, 4), step(equal, architecture, 1), *refuse, step(load, 0)]
    program += [step(at_least, 0x40000000, 0, 1), *refuse]  # the same calls by other numbers
    # The C library starts threads by clone where clone3 is absent, and clone shows its flags.
    program += [step(equal, _CLONE3[column], 0, 1), step(end, _ABSENT)]
    program += [step(equal, _CLONE[column], 0, 4), step(load, 16)]
    program += [step(has_bits, _THREAD, 0, 1), step(end, _ALLOW), *refuse]
    for pair in _NEVER.values():
        if (call := pair[column]) is not None:
            program += [step(equal, call, 0, 1), *refuse]
    for pair in _OF_ITSELF_ALONE.values():
        program += [step(equal, pair[column], 0, 5), step(load, 16)]
        program += [step(equal, os.getpid(), 1), step(equal, 0, 0, 1), step(end, _ALLOW), *refuse]
    code = b"".join([*program, step(end, _ALLOW)])
    kept = ctypes.create_string_buffer(code, len(code))
    libc.prctl(22, 2, struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(kept)), 0, 0)


def _no_files(ctypes: Any, libc: Any, here: str, readable: list[str]) -> None:
    """Files of these places alone are read, of one are written: Landlock."""
    create, add, restrict = 444, 445, 446
    version = libc.syscall(create, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return  # a kernel without it
    # Thirteen rights, and as the versions went: moving, cutting, devices.
    every = (1 << (13 + (version > 1) + (version > 2) + (version > 4))) - 1
    run, write, read, entries = 1, 2, 4, 8
    of_files = (run | write | read | 1 << 14 | 1 << 15) & every
    rules = libc.syscall(create, struct.pack("Q", every), ctypes.c_size_t(8), 0)
    for path in dict.fromkeys(readable):
        rights = every if path == here else run | read | entries
        rights |= write if path == "/dev/null" else 0
        try:
            place = os.open(path, os.O_PATH)
        except OSError:
            continue  # one of Python's that is not there
        rights &= every if os.path.isdir(path) else of_files
        libc.syscall(add, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    libc.syscall(restrict, rules, 0)
    os.close(rules)


def guard_by_kernel() -> None:
    """Refuse what the kernel can refuse; nothing where it is not Linux."""
    if sys.platform != "linux":
        return
    import ctypes

    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges: both want it
    _no_files(ctypes, libc, *places())
    _no_processes(ctypes, libc)
    for name in [name for name in sys.modules if name.split(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]  # so that an import of it is seen, and refused


# ------------------------------------------------------------------- the hooks

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


def guard_by_hook() -> None:
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
    """The code to run, with every guard up."""
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
    guard_by_kernel()
    pass_on(given["token"].encode(), given["passed"])
    guard_by_hook()
    return compile(whole, "<answer>", "exec")


def main() -> None:
    """Run the answer and its tests; only if all has run is it said that they passed."""
    audit = sys.audit
    exec(prepared(), {"__name__": "answer"})  # nosec B102
    audit("python-check.passed")


if __name__ == "__main__":
    main()
