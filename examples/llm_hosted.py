"""An LLM tuned by a hosted job: from the app's own traffic to the answer. No key, seconds.

The server at the end of this file stands in for OpenAI, Azure or Nebius: it takes files and jobs,
and its tuned model knows the answers that it was given. At a real server, only `base_url` and
`api_key` change (or `client=`), and the job takes minutes to hours.
"""

import json
import tempfile
from calendar import month_name
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM, CompletionResponse, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback

from llama_index.tuning import OpenAIFinetuneEngine, OpenAIFineTuningHandler

MONTHS = list(month_name)[1:11]


class Teacher(MockLLM):
    """The large model that the app asks today."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="The fee is 5 euros.")


class Server(BaseHTTPRequestHandler):
    """Files, jobs and chat in OpenAI's protocol, without any fault or memory for long."""

    jobs: ClassVar[dict[str, dict[str, Any]]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/files"):
            self.reply({"id": "file-1", "filename": "train.jsonl", "status": "processed"})
        elif self.path.endswith("/jobs"):
            job = {"id": "job-1", "status": "queued", "fine_tuned_model": None}
            self.jobs["job-1"] = job | json.loads(body)
            self.reply(self.jobs["job-1"])
        else:
            tuned = json.loads(body)["model"].endswith(":tuned")
            text = "The fee is 5 euros." if tuned else "I would have to look that up."
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            self.reply({"id": "1", "object": "chat.completion", "choices": [choice]})

    def do_GET(self) -> None:
        if self.path.split("?")[0].endswith("/job-1"):
            job = self.jobs["job-1"]
            done = {"status": "succeeded", "fine_tuned_model": f"{job['model']}:tuned"}
            job |= {"status": "running"} if job["status"] == "queued" else done
            self.reply(job)
        else:
            self.reply({"object": "list", "data": []})

    def reply(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing: the example prints what matters."""


def knows_the_fee(llm: LLM) -> list[float]:
    """One score for each question that was not trained on."""
    asked = [f"And in {month} of year {year}?" for month in MONTHS for year in (1, 2)]
    return [float("5 euros" in llm.complete(question).text) for question in asked]


# The app runs, and a handler collects what the large model answers.
handler = OpenAIFineTuningHandler()
teacher = Teacher(callback_manager=CallbackManager([handler]))
for month in MONTHS:
    teacher.complete(f"How high is the fee in {month}?")

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
Thread(target=server.serve_forever, daemon=True).start()

engine = OpenAIFinetuneEngine.from_finetuning_handler(
    handler,
    "acme/small",
    Path(tempfile.mkdtemp()) / "train.jsonl",
    base_url=f"http://127.0.0.1:{server.server_port}/v1",
    api_key="none",
    evaluate=knows_the_fee,
    poll_interval=0.2,
)
print("before anything is sent:", engine.estimate(price=3.0))
print(engine.finetune())
llm = engine.get_finetuned_model(context_window=8192)
print("the tuned LLM:", llm.complete("How high is the fee in November?"))
server.shutdown()
