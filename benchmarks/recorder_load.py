"""The recorder under load: nothing lost, nothing twice, prompts as the LLM got them, what it costs.

    python benchmarks/recorder_load.py [--requests 10000] [--out recorder_load.json]

32 threads and 200 asyncio tasks send requests through a RetrieverQueryEngine, a RouterQueryEngine
and a FunctionAgent over scripted LLMs that keep what they received; the log is compared with that.
Then one thread sends queries with the recorder off and on in turn, and the medians are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage, CompletionResponse
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool

from llama_index.tuning.collect import FinetuningRecorder
from llama_index.tuning.collect.log import read_log

THREADS, TASKS, BLOCK = 32, 200, 10
REQUEST = re.compile(r"request-\d+")
received: list[str] = []


class Scripted(MockLLM):
    """Answers every prompt, and keeps it; a router's prompt gets a choice."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        received.append(json.dumps([prompt]))
        if "choices are given" in prompt:
            return CompletionResponse(text='[{"choice": 1, "reason": "it fits"}]')
        return CompletionResponse(
            text=f"An answer of {len(prompt)} characters — größer als nichts."
        )


def respond(messages: Sequence[ChatMessage], **kwargs: Any) -> ChatMessage:
    """The agent's LLM: a tool call first, then the answer."""
    received.append(json.dumps([message.content for message in messages]))
    if any(message.role.value == "tool" for message in messages):
        return ChatMessage(role="assistant", content="The fee is 5 euros.")
    call = {"tool_call_id": "c1", "tool_name": "fee", "tool_kwargs": {"account": "basic"}}
    return ChatMessage(role="assistant", blocks=[{"block_type": "tool_call", **call}])


def fee(account: str) -> str:
    """The monthly fee of an account."""
    return f"{account}: 5 euros"


def build() -> tuple[RetrieverQueryEngine, RouterQueryEngine, FunctionAgent]:
    """The three apps, over 50 passages of some 900 characters."""
    nodes = [
        TextNode(text=f"Passage {n}. " + "Every account has a monthly fee. " * 27)
        for n in range(50)
    ]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(16))
    synthesizer = get_response_synthesizer(llm=Scripted())
    engine = RetrieverQueryEngine(index.as_retriever(similarity_top_k=4), synthesizer)
    tools = [
        QueryEngineTool.from_defaults(engine, name=name, description=f"Questions about {name}")
        for name in ("fees", "accounts", "cards")
    ]
    router = RouterQueryEngine(
        LLMSingleSelector.from_defaults(llm=Scripted()), tools, llm=Scripted()
    )
    agent = FunctionAgent(
        tools=[FunctionTool.from_defaults(fee)],
        llm=MockFunctionCallingLLM(response_generator=respond),
        streaming=False,
    )
    return engine, router, agent


def run_load(requests: int) -> None:
    """Half of the requests from threads, half from asyncio tasks; a fifth of all by the agent."""
    engine, router, agent = build()
    texts = [f"What is the fee of request-{n}, señor 日本?" for n in range(requests)]
    half = requests // 2

    def in_thread(n: int) -> None:
        (engine if n % 2 else router).query(texts[n])

    async def in_tasks() -> None:
        waiting = iter(range(half, requests))

        async def worker() -> None:
            for n in waiting:
                if n % 5 < 2:
                    await agent.run(texts[n])
                else:
                    await (engine if n % 2 else router).aquery(texts[n])

        await asyncio.gather(*(worker() for _ in range(TASKS)))

    with ThreadPoolExecutor(THREADS + 1) as pool:
        loop = pool.submit(asyncio.run, in_tasks())
        list(pool.map(in_thread, range(half)))
        loop.result()


def compare(path: Path, requests: int) -> dict[str, Any]:
    """The log against what the LLMs received, and each request under one trace id."""
    recorded: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    traces: dict[str, set[str]] = {}
    spans: Counter[str] = Counter()
    for record in read_log(path):
        kinds[record["kind"]] += 1
        if record["kind"] == "node":
            continue
        spans[record["span"] + record["kind"]] += 1
        for name in REQUEST.findall(json.dumps(record)):
            traces.setdefault(name, set()).add(record["trace"])
        if record["kind"] == "llm":
            recorded[json.dumps([m["content"] for m in record["messages"]])] += 1
    # A tool call's own message has no text: None to the LLM and in the log alike.
    truth = Counter(received)
    return {
        "requests": requests,
        "records": dict(kinds),
        "exchanges_received": sum(truth.values()),
        "exchanges_lost_or_changed": sum((truth - recorded).values()),
        "exchanges_extra": sum((recorded - truth).values()),
        "spans_twice": sum(n > 1 for n in spans.values()),
        "requests_traced": len(traces),
        "requests_with_several_traces": sum(len(ids) > 1 for ids in traces.values()),
    }


def overhead(rounds: int, folder: str) -> dict[str, dict[str, float]]:
    """Median microseconds of a request, and what the recorder adds, in blocks taken in turn.

    The CPU time of the thread is the fairer number where other processes use the machine.
    """
    engine, router, agent = build()
    loop = asyncio.new_event_loop()

    async def run_agent(text: str) -> None:
        await agent.run(text)

    apps = {
        "RetrieverQueryEngine": engine.query,
        "RouterQueryEngine": router.query,
        "FunctionAgent": lambda text: loop.run_until_complete(run_agent(text)),
    }
    recorder = FinetuningRecorder(f"{folder}/overhead.jsonl")
    results = {}
    for name, app in apps.items():
        times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for block in range(rounds // BLOCK):
            for on in (False, True) if block % 2 else (True, False):
                if on:
                    recorder.attach()
                app("What opens the file?")  # not timed: a server's recorder is open already
                for n in range(BLOCK):
                    wall, cpu = time.perf_counter(), time.thread_time()
                    app(f"What is the fee of request-{block}{n}?")
                    times[on].append((time.perf_counter() - wall, time.thread_time() - cpu))
                if on:
                    recorder.detach()
        results[name] = {}
        for place, clock in enumerate(("wall", "cpu")):
            off, on_ = (statistics.median(t[place] for t in times[k]) * 1e6 for k in (False, True))
            results[name] |= {f"{clock}_off_us": round(off), f"{clock}_added_us": round(on_ - off)}
    results["machine"] = {"million_additions_ms": round(loop_speed(), 1)}
    return results


def loop_speed() -> float:
    """Milliseconds of a million additions in Python, to compare machines: 40 to 50 is usual."""
    best = float("inf")
    for _ in range(5):
        begun, total = time.perf_counter(), 0
        for n in range(1_000_000):
            total += n
        best = min(best, time.perf_counter() - begun)
    return best * 1e3


def main() -> None:
    """Run both parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cost = overhead(given.rounds, folder)
        print(json.dumps(cost, indent=2))
        received.clear()
        path = Path(folder) / "traffic.jsonl"
        begun = time.perf_counter()
        with FinetuningRecorder(path, max_bytes=8 * 2**20) as recorder:
            run_load(given.requests)
        result = compare(path, given.requests)
        result |= {"failures": recorder.failures, "seconds": round(time.perf_counter() - begun, 1)}
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps({"overhead": cost, "load": result}, indent=2))


if __name__ == "__main__":
    main()
