"""Questions for 1,000 passages from a server that fails, in a process that is killed.

A local OpenAI-compatible server answers 429 with Retry-After, 500, nothing at all, garbage or
slowly. Two runs: one straight through, for the wall time against the ideal (seconds the server
was busy ÷ workers); one killed (SIGKILL) five times at random, for what is lost or repeated.

    python benchmarks/generate_faults.py [--nodes 1000] [--workers 16] [--latency 1] [--kills 5]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.servers import ChatServer, Faults  # noqa: E402

FAULTS = Faults(
    rate_limit=0.05, retry_after=1.0, error=0.05, hang=0.01, garbage=0.03, slow=0.05, slow_factor=3
)
TIMEOUT = 5.0

CLIENT = """
import json, logging, sys, time
from llama_index.core.schema import TextNode
from llama_index.tuning import generate_qa_embedding_pairs
from tests.servers import client

logging.getLogger("llama_index.tuning").setLevel(logging.ERROR)
url, path, nodes, workers, timeout = sys.argv[1:]
server = type("Server", (), {"base_url": url})
llm = client(server, timeout=float(timeout))
llm._get_aclient()
passages = [TextNode(id_=f"n{i}", text=f"All about subject-{i}.") for i in range(int(nodes))]
started = time.time()
dataset = generate_qa_embedding_pairs(
    passages, llm, num_workers=int(workers), retry_limit=5, output_path=path
)
print(json.dumps({"seconds": time.time() - started, "counts": dataset.counts}))
"""


def main() -> None:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for kills in (0, args.kills):
        with (
            tempfile.TemporaryDirectory() as folder,
            ChatServer(latency=args.latency, faults=FAULTS, seed=args.seed) as server,
        ):
            found = run(server, Path(folder), args, kills)
        print(f"\n{'straight through' if not kills else f'killed {kills} times'}")
        for name, value in found.items():
            print(f"  {name:<44}{value}")


def run(server: ChatServer, folder: Path, args: argparse.Namespace, kills: int) -> dict[str, Any]:
    """One run, started again after each kill; what it left and what it cost."""
    path = folder / "questions.json"
    file = Path(f"{path}.run.jsonl")
    draw = random.Random(args.seed)
    ends = sorted(draw.randint(args.nodes // 20, args.nodes * 9 // 10) for _ in range(kills))
    command = [sys.executable, "-c", CLIENT, server.base_url, str(path)]
    command += [str(args.nodes), str(args.workers), str(TIMEOUT)]
    for lines in ends:
        process = subprocess.Popen(command, cwd=ROOT)
        while process.poll() is None and _lines(file) < lines:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    last = json.loads(done.stdout)
    found = check(file, path, args.nodes)
    calls = sum(server.kinds.values())
    repeated = sum(count - 1 for count in server.good.values())
    found |= {
        "requests, and what became of them": f"{calls}: {dict(server.kinds)}",
        "good replies asked for twice (in flight at a kill)": repeated,
    }
    if not kills:
        ideal = server.busy / args.workers
        plain = args.latency * calls / args.workers
        found |= {
            "wall seconds": f"{last['seconds']:.1f}",
            "mean latency x calls / workers": f"{ideal:.1f} s, ratio {last['seconds'] / ideal:.2f}",
            "set latency x calls / workers": f"{plain:.1f} s, ratio {last['seconds'] / plain:.2f}",
        }
    return found


def check(file: Path, path: Path, nodes: int) -> dict[str, Any]:
    """Every node is there exactly once, or failed."""
    rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    finished = [row["id"] for row in rows if "value" in row]
    failed = {row["id"] for row in rows if "error" in row} - set(finished)
    dataset = json.loads(path.read_text())
    assert len(finished) == len(set(finished)), "a node was finished twice"
    assert set(finished) | failed == {f"n{i}" for i in range(nodes)}, "a node is missing"
    assert {doc for docs in dataset["relevant_docs"].values() for doc in docs} == set(finished)
    assert len(dataset["queries"]) == 2 * len(finished), "a question is missing"
    return {
        "nodes finished exactly once": len(finished),
        "nodes listed as failed": len(failed),
        "questions": len(dataset["queries"]),
    }


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


if __name__ == "__main__":
    main()
