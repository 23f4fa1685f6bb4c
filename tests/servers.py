"""An OpenAI-compatible chat server on loopback that can be told to misbehave."""

import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Shares of the requests, from 0 to 1, and how bad each fault is."""

    rate_limit: float = 0.0
    retry_after: float = 0.05
    error: float = 0.0
    hang: float = 0.0
    hang_seconds: float = 30.0
    garbage: float = 0.0
    slow: float = 0.0
    slow_factor: float = 3.0


@dataclass
class ChatServer:
    """Answers `/v1/chat/completions`; a context manager, in a thread of its own.

    Args:
        latency: seconds that a good reply takes.
        faults: what goes wrong, drawn anew for each request.
        answer: prompt → reply.
        seed: of the draw.

    After use: `good` counts good replies by prompt, `kinds` requests by what became of them,
    `tools` requests with tools; `most` is how many ran at once, `busy` the sum of the seconds
    that requests took.
    """

    latency: float = 0.0
    faults: Faults = field(default_factory=Faults)
    answer: object = None
    seed: int = 0

    def __post_init__(self):
        self.good = Counter()
        self.kinds = Counter()
        self.busy = 0.0
        self.now = self.most = self.tools = 0
        self._draw = random.Random(self.seed)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self):
        asyncio.run(self._main())

    async def _main(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _chat(self, request):
        started = time.monotonic()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            body = await request.json()
            self.tools += "tools" in body
            return await self._reply(body, body["messages"][-1]["content"])
        finally:
            self.now -= 1
            self.busy += time.monotonic() - started

    async def _reply(self, body, prompt):
        kind = self._kind()
        self.kinds[kind] += 1
        if kind == "hang":
            await asyncio.sleep(self.faults.hang_seconds)
        await asyncio.sleep(self.latency * (self.faults.slow_factor if kind == "slow" else 1))
        if kind == "rate_limit":
            headers = {"Retry-After": str(self.faults.retry_after)}
            return web.json_response(
                {"error": {"message": "slow down"}}, status=429, headers=headers
            )
        if kind == "error":
            return web.json_response({"error": {"message": "broken"}}, status=500)
        if kind == "garbage":
            return web.json_response(_completion(body, self._draw.choice(["", "...", "{[", ":"])))
        self.good[prompt] += 1
        return web.json_response(_completion(body, (self.answer or two_questions)(prompt)))

    def _kind(self):
        x = self._draw.random()
        for name in ("rate_limit", "error", "hang", "garbage", "slow"):
            x -= getattr(self.faults, name)
            if x < 0:
                return name
        return "good"


def two_questions(prompt):
    """Two questions about the `subject-…` that the prompt names."""
    subject = re.search(r"subject-\w+", prompt).group()
    return f"Here are two questions:\n\n1. What is {subject}?\n2. Who needs {subject}?"


def client(server, *, timeout=60.0, **options):
    """A LlamaIndex LLM on the server, which leaves every retry to its caller."""
    from llama_index.llms.openai_like import OpenAILike

    options.setdefault("is_function_calling_model", False)
    return OpenAILike(
        model="scripted", api_base=server.base_url, api_key="none", is_chat_model=True,
        max_retries=0, timeout=timeout, **options,
    )  # fmt: skip


def _completion(body, text):
    message = {"role": "assistant", "content": text}
    if body.get("tools") and text.startswith("{"):
        name = body["tools"][0]["function"]["name"]
        json.loads(text)
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": text}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip
