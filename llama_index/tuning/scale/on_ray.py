"""The one module that knows Ray: shards to actors by Ray Data, and a rate limit for all of them.

Ray Data has the places of shards, not their rows: a worker reads, computes and writes its shard,
so neither the driver nor Ray's object store ever holds the corpus. Ray restarts a worker that
died, and gives its shard to it again.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from llama_index.tuning.errors import GenerationError, MissingExtraError
from llama_index.tuning.scale.job import Counts, Job
from llama_index.tuning.scale.options import ScaleOptions
from llama_index.tuning.scale.shards import Shard

_DEATHS = 20
"""How often one shard may take its worker with it; then the job ends."""
_LEVELS = {"ray.data": logging.WARNING, "ray.data._internal.progress": logging.ERROR}
"""The second one warns that there are no bars."""
_PLACES = ("number", "path", "start", "stop")


def run_on_ray(job: Job, shards: Sequence[Shard], options: ScaleOptions) -> Iterator[Counts]:
    """Do the shards on Ray's cluster; counts come as shards are done, in no order.

    Raises:
        MissingExtraError: Ray is not installed.
        TypeError: a component cannot be pickled.
    """
    ray = _ray()
    _check_sendable(ray, job)
    with _cluster(ray, options), _quiet(ray):
        if options.requests_per_minute is not None:
            limit = ray.remote(num_cpus=0)(_Limit).remote(options.requests_per_minute)
            job = replace(job, limiter=_shared_limiter(limit))
        places = [asdict(shard) for shard in shards]
        done = ray.data.from_items(places, override_num_blocks=len(places)).map_batches(
            _Actor,
            fn_constructor_kwargs={"job": job},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=_workers(ray, options, len(shards))),
            num_cpus=options.cpus_per_worker,
            num_gpus=options.gpus_per_worker or None,
        )
        try:
            for row in done.iter_rows():
                if error := row.pop("error"):
                    raise pickle.loads(bytes.fromhex(error))  # nosec B301 # a worker of this run
                yield Counts(**{name: int(value) for name, value in row.items()})
        except ray.exceptions.ActorDiedError as exc:
            raise GenerationError(f"a worker could not start, or died for good: {exc}") from exc


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, job: Job) -> None:
        self.worker = job.start()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number, path, start, stop = (batch[name][0] for name in _PLACES)
        shard = Shard(int(number), str(path), int(start), int(stop))
        counts, error = Counts(0, 0, 0), ""
        try:
            counts = self._counts(shard)
        except Exception as exc:  # for the driver to raise: Ray Data would hand over its text alone
            error = _pickled(exc)
        return {name: [value] for name, value in {**asdict(counts), "error": error}.items()}

    def _counts(self, shard: Shard) -> Counts:
        if self.worker.job.output.begin_shard(shard.number) > _DEATHS:  # Ray would never give up
            raise GenerationError(
                f"shard {shard.number} ({shard.path}, {shard.start} to {shard.stop}) was begun "
                f"{_DEATHS} times and took its worker with it each time"
            )
        return self.worker(shard)


class _Limit:
    """LlamaIndex's limiter, in an actor of its own."""

    def __init__(self, requests_per_minute: float) -> None:
        from llama_index.core.rate_limiter import TokenBucketRateLimiter

        self.limiter = TokenBucketRateLimiter(requests_per_minute=requests_per_minute)

    async def wait(self, num_tokens: int) -> None:
        await self.limiter.async_acquire(num_tokens)


def _shared_limiter(actor: Any) -> Any:
    """A rate limit that all workers share: each request waits for the actor's leave."""
    from llama_index.core.rate_limiter import BaseRateLimiter  # not in the oldest core allowed

    class SharedLimiter(BaseRateLimiter):
        def acquire(self, num_tokens: int = 0) -> None:
            _ray().get(actor.wait.remote(num_tokens))

        async def async_acquire(self, num_tokens: int = 0) -> None:
            await actor.wait.remote(num_tokens)

    return SharedLimiter()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as exc:
        raise MissingExtraError("backend='ray'", "ray[data]", "ray") from exc
    return ray


def _check_sendable(ray: Any, job: Job) -> None:
    try:
        ray.cloudpickle.dumps(job.work)
    except (TypeError, AttributeError, pickle.PicklingError) as exc:
        raise TypeError(
            f"the component cannot be sent to workers: {exc}; give functools.partial(Class, …), "
            "which builds it in each of them"
        ) from exc


@contextmanager
def _cluster(ray: Any, options: ScaleOptions) -> Iterator[None]:
    """Connected to a cluster: the caller's, or one that ends with the job."""
    if ray.is_initialized():
        yield
        return
    ray.init(address=options.address, logging_level=logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Without Ray Data's own bars and plans; the caller's settings come back."""
    context = ray.data.DataContext.get_current()
    bars, said = context.enable_progress_bars, context.print_on_execution_start
    levels = {name: logging.getLogger(name).level for name in _LEVELS}
    context.enable_progress_bars = context.print_on_execution_start = False
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = bars, said
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _workers(ray: Any, options: ScaleOptions, shards: int) -> int:
    if options.workers is not None:
        return min(options.workers, shards)
    there = ray.cluster_resources()
    fit = there.get("CPU", 1.0) / options.cpus_per_worker
    if options.gpus_per_worker:
        fit = min(fit, there.get("GPU", 0.0) / options.gpus_per_worker)
    return max(1, min(int(fit), shards))


def _pickled(error: Exception) -> str:
    try:
        found = pickle.dumps(error)
        pickle.loads(found)  # nosec B301 # written one line above
    except Exception:  # an error may hold whatever its library likes
        found = pickle.dumps(GenerationError(f"{type(error).__name__}: {error}"))
    return found.hex()
