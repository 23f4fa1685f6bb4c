"""How a job on a folder runs: where, on how many workers, in which shards."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from llama_index.tuning._checks import check_counts, number, plain_fields, positive

Backend = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """How a job on a folder runs: `options=` of every function of `llama_index.tuning.scale`.

    Example:
        >>> ScaleOptions(workers=8, requests_per_minute=600).cpus_per_worker
        1.0
    """

    address: str | None = None
    """Ray's cluster, as `ray.init` takes it; by default the one that is there, else a local one."""
    workers: int | None = None
    """Processes on Ray; by default as many as the cluster's CPUs allow."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for a worker; Ray limits its threads to as many."""
    gpus_per_worker: float = 0.0
    """GPUs that Ray reserves for a worker."""
    rows_per_shard: int | None = None
    """Rows that are read, worked on and written together: what a killed worker loses. By default
    4096, and 256 for what an LLM is asked. (Lines of JSON are cut by their mean length.)"""
    requests_per_minute: float | None = None
    """To an LLM or an embedding API, by all workers together."""
    retry_failed: bool = False
    """Do the shards again that hold failed items; calls that were answered are not repeated."""
    show_progress: bool = False
    """Show a bar."""

    def __post_init__(self) -> None:
        plain_fields(self)
        for name in ("workers", "rows_per_shard"):
            if getattr(self, name) is not None:
                check_counts(**{name: getattr(self, name)})
        positive("cpus_per_worker", self.cpus_per_worker)
        number("gpus_per_worker", self.gpus_per_worker, 0)
        if self.requests_per_minute is not None:
            positive("requests_per_minute", self.requests_per_minute)
            if importlib.util.find_spec("llama_index.core.rate_limiter") is None:
                raise ValueError("requests_per_minute needs a newer llama-index-core")


def check_backend(backend: object) -> None:
    """`"local"` or `"ray"`.

    Raises:
        ValueError: it is something else.
    """
    if backend not in ("local", "ray"):
        raise ValueError(f"unknown backend {backend!r}; choose one of: local, ray")
