"""5,000 verdicts from a server that fails, in a process that is killed three times.

A local OpenAI-compatible server answers 429 with Retry-After, 500, nothing at all, garbage or
slowly; `CorrectnessEvaluator` on it is the teacher. Checked: each item is labelled once, with the
verdict that the server gave it. Counted: the tokens of every request that the server answered,
repeated ones after a kill and garbage included, against the dry run's estimate, whose tokens per
reply come from a pilot of 50 items.

    python benchmarks/judge_label_faults.py [--items 5000] [--workers 32] [--kills 3]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llama_index.core import get_tokenizer  # noqa: E402
from llama_index.core.evaluation import CorrectnessEvaluator  # noqa: E402

from llama_index.tuning import JudgmentDataset, label_judgments  # noqa: E402
from llama_index.tuning.datasets import Judgment  # noqa: E402
from tests.servers import ChatServer, Faults, client  # noqa: E402

FAULTS = Faults(
    rate_limit=0.05, retry_after=0.2, error=0.03, hang=0.002, garbage=0.02, slow=0.05, slow_factor=3
)
TIMEOUT = 5.0
PRICES = (2.5, 10.0)
PILOT = 50
TEXT = "the fee of plan is paid by month or year and a visitor who asks for it gets a list"
WORDS = TEXT.split()

CLIENT = """
import json, logging, sys, time
from benchmarks.judge_label_faults import TIMEOUT, samples, teacher
from llama_index.tuning import label_judgments
from llama_index.tuning.asking import CallOptions

logging.getLogger("llama_index.tuning").setLevel(logging.ERROR)
url, path, items, workers = sys.argv[1:]
judge = teacher(url)
judge._llm._get_aclient()
started = time.time()
found = label_judgments(
    samples(int(items)), judge, output_path=path, num_workers=int(workers), retry_limit=8,
    options=CallOptions(retry_wait=0.1),
)
print(json.dumps({"seconds": time.time() - started, "counts": found.counts}))
"""


class MeteredServer(ChatServer):
    """Counts the tokens of what it answered: prompts and replies, garbage included."""

    def __post_init__(self) -> None:
        """Start from nothing."""
        super().__post_init__()
        self.prompt_tokens = self.reply_tokens = self.answered = 0
        self.tokenizer = get_tokenizer()

    async def _reply(self, body: dict[str, Any], prompt: str) -> Any:
        response = await super()._reply(body, prompt)
        if response.status == 200:
            self.answered += 1
            texts = (str(message["content"]) for message in body["messages"])
            self.prompt_tokens += sum(len(self.tokenizer(text)) for text in texts)
            text = json.loads(response.body)["choices"][0]["message"]["content"] or ""
            self.reply_tokens += len(self.tokenizer(text))
        return response


def samples(count: int) -> list[Judgment]:
    """Answers of different lengths, the same in every process."""
    draw = random.Random(0)
    return [
        Judgment(
            query=f"What about subject-{number}?",
            response=" ".join(draw.choices(WORDS, k=draw.randint(5, 120))),
            reference=" ".join(draw.choices(WORDS, k=draw.randint(5, 40))),
        )
        for number in range(count)
    ]


def teacher(url: str) -> CorrectnessEvaluator:
    """The evaluator on the server."""
    server = type("Server", (), {"base_url": url})
    return CorrectnessEvaluator(client(server, timeout=TIMEOUT))


def score_of(number: int) -> float:
    """The verdict on an item: 1 to 5 in halves."""
    return 1 + number % 9 / 2


def answer(prompt: str) -> str:
    """Score and reasons; reasons differ in length."""
    found = re.search(r"subject-(\d+)", prompt)
    assert found
    number = int(found[1])
    return f"{score_of(number)}\n" + " ".join(WORDS[: 4 + number % 13] * 3)


def main() -> None:
    """Estimate, label with kills, check and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with ChatServer(answer=answer) as pilot:
        found = label_judgments(samples(args.items)[:PILOT], teacher(pilot.base_url))
        tokenizer = get_tokenizer()
        replies = [f"{j.score}\n{j.feedback}" for j in found.dataset.judgments]
        per_reply = round(sum(len(tokenizer(text)) for text in replies) / len(replies))
    with (
        tempfile.TemporaryDirectory() as folder,
        MeteredServer(latency=args.latency, faults=FAULTS, answer=answer, seed=args.seed) as server,
    ):
        started = time.time()
        plan = label_judgments(
            samples(args.items),
            teacher(server.base_url),
            dry_run=True,
            tokens_per_reply=per_reply,
            prices=PRICES,
        ).estimate
        assert plan is not None
        assert plan.cost is not None
        assert not server.kinds, "a dry run asked the server"
        seconds = time.time() - started
        rows = run(server, Path(folder) / "verdicts.jsonl", args)
    used = (server.prompt_tokens * PRICES[0] + server.reply_tokens * PRICES[1]) / 1e6
    rows |= {
        "estimate": f"{plan}; took {seconds:.1f} s",
        "answered requests, tokens used": f"{server.answered}, {server.prompt_tokens} prompt and "
        f"{server.reply_tokens} reply tokens, cost {used:.4f}",
        "cost estimated / used": f"{plan.cost / used:.3f}",
    }
    for name, value in rows.items():
        print(f"  {name:<44}{value}")


def run(server: ChatServer, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Start again after each kill; what was left and what was repeated."""
    file = Path(f"{path}.run.jsonl")
    draw = random.Random(args.seed)
    ends = sorted(draw.randint(args.items // 20, args.items * 9 // 10) for _ in range(args.kills))
    command = [sys.executable, "-c", CLIENT, server.base_url, str(path)]
    command += [str(args.items), str(args.workers)]
    for lines in ends:
        process = subprocess.Popen(command, cwd=ROOT)
        while process.poll() is None and _lines(file) < lines:
            time.sleep(0.02)
        assert process.poll() is None, "the process ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    last = json.loads(done.stdout)
    return {
        "killed after so many lines": ends,
        "items labelled exactly once": check(file, path, args.items),
        "last process": f"{last['seconds']:.1f} s, {last['counts']}",
        "requests, and what became of them": dict(server.kinds),
        "good replies asked for twice": sum(count - 1 for count in server.good.values()),
    }


def check(file: Path, path: Path, items: int) -> int:
    """Every item is there exactly once, with its own verdict."""
    rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    finished = [row["id"] for row in rows if "value" in row]
    assert len(finished) == len(set(finished)) == items, "an item is missing or there twice"
    found = JudgmentDataset.from_jsonl(path).judgments
    assert [j.query for j in found] == [f"What about subject-{i}?" for i in range(items)]
    assert [j.score for j in found] == [score_of(i) for i in range(items)]
    return len(finished)


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


if __name__ == "__main__":
    main()
