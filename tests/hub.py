"""The protocol of the Hugging Face hub, as far as uploading needs it."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Hub(BaseHTTPRequestHandler):
    """Takes repositories and commits; all files are small ones to it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        here = f"http://127.0.0.1:{self.server.server_port}/me/mine"
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.answer({"url": here, "name": "me/mine"})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            kind = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": path, **kind} for path in paths]})
        elif "/commit/" in self.path:
            self.server.revision = self.path.rsplit("/", 1)[1]
            self.server.token = self.headers.get("Authorization")
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            self.answer({"commitUrl": f"{here}/commit/1", "commitOid": "1"})
        else:
            self.answer({})

    def do_GET(self):
        self.answer({"id": "me/mine", "sha": "1", "siblings": []})

    def answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Quietly."""


@pytest.fixture
def hub(monkeypatch):
    """A hub that speaks the real protocol, on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.created = {}, None
    server.revision = server.token = None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", here)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", here)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
