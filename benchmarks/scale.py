"""Folders of many rows: time, CPU seconds and the driver's memory, here and on Ray.

Each line comes from a process of its own, with a cheap embedding (hashed words) or MiniLM. CPU
seconds are those of all processes of the job, Ray's among them, and hold on a busy machine too.

    python benchmarks/scale.py --items 10000 100000 1000000 --backend local ray
    python benchmarks/scale.py --overhead
    python benchmarks/scale.py --mining 200000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
from _cluster import Watch, two_raylets
from _hashed import HashedWords

FILE = 100_000  # rows
WORDS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[], help="passages to embed")
    parser.add_argument("--backend", nargs="+", default=["local"])
    parser.add_argument("--workers", type=int, default=1, help="on Ray")
    parser.add_argument("--rows", type=int, default=4096, help="of a shard")
    parser.add_argument("--dim", type=int, default=64, help="of the hashed words")
    parser.add_argument("--overhead", action="store_true", help="Ray's, over MiniLM's embedding")
    parser.add_argument("--texts", type=int, default=3072, help="for --overhead")
    parser.add_argument("--mining", type=int, help="queries to mine negatives for, on Ray")
    parser.add_argument("--kills", type=int, default=5, help="for --mining")
    args = parser.parse_args()
    for size in args.items:
        with tempfile.TemporaryDirectory() as folder:
            call(write_corpus, Path(folder), size)
            for backend in args.backend:
                call(embed, Path(folder), size, backend, args.workers, args.rows, args.dim)
    if args.overhead:
        with tempfile.TemporaryDirectory() as folder:
            call(write_corpus, Path(folder), args.texts)
            for backend, workers in (("local", 1), ("ray", 1), ("local", 1), ("ray", 2)):
                call(embed, Path(folder), args.texts, backend, workers, 256, None)
    if args.mining:
        with tempfile.TemporaryDirectory() as folder:
            call(mine, Path(folder), args.mining, args.kills, args.dim)


def call(function, *given: object):
    process = multiprocessing.get_context("spawn").Process(target=function, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__}{given}: exit code {process.exitcode}")


def write_corpus(folder: Path, size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(20_000)])
    (folder / "corpus").mkdir()
    for start in range(0, size, FILE):
        ids = [f"d{i}" for i in range(start, min(size, start + FILE))]
        drawn = words[rng.zipf(1.3, (len(ids), WORDS)) % len(words)]
        table = pa.table({"id": ids, "text": [" ".join(row) for row in drawn]})
        path = folder / "corpus" / f"{start // FILE:04d}.parquet"
        pq.write_table(table, path, row_group_size=20_000)


def embed(folder: Path, size: int, backend: str, workers: int, rows: int, dim: int | None) -> None:
    """Embed a corpus, by hashed words of that size or, if it is `None`, by MiniLM."""
    from llama_index.tuning.demo import minilm
    from llama_index.tuning.scale import ScaleOptions, embed_corpus, vectors_to_array

    model = HashedWords(embed_batch_size=512, dim=dim) if dim else minilm()
    model.get_text_embedding_batch(["warm up"] * 8)
    out = Path(tempfile.mkdtemp(dir=folder)) / f"{backend}-{workers}"
    options = ScaleOptions(workers=workers, rows_per_shard=rows)
    before, started = peak(), time.monotonic()
    with two_raylets() if backend == "ray" else nullcontext():
        cluster = time.monotonic() - started
        watch = Watch(out)
        report = embed_corpus(folder / "corpus", out, model, backend=backend, options=options)
        watch.stop()
    after = peak()
    first, last = watch.first, watch.last
    between, seconds = max(1, last.parts - first.parts), last.time - first.time
    used, start = last.since(first), first.since(watch.begun())
    found = {
        "items": size,
        "backend": backend,
        "workers": workers,
        "rows_per_shard": rows,
        "embedding": f"hashed words, {dim} numbers" if dim else "MiniLM",
        "written": report.written,
        "failed": report.failed,
        "seconds": round(report.seconds, 1),
        "cpu_seconds": round(sum(watch.seen[-1].since(watch.begun()).values()), 1),
        "once_it_runs": {
            "ms_of_a_row": round(1000 * seconds / between / min(rows, size), 4),
            "cpu_ms_of_a_row": round(
                1000 * (used["own"] + used["workers"]) / between / min(rows, size), 4
            ),
            "of_which_the_driver": round(1000 * used["own"] / between / min(rows, size), 4),
            "rays_own_cpus": round(used["rays"] / seconds, 3) if seconds else None,
        },
        "until_the_first_part": {
            "seconds": round(first.time - watch.begun().time, 1),
            **{f"cpu_seconds_{name}": round(value, 1) for name, value in start.items()},
        },
        "seconds_of_the_clusters_start": round(cluster, 1),
        "driver_mb": round(after),
        "driver_mb_more": round(after - before),
    }
    if dim:
        began = time.process_time()
        vectors_to_array(out, out.parent / "vectors.npy")
        found["array_cpu_seconds"] = round(time.process_time() - began, 1)
        found["driver_mb_after_array"] = round(peak())
    print(json.dumps({**found, "load": round(os.getloadavg()[0], 1)}), flush=True)


def mine(folder: Path, size: int, kills: int, dim: int) -> None:
    """Negatives of `size` queries over a tenth as many documents, on two workers that die.

    Each query is a document's vector with noise; that document is the relevant one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from llama_index.tuning.scale import ScaleOptions, mine_hard_negatives

    rng = np.random.default_rng(1)
    documents = rng.standard_normal((size // 10, dim)).astype(np.float32)
    np.save(folder / "d.npy", documents)
    names = [f"d{i}" for i in range(len(documents))]
    pq.write_table(pa.table({"id": names}), folder / "d.npy.ids.parquet")
    rows = rng.integers(len(documents), size=size)
    noisy = documents[rows] + 0.3 * rng.standard_normal((size, dim)).astype(np.float32)
    queries = {
        "id": [f"q{i}" for i in range(size)],
        "vector": list(noisy.astype(np.float32)),
        "relevant": [[names[row]] for row in rows],
    }
    pq.write_table(pa.table(queries), folder / "queries.parquet", row_group_size=20_000)
    out, killed = folder / "negatives", []
    with two_raylets():
        over = threading.Event()
        killer = threading.Thread(target=kill_workers, args=(out, kills, killed, over))
        killer.start()
        report = mine_hard_negatives(
            folder / "queries.parquet",
            out,
            folder / "d.npy",
            backend="ray",
            options=ScaleOptions(workers=2),
        )
        over.set()
        killer.join()
    found = pq.read_table(out)
    ids = found.column("id").to_pylist()
    line = {
        "queries": size,
        "documents": len(documents),
        "workers_killed": len(killed),
        "shards_done_at_each": killed,
        "results": len(ids),
        "each_once": sorted(ids) == sorted(queries["id"]),
        "failed": report.failed,
        "negatives_each": round(sum(map(len, found.column("negatives").to_pylist())) / size, 2),
        "seconds": round(report.seconds, 1),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(line), flush=True)


def kill_workers(out: Path, kills: int, killed: list[int], over: threading.Event) -> None:
    """Kill one worker that is at work, by SIGKILL, whenever a few parts more are there."""
    draw = random.Random(0)
    while len(killed) < kills and not over.wait(0.2):
        done = len(list(out.glob("part-*"))) if out.exists() else 0
        if done < 4 * (len(killed) + 1):
            continue
        titles = {p: p.cmdline() for p in psutil.Process().children(recursive=True)}
        busy = [p for p, words in titles.items() if any("MapWorker" in word for word in words)]
        if busy:
            draw.choice(busy).kill()
            killed.append(done)
            over.wait(2.0)


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
