"""A loopback server of OpenAI's files, fine-tuning jobs and chat that can be told to misbehave."""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web

STAGES = ("validating_files", "queued", "running")
NOT_READY = "File '{}' is still being processed and is not ready to be used for fine-tuning."
FAULTS = ("500", "503", "429", "drop_before", "drop_after", "garbage")


@dataclass
class JobsServer:
    """Answers under `/v1`, and under `/openai` as Azure does; a context manager.

    Args:
        faults: endpoint → what goes wrong with its next requests, in order (None: nothing).
            Endpoints: upload, file, files, create, job, jobs, events, cancel, chat.
            Faults: see `FAULTS`, "429:<Retry-After>", "quota", "not_ready",
            "400:<message>", or any status such as "404".
        share: of all other requests, how many have a fault of `FAULTS`.
        kinds: which ones.
        seed: of the draw.
        stages: statuses before the ending, one a look at the job; or (status, seconds) on `clock`.
        ending: "succeeded", "failed" or "cancelled".
        error: the job's error where it failed.
        file_looks: so many looks find the file not processed; None: it has no status at all.
        lean: jobs come without metadata and most other fields.
        unserved: so many chats with a tuned model answer 404.
        answer: (model, messages) → reply.
        key: the only one that is let in.
        clock: seconds.

    After use: `files` and `jobs` are what was made, `seen` the requests as (method, path, body),
    `headers` theirs, `kinds_seen` how often each fault happened.
    """

    faults: dict = field(default_factory=dict)
    share: float = 0.0
    kinds: tuple = FAULTS
    seed: int = 0
    stages: tuple = STAGES
    ending: str = "succeeded"
    error: dict = None
    file_looks: int = 0
    lean: bool = False
    unserved: int = 0
    answer: object = None
    key: str = "test-key-123456"
    clock: object = time.monotonic

    def __post_init__(self):
        self.files, self.jobs, self.tuned = {}, {}, set()
        self.seen, self.headers, self.kinds_seen = [], [], Counter()
        self.at_request = {}  # number of a request → called when it has been served
        self._draw = random.Random(self.seed)
        self._faults = {name: list(kinds) for name, kinds in self.faults.items()}
        self._ready = threading.Event()
        self._counts = Counter()

    def __enter__(self):
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def client(self, **options):
        from openai import OpenAI

        return OpenAI(**{"base_url": self.base_url, "api_key": self.key, **options})

    def azure(self, **options):
        from openai import AzureOpenAI

        given = {
            "azure_endpoint": self.base_url.removesuffix("/v1"), "api_key": self.key,
            "api_version": "2025-04-01-preview", **options,
        }  # fmt: skip
        return AzureOpenAI(**given)

    def asked(self, method, end):
        """The bodies of requests to a path that ends so."""
        return [body for verb, path, body in self.seen if verb == method and path.endswith(end)]

    async def _main(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**26)
        for base in ("/v1", "/openai", "/openai/v1", "/openai/deployments/{deployment}"):
            self._add(app.router, base)
        app.router.add_put("/subscriptions/{rest:.*}", self._handler("deploy"))
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _add(self, router, base):
        jobs = f"{base}/fine_tuning/jobs"
        for method, path, name in (
            ("POST", f"{base}/files", "upload"),
            ("GET", f"{base}/files", "files"),
            ("GET", f"{base}/files/{{id}}", "file"),
            ("POST", jobs, "create"),
            ("GET", jobs, "jobs"),
            ("GET", f"{jobs}/{{id}}", "job"),
            ("GET", f"{jobs}/{{id}}/events", "events"),
            ("POST", f"{jobs}/{{id}}/cancel", "cancel"),
            ("POST", f"{base}/chat/completions", "chat"),
        ):
            router.add_route(method, path, self._handler(name))

    def _handler(self, name):
        async def handle(request):
            body = await self._body(request)
            self.seen.append((request.method, request.path, body))
            self.headers.append(dict(request.headers))
            given = request.headers.get("api-key") or request.headers.get("Authorization", "")
            if given.removeprefix("Bearer ") != self.key:
                return refused(401, f"Incorrect API key provided: {given}.", "invalid_api_key")
            fault = self._fault(name)
            if fault is not None:
                self.kinds_seen[fault] += 1
            early = self._early(fault, body)
            if early is not None:
                return early
            if fault == "drop_before":
                request.transport.close()
                return web.Response()
            reply = await getattr(self, f"_{name}")(request, body)
            self.at_request.pop(len(self.seen), lambda: None)()
            if fault == "drop_after":
                request.transport.close()
            return reply

        return handle

    async def _body(self, request):
        if request.content_type == "multipart/form-data":
            form = await request.post()
            file = form["file"]
            return {"purpose": form["purpose"], "name": file.filename, "content": file.file.read()}
        return await request.json() if request.can_read_body else {}

    def _fault(self, name):
        planned = self._faults.get(name)
        if planned:
            return planned.pop(0)
        if self._draw.random() < self.share:
            return self._draw.choice(self.kinds)
        return None

    def _early(self, fault, body):
        kind, _, detail = (fault or "").partition(":")
        if kind == "429":
            headers = {"Retry-After": detail or "0.01"}
            return refused(429, "Rate limit reached", "rate_limit_exceeded", headers)
        if kind == "quota":
            return refused(429, "You exceeded your current quota", "insufficient_quota")
        if kind == "garbage":
            return web.Response(text="<html>proxy</html>", content_type="text/html")
        if kind == "not_ready":
            return refused(400, NOT_READY.format(body.get("training_file")), "invalid_file")
        if kind.isdigit():
            return refused(int(kind), detail or f"status {kind}", "scripted")
        return None

    async def _upload(self, request, body):
        id_ = f"file-{len(self.files) + 1}"
        self.files[id_] = {
            "id": id_, "object": "file", "bytes": len(body["content"]), "created_at": 1,
            "filename": body["name"], "purpose": body["purpose"], "content": body["content"],
        }  # fmt: skip
        return web.json_response(self._shown(id_))

    def _shown(self, id_):
        shown = {name: value for name, value in self.files[id_].items() if name != "content"}
        if self.file_looks is not None and "status" not in shown:
            ready = self._counts[id_] >= self.file_looks
            shown["status"] = "processed" if ready else "uploaded"
        return shown

    async def _file(self, request, body):
        id_ = request.match_info["id"]
        if id_ not in self.files:
            return refused(404, f"No such File object: {id_}", "not_found")
        self._counts[id_] += 1
        return web.json_response(self._shown(id_))

    async def _files(self, request, body):
        data = [self._shown(id_) for id_ in reversed(self.files)]
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def _create(self, request, body):
        file = self.files.get(body["training_file"])
        if file is None:
            return refused(400, f"invalid training_file: {body['training_file']}", "invalid")
        id_ = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[id_] = {
            "id": id_, "object": "fine_tuning.job", "created_at": 1, "model": body["model"],
            "training_file": body["training_file"], "status": self._stage(0),
            "fine_tuned_model": None,
        }  # fmt: skip
        if not self.lean:
            self.jobs[id_] |= {
                "metadata": body.get("metadata"), "validation_file": body.get("validation_file"),
                "error": None, "finished_at": None, "hyperparameters": {}, "result_files": [],
                "organization_id": "org", "seed": body.get("seed", 0), "trained_tokens": None,
            }  # fmt: skip
        self._counts[id_] = 0
        self.jobs[id_]["began"] = self.clock()
        return self._reply(id_)

    def _reply(self, id_):
        job = {name: value for name, value in self.jobs[id_].items() if name != "began"}
        return web.json_response(job)

    def _stage(self, number):
        stage = self.stages[number] if number < len(self.stages) else self.ending
        return stage if isinstance(stage, str) else stage[0]

    def _advance(self, id_):
        job = self.jobs[id_]
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return
        if self.stages and not isinstance(self.stages[0], str):
            left, number = self.clock() - job["began"], 0
            while number < len(self.stages) and left >= self.stages[number][1]:
                left -= self.stages[number][1]
                number += 1
        else:
            self._counts[id_] += 1
            number = self._counts[id_]
        job["status"] = self._stage(number)
        if job["status"] == "succeeded":
            job["fine_tuned_model"] = f"ft:{job['model']}:org::{id_}"
            job |= {"finished_at": 61, "trained_tokens": 1234}
            self.tuned.add(job["fine_tuned_model"])
        if job["status"] == "failed":
            job["error"] = self.error

    async def _job(self, request, body):
        return self._on_job(request, self._advance)

    def _on_job(self, request, act):
        id_ = request.match_info["id"]
        if id_ not in self.jobs:
            return refused(404, f"Could not find fine tune: {id_}", "fine_tune_not_found")
        act(id_)
        return self._reply(id_)

    async def _jobs(self, request, body):
        ids = list(reversed(self.jobs))
        if "after" in request.query:
            ids = ids[ids.index(request.query["after"]) + 1 :]
        page = ids[: int(request.query.get("limit", 20))]
        data = [{k: v for k, v in self.jobs[id_].items() if k != "began"} for id_ in page]
        return web.json_response({"object": "list", "data": data, "has_more": len(page) < len(ids)})

    async def _events(self, request, body):
        id_ = request.match_info["id"]
        if id_ not in self.jobs:
            return refused(404, f"Could not find fine tune: {id_}", "fine_tune_not_found")
        made = [{"id": f"{id_}-e0", "message": f"Created job {id_}", "data": None}]
        for step in range(1, 4) if self.jobs[id_]["status"] == "succeeded" else ():
            data = {"step": step, "total_steps": 3, "train_loss": 1 / step}
            made.append({"id": f"{id_}-e{step}", "message": f"Step {step}/3", "data": data})
        shared = {"object": "fine_tuning.job.event", "created_at": 1, "level": "info"}
        data = [{**shared, **event} for event in reversed(made)]
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def _cancel(self, request, body):
        job = self.jobs.get(request.match_info["id"])
        if job is not None and job["status"] in ("succeeded", "failed", "cancelled"):
            return refused(400, f"Job has already completed: {job['status']}", "invalid")
        return self._on_job(request, lambda id_: self.jobs[id_].update(status="cancelled"))

    async def _deploy(self, request, body):
        return web.json_response({"properties": {"provisioningState": "Succeeded"}})

    async def _chat(self, request, body):
        model = request.match_info.get("deployment") or body["model"]
        if model.startswith("ft:") and (model not in self.tuned or self.unserved > 0):
            self.unserved -= 1
            return refused(404, f"The model `{model}` does not exist", "model_not_found")
        text = (self.answer or (lambda model, messages: f"{model} says hello"))(
            model, body["messages"]
        )
        if body.get("stream"):
            return await self._streamed(request, model, text)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({**_completion(model, "chat.completion"), "choices": [choice]})

    async def _streamed(self, request, model, text):
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        for word in text.split(" "):
            choice = {"index": 0, "delta": {"role": "assistant", "content": f"{word} "}}
            chunk = {**_completion(model, "chat.completion.chunk"), "choices": [choice]}
            await reply.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await reply.write(b"data: [DONE]\n\n")
        return reply


def refused(status, message, code, headers=None):
    error = {"message": message, "type": "error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


def _completion(model, kind):
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "x", "object": kind, "created": 0, "model": model, "usage": usage}
