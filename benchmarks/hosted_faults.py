"""Hosted tuning against a server that fails: what is lost, made twice, or reported wrongly.

A local server of files and jobs answers a third of all requests with 429, 500, 503, a proxy's
page, a connection that breaks before the request is served, or after. The same faults for three
ways: `OpenAIFinetuneEngine`, started again after an error; the openai client with its default
retries, started again from the upload; and the client once, without another start.

    python benchmarks/hosted_faults.py [--runs 100]
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llama_index.tuning.errors import JobError  # noqa: E402
from tests.jobs_server import JobsServer  # noqa: E402
from tests.llms.hosted_parts import MODEL, chats, engine_on, train_file  # noqa: E402

ENDINGS = ("succeeded", "failed", "cancelled")
ENDED = {*ENDINGS}
STARTS = 20


def main() -> None:
    """Run all ways on the same seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    logging.disable(logging.ERROR)
    ways: dict[str, tuple[Callable[..., str], int]] = {
        "engine, started again": (engine_ending, STARTS),
        "client, started again": (client_ending, STARTS),
        "client, once": (client_ending, 1),
    }
    print(
        f"{'':<24}{'right ending':>14}{'no ending':>11}{'two jobs+':>11}{'uploads':>9}{'jobs':>6}"
    )
    for name, (way, starts) in ways.items():
        found: Counter[str] = Counter()
        for seed in range(runs):
            found.update(one_run(way, starts, seed))
        print(
            f"{name:<24}{found['right']:>14}{found['none']:>11}{found['doubled']:>11}"
            f"{found['uploads']:>9}{found['jobs']:>6}"
        )


def one_run(way: Callable[..., str], starts: int, seed: int) -> dict[str, int]:
    """One run until it ends, or until it was started often enough."""
    wanted = ENDINGS[seed % len(ENDINGS)]
    error = {"code": "moderation", "message": "unsafe", "param": None}
    with tempfile.TemporaryDirectory() as folder:
        data = train_file(Path(folder)) if seed % 2 else chats()
        with JobsServer(share=0.33, seed=seed, ending=wanted, error=error, file_looks=1) as server:
            ending = None
            for _ in range(starts):
                try:
                    ending = way(server, data)
                    break
                except Exception:  # the process would have died of it
                    continue
    return {
        "right": int(ending == wanted), "none": int(ending is None),
        "doubled": int(len(server.jobs) > 1), "uploads": len(server.files),
        "jobs": len(server.jobs),
    }  # fmt: skip


def engine_ending(server: JobsServer, data: Any) -> str:
    """Ours."""
    try:
        return str(engine_on(server, data).finetune().data["status"])
    except JobError as exc:
        return exc.state


def client_ending(server: JobsServer, data: Any) -> str:
    """As most scripts do it: upload, wait for the file, create, poll."""
    client = server.client(timeout=5.0)
    client._calculate_retry_timeout = lambda *_: 0.001  # type: ignore[method-assign]
    file = client.files.create(file=("train.jsonl", b"{}"), purpose="fine-tune")
    while client.files.retrieve(file.id).status != "processed":
        time.sleep(0.001)
    job = client.fine_tuning.jobs.create(training_file=file.id, model=MODEL)
    while (status := client.fine_tuning.jobs.retrieve(job.id).status) not in ENDED:
        time.sleep(0.001)
    return status


if __name__ == "__main__":
    main()
