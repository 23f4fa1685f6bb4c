"""SIGKILL a recording process again and again: every file loads, nothing written is gone.

    python benchmarks/recorder_kill.py [--kills 20]

A child process with four threads sends requests and tells its parent through a pipe of each one
that has returned (with `flush_every=1` its records are then with the operating system). The parent
kills it after a random time. All children share one path; segments rotate at 256 kB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from llama_index.core.llms import MockLLM

from llama_index.tuning.collect import FinetuningRecorder, Traffic
from llama_index.tuning.collect.log import segments


def child(path: Path, life: int, pipe: int) -> None:
    """Record until killed; each request is a line on the pipe once it has returned."""
    llm = MockLLM(max_tokens=3)
    FinetuningRecorder(path, max_bytes=256 * 1024).attach()

    def work(thread: int) -> None:
        n = 0
        while True:
            name = f"life-{life}-{thread}-{n}"
            llm.complete(f"{name} " + "What is the fee? " * random.randrange(1, 600))
            os.write(pipe, f"{name}\n".encode())
            n += 1

    for thread in range(4):
        threading.Thread(target=work, args=(thread,)).start()


def one_life(path: Path, life: int) -> list[str]:
    """Start a child, kill it within two seconds, and return the requests that had returned."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        child(path, life, write)
        time.sleep(60)
        os._exit(1)
    os.close(write)
    deadline = time.monotonic() + random.uniform(0.05, 2)
    said = bytearray()
    os.set_blocking(read, False)
    while time.monotonic() < deadline:
        try:
            said += os.read(read, 1 << 20)
        except BlockingIOError:
            time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.set_blocking(read, True)
    while chunk := os.read(read, 1 << 20):
        said += chunk
    os.close(read)
    return said.decode().split("\n")[:-1]


def main() -> None:
    """Kill, load, compare; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    acknowledged: list[str] = []
    loads = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traffic.jsonl"
        for life in range(given.kills):
            acknowledged += one_life(path, life)
            traffic = Traffic.load(path) if segments(path) else Traffic()
            loads += 1
        found = Counter(
            record.data["messages"][0]["content"].split(" ")[0] for record in traffic.records
        )
        result = {
            "kills": given.kills,
            "loads": loads,
            "segments": len(segments(path)),
            "acknowledged": len(acknowledged),
            "recorded": sum(found.values()),
            "missing": sum(name not in found for name in acknowledged),
            "twice": sum(n > 1 for n in found.values()),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
