"""The tuned cross-encoder on a Hub that speaks the real protocol, on loopback."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llama_index.tuning import CrossEncoderFinetuneEngine, TunedReranker
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.errors import NotFinetunedError, TuningError
from llama_index.tuning.rerankers import CrossEncoderOptions
from tests.tiny_bert import save_tiny_bert

from .conftest import NoisyRetriever, shop


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
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.created = {}, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", here)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", here)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny"), [*shop().corpus.values()])


def engine(tiny, path, **arguments):
    data = RelevanceDataset.from_retriever(shop(), NoisyRetriever(shop(), k=5))
    options = CrossEncoderOptions(device="cpu", max_steps=2)
    return CrossEncoderFinetuneEngine(data, tiny, str(path), options=options, **arguments)


def test_a_tuned_cross_encoder_goes_to_the_hub_and_loads_from_what_came(hub, tiny, tmp_path):
    tuning = engine(tiny, tmp_path / "out", accept="always")
    tuning.finetune()
    assert tuning.push_to_hub("me/mine", private=True).endswith("/commit/1")
    assert (hub.created["name"], hub.created["visibility"]) == ("mine", "private")
    assert "report.json" not in hub.files  # it holds users' questions
    for name, content in hub.files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    again = TunedReranker.load(tmp_path / "copy", device="cpu")
    assert again.fusion_weight == tuning.get_finetuned_model().fusion_weight
    assert tuning.get_finetuned_model(str(tmp_path / "copy"), top_n=2).top_n == 2


def test_what_the_gate_refused_is_not_shipped(hub, tiny, tmp_path):
    tuning = engine(tiny, tmp_path / "out")
    with pytest.raises(NotFinetunedError, match=r"call finetune\(\) first"):
        tuning.push_to_hub("me/mine")
    with pytest.raises(ValueError, match="repo_id must be a name such as"):
        tuning.push_to_hub(None)
    assert not tuning.finetune().accepted
    with pytest.raises(TuningError, match="nothing is uploaded, the base re-ranker is kept"):
        tuning.push_to_hub("me/mine")
    assert hub.created is None
    loaded = tuning.get_finetuned_model(tiny, top_n=3)  # any cross-encoder, as the old one did
    assert (type(loaded), loaded.top_n) == (TunedReranker, 3)
