"""Two raylets on this machine as a cluster, and the CPU seconds of all processes of a job."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

_EVERY = 0.25  # seconds; what a process used since is lost when it ends


@contextmanager
def two_raylets() -> Iterator[None]:
    """Connected to a cluster of two raylets, each with one CPU and a tenth of the usual store."""
    import ray
    from ray.cluster_utils import Cluster

    here = str(Path(__file__).resolve().parent)  # where workers find what benchmarks share
    paths = [here, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


class Seen(NamedTuple):
    """What was there at one moment: parts, and CPU seconds of three kinds of processes.

    `own` are those of this process, `workers` those of processes that work on shards, `rays` those
    of Ray's own: they run whether or not there is work, on each node.
    """

    time: float
    parts: int
    own: float
    workers: float
    rays: float

    def since(self, before: Seen) -> dict[str, float]:
        """What was used in between."""
        return {name: getattr(self, name) - getattr(before, name) for name in KINDS}


KINDS = ("own", "workers", "rays")


class Watch:
    """Notes parts and CPU seconds of this process and all below it, until `stop`.

    `first` is the moment in which the first part was seen: before it Ray starts, and workers
    load their model.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._used: dict[tuple[int, float], tuple[str, float]] = {}
        self._stopped = threading.Event()
        self.seen: list[Seen] = []
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look once more; the job is over."""
        self._stopped.set()
        self._thread.join()
        self._look()

    @property
    def first(self) -> Seen:
        """When there was a part."""
        return next(seen for seen in self.seen if seen.parts)

    @property
    def last(self) -> Seen:
        """When all parts were there."""
        return next(seen for seen in self.seen if seen.parts == self.seen[-1].parts)

    def begun(self) -> Seen:
        """What was used before the job."""
        return self.seen[0]

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                used = process.cpu_times()
                title = " ".join(process.cmdline())
                key = (process.pid, process.create_time())
            except psutil.Error:  # it ended just now
                continue
            kind = "own" if process == me else "workers" if "MapWorker" in title else "rays"
            self._used[key] = (kind, used.user + used.system)
        sums = {kind: sum(cpu for k, cpu in self._used.values() if k == kind) for kind in KINDS}
        parts = len(list(self.output.glob("part-*"))) if self.output.exists() else 0
        self.seen.append(Seen(time.monotonic(), parts, **sums))
