"""What it costs to import the traces of other tools: seconds, and memory as the file grows.

Each size runs in a process of its own: spans as OpenInference writes them for a query engine (a
query, a retrieval of four passages of 900 characters, an LLM's answer over them), as JSON Lines, in
any order.

    python benchmarks/import_spans.py --spans 3000 10000 30000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(path: Path, count: int) -> None:
    """A file of about `count` spans, three a request."""
    draw = random.Random(0)
    passages = [f"Passage {n}. " + "x" * 60 + " word" * 166 for n in range(2000)]
    lines = []
    for request in range(count // 3):
        found = draw.sample(range(len(passages)), 4)
        question = f"Question {request}?"
        retrieved = {"input.value": question}
        for place, n in enumerate(found):
            head = f"retrieval.documents.{place}.document"
            retrieved |= {f"{head}.id": f"n{n}", f"{head}.content": passages[n]}
            retrieved[f"{head}.score"] = 0.9 - place / 10
        prompt = "\n".join(passages[n] for n in found) + question
        kinds = {
            "RetrieverQueryEngine.query": ("CHAIN", {"input.value": question, "output.value": "A"}),
            "VectorIndexRetriever.retrieve": ("RETRIEVER", retrieved),
            "OpenAI.chat": (
                "LLM",
                {
                    "llm.model_name": "small",
                    "llm.input_messages.0.message.role": "user",
                    "llm.input_messages.0.message.content": prompt,
                    "llm.output_messages.0.message.role": "assistant",
                    "llm.output_messages.0.message.content": f"Answer {request}.",
                },
            ),
        }
        for place, (name, (kind, attributes)) in enumerate(kinds.items()):
            span = {
                "name": name,
                "context": {
                    "trace_id": f"0x{request:032x}",
                    "span_id": f"0x{request * 3 + place + 1:016x}",
                },
                "parent_id": None if place == 0 else f"0x{request * 3 + 1:016x}",
                "end_time": f"2026-05-01T10:00:{place:02d}.000000Z",
                "attributes": {"openinference.span.kind": kind, **attributes},
            }
            lines.append(json.dumps(span))
    draw.shuffle(lines)
    path.write_text("\n".join(lines), encoding="utf-8")


def import_one(path: Path) -> None:
    """Import one file, and print seconds, records and the growth of memory."""
    from llama_index.tuning.collect.imports.rows import write_spans

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    count, faults = write_spans(path, path.with_suffix(".log.jsonl"))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = path.stat().st_size / 2**20
    print(
        f"{path.stem}: {size:.0f} MB, {count} records, {sum(faults.values())} left out: "
        f"{seconds:.1f} s ({cpu:.1f} s of CPU), memory + {grown:.0f} MB"
    )


def main() -> None:
    """Write a file of each size and import it in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, nargs="+", default=[3000, 10000, 30000])
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.file:
        import_one(given.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in given.spans:
            path = Path(folder) / f"{count} spans"
            write(path, count)
            subprocess.run([sys.executable, __file__, "--file", str(path)], check=True)


if __name__ == "__main__":
    main()
