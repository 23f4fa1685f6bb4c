"""kill -9 of `tune_app` at random moments: the next call goes on, and embeds nothing twice.

One run is killed again and again until `--kills` are reached; then it is let through, and what it
serves is compared with a run that nothing interrupted. The model writes to a file each batch of
texts that it answered.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llama_index.tuning import RetrievalDataset, tune_app
from llama_index.tuning.vectors.identity import PROBES

PAGES, DIM = 150, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        started = time.monotonic()
        assert start(whole).wait() == 0
        seconds = time.monotonic() - started
        kills = ended = 0
        while kills < args.kills:
            run = start(killed)
            wait_until(killed / "ready", run)
            try:
                run.wait(timeout=draw.uniform(0, 0.5 * seconds))
                assert run.returncode == 0, "a run failed"
                ended += 1  # it came through before it was killed: the next one starts anew
                (killed / "texts").unlink()
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
                kills += 1
            (killed / "ready").unlink(missing_ok=True)
        assert start(killed).wait() == 0
        twice = repeated(killed / "texts")
        same = (whole / "found").read_text() == (killed / "found").read_text()
        print(
            f"{kills} kills, {ended} runs came through between them; uninterrupted "
            f"{seconds:.0f} s; questions and sentences embedded twice: {len(twice)}; "
            f"same report: {same}"
        )
        for text, count in twice[:5]:
            print(f"  {count} × {text[:80]}")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, __file__, "--child", str(folder)])


def wait_until(file: Path, run: subprocess.Popen[bytes]) -> None:
    """Until the run has imported what it needs."""
    while not file.exists() and run.poll() is None:
        time.sleep(0.02)


def repeated(file: Path) -> list[tuple[str, int]]:
    """Texts that were embedded more than once, beside those that tell a model by its vectors."""
    counts = collections.Counter(json.loads(line) for line in file.read_text().splitlines())
    return [(text, n) for text, n in counts.items() if n > 1 and text not in PROBES]


def child(folder: Path) -> None:
    """One call of `tune_app`; what was found is written for the comparison."""
    rows = range(PAGES)
    nodes = [TextNode(id_=f"n{i}", text=page(i)) for i in rows]
    model = Words(file=str(folder / "texts"), writes=False)
    Settings.embed_model = model
    index = VectorStoreIndex(nodes, embed_model=model)
    queries = {
        f"q{i}": f"What does item {i} of the {COLOURS[i % 7]} shelf cost?" for i in range(PAGES)
    }
    questions = RetrievalDataset.from_nodes(
        nodes, queries, {f"q{i}": [f"n{i}"] for i in range(PAGES)}
    )
    model.writes = True
    (folder / "ready").touch()
    app = tune_app(index, questions, run_folder=folder / "run")
    ladder = {rung.name: rung.values for rung in app.report.ladder}
    (folder / "found").write_text(json.dumps([app.report.served, ladder], sort_keys=True))


COLOURS = ["red", "green", "blue", "grey", "white", "black", "brown"]


def page(i: int) -> str:
    """A page of prose."""
    return (
        f"The {COLOURS[i % 7]} shelf is where item {i} is kept by the owner of the shop. It is "
        f"sold for {3 * i + 7} euros to all who ask for it. There are others of it in the cellar."
    )


class Words(BaseEmbedding):
    """A vector for each word; each batch that is answered is written to a file."""

    file: str
    writes: bool = True

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        vectors = [vector(text) for text in texts]
        if self.writes:
            time.sleep(0.003 * len(texts))  # as a model takes its time
            with open(self.file, "a") as lines:
                lines.write("".join(json.dumps(text) + "\n" for text in texts))
        return vectors

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors(texts)


def vector(text: str) -> list[float]:
    """The sum of the words' fixed random vectors, unit length."""
    total: Any = np.full(DIM, 1e-3)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        total = total + np.random.default_rng(seed).standard_normal(DIM)
    return (total / np.linalg.norm(total)).tolist()


if __name__ == "__main__":
    main()
