"""What is sent to OpenAI, Azure and Nebius, field by field."""

from datetime import date

import httpx
import openai
import pytest

from llama_index.tuning import AzureOpenAIFinetuneEngine, OpenAIFinetuneEngine
from llama_index.tuning.errors import HostedEndedError, HostedError, NotFinetunedError
from llama_index.tuning.llms.hosted.calls import Clock
from llama_index.tuning.llms.hosted.client import server_of
from llama_index.tuning.llms.hosted.options import RUN_KEY
from tests.jobs_server import JobsServer

from .hosted_parts import MODEL, chats, preferences, scaled

OPENAI = "https://api.openai.com/v1"
NEBIUS = "https://api.tokenfactory.nebius.com/v1/"
FEATURES = {
    "hyperparameters": {"n_epochs": 2, "batch_size": "auto"},
    "suffix": "fees",
    "seed": 7,
}


class ToLoopback(httpx.BaseTransport):
    """Takes requests for any address to the test server."""

    def __init__(self, server):
        self.server, self.inner, self.urls = server, httpx.HTTPTransport(), []

    def handle_request(self, request):
        self.urls.append(str(request.url))
        there = httpx.URL(self.server.base_url)
        request.url = request.url.copy_with(scheme="http", host=there.host, port=there.port)
        return self.inner.handle_request(request)


def client_at(server, base_url):
    http = httpx.Client(transport=ToLoopback(server))
    return openai.OpenAI(base_url=base_url, api_key=server.key, http_client=http)


def asked_of(server, base_url, data=None, **options):
    clock = Clock(scaled().now, scaled().sleep, lambda: date(2026, 12, 1))
    engine = OpenAIFinetuneEngine(
        MODEL, data or chats(), client=client_at(server, base_url), clock=clock, **options
    )
    report = engine.finetune()
    return server.asked("POST", "/jobs")[-1], report


def key_of(asked):
    key = asked["metadata"].pop(RUN_KEY)
    assert len(key) == 32
    return asked


def test_openai_gets_a_method_and_the_run_key():
    with JobsServer() as server:
        asked, report = asked_of(server, OPENAI, **FEATURES)
        [upload] = server.asked("POST", "/files")
    method = {"type": "supervised", "supervised": {"hyperparameters": FEATURES["hyperparameters"]}}
    assert key_of(asked) == {
        "model": MODEL, "training_file": "file-1", "suffix": "fees", "seed": 7,
        "metadata": {}, "method": method,
    }  # fmt: skip
    assert upload["purpose"] == "fine-tune"
    assert upload["name"].endswith(".jsonl")
    assert report.notes[0].startswith("OpenAI shuts its tunable models")


def test_openai_gets_nothing_that_was_not_asked_for():
    with JobsServer() as server:
        asked, _ = asked_of(server, OPENAI)
    assert key_of(asked) == {"model": MODEL, "training_file": "file-1", "metadata": {}}


def test_nebius_gets_hyperparameters_at_the_top():
    lora = {"n_epochs": 3, "lora": True, "lora_r": 16, "learning_rate": 2e-5}
    with JobsServer(lean=True, faults={"create": ["drop_after"]}) as server:
        asked, report = asked_of(server, NEBIUS, hyperparameters=lora, seed=1)
        assert len(server.jobs) == 1
    assert key_of(asked) == {
        "model": MODEL, "training_file": "file-1", "metadata": {}, "seed": 1,
        "hyperparameters": lora,
    }  # fmt: skip
    assert report.notes == []


def test_nebius_gets_preferences_as_a_method():
    with JobsServer() as server:
        asked, _ = asked_of(server, NEBIUS, preferences(), method="dpo")
    assert asked["method"] == {"type": "dpo", "dpo": {}}


def test_azure_gets_its_paths_key_version_and_training_type():
    with JobsServer(file_looks=1) as server:
        engine = AzureOpenAIFinetuneEngine(
            MODEL, chats(), client=server.azure(), clock=scaled(),
            extra_body={"trainingType": "GlobalStandard"}, hyperparameters={"n_epochs": 1},
        )  # fmt: skip
        report = engine.finetune()
        paths = {path for _, path, _ in server.seen}
        assert all(path.startswith("/openai/") for path in paths)
        assert server.headers[-1]["api-key"] == server.key
        asked = key_of(server.asked("POST", "/jobs")[-1])
        assert asked == {
            "model": MODEL, "training_file": "file-1", "metadata": {},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
            "trainingType": "GlobalStandard",
        }  # fmt: skip
        assert "az cognitiveservices account deployment create" in report.notes[-1]
        with pytest.raises(ValueError, match=r"Azure serves deployments, not models\. Deploy ft:"):
            engine.get_finetuned_model()


def test_azure_is_measured_once_it_is_deployed():
    from llama_index.core.llms import MockLLM

    with JobsServer() as server:

        def knows(llm):
            return [float("my-tuned" in llm.complete("x").text)] * 20

        engine = AzureOpenAIFinetuneEngine(
            MODEL, chats(), client=server.azure(), clock=scaled(), evaluate=knows,
            base_llm=MockLLM(),
        )  # fmt: skip
        report = engine.finetune()
        assert report.verdict == "base kept, not measured"
        assert "nothing was measured yet: deploy the tuned model" in report.reason
        with pytest.raises(NotFinetunedError, match="on Azure with deployment="):
            engine.get_finetuned_model(engine="my-tuned")
        engine.deployment = "my-tuned"
        assert engine.finetune().accepted
        llm = engine.get_finetuned_model()
        assert llm.complete("hi").text == "my-tuned says hello"
        assert llm.metadata.context_window == 1_047_576
        assert engine.get_finetuned_model(engine="other").complete("x").text.startswith("other")
        assert engine.get_finetuned_model("third").complete("x").text.startswith("third")
    assert len(server.jobs) == 1


def test_azure_deploys_through_its_management_address():
    with JobsServer() as server:
        engine = AzureOpenAIFinetuneEngine(MODEL, chats(), client=server.azure(), clock=scaled())
        engine.finetune()
        there = server.base_url.removesuffix("/v1")
        reply = engine.deploy_finetuned_model(
            server.key, "sub", "group", "resource", "my tuned", management_url=there
        )
        verb, path, body = server.seen[-1]
        assert engine.get_finetuned_model().complete("x").text == "my tuned says hello"
        with pytest.raises(
            HostedError, match=r"cannot deploy: 401: .*provided: Bearer .key."
        ) as no:
            engine.deploy_finetuned_model("wrong-token", "s", "g", "r", management_url=there)
    assert "wrong-token" not in str(no.value)
    assert reply["properties"]["provisioningState"] == "Succeeded"
    assert (verb, path.rsplit("/accounts/")[1]) == ("PUT", "resource/deployments/my tuned")
    assert body["properties"]["model"] == {
        "format": "OpenAI", "name": f"ft:{MODEL}:org::ftjob-1", "version": "1",
    }  # fmt: skip


def test_azure_reads_its_own_environment(monkeypatch):
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    engine = AzureOpenAIFinetuneEngine(MODEL, chats())
    with pytest.raises(ValueError, match="set AZURE_OPENAI_ENDPOINT"):
        engine.submit()
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="set AZURE_OPENAI_API_KEY"):
        engine.submit()
    with JobsServer() as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.base_url.removesuffix("/v1"))
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", server.key)
        assert engine.submit().id == "ftjob-1"


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        (OPENAI, "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://api.openai.com.evil.org/v1", "other"),
        ("https://me.openai.azure.com/openai/v1/", "azure"),
        (NEBIUS, "other"),
        ("http://127.0.0.1:8000/v1", "other"),
    ],
)
def test_the_server_is_told_by_its_address(base_url, kind):
    assert server_of(openai.OpenAI(base_url=base_url, api_key="k")).kind == kind


def test_an_address_is_shown_without_user_password_and_query():
    client = openai.OpenAI(base_url="https://me:secret@host.org:8443/v1?key=secret", api_key="k")
    assert server_of(client).address == "https://host.org:8443/v1"


def at(day):
    return Clock(scaled().now, scaled().sleep, lambda: day)


def test_openai_takes_no_new_jobs_after_its_closing_date():
    with JobsServer() as server:
        client = client_at(server, OPENAI)
        engine = OpenAIFinetuneEngine(MODEL, chats(), client=client, clock=at(date(2027, 1, 6)))
        with pytest.raises(
            HostedEndedError,
            match=r"no new fine-tuning jobs since 6 January 2027.*HuggingFaceFinetuneEngine",
        ):
            engine.finetune()
        assert not server.files
        before = OpenAIFinetuneEngine(MODEL, chats(), client=client, clock=at(date(2027, 1, 5)))
        assert before.finetune().accepted


def test_openai_s_tuned_models_end_after_theirs_and_others_go_on():
    with JobsServer() as server:
        late = at(date(2027, 1, 14))
        client = client_at(server, OPENAI)
        OpenAIFinetuneEngine(MODEL, chats(), client=client, clock=at(date(2027, 1, 5))).submit()
        job = {"start_job_id": "ftjob-1"}
        engine = OpenAIFinetuneEngine(MODEL, client=client, clock=at(date(2027, 1, 13)), **job)
        engine.finetune()
        assert engine.get_finetuned_model().model.startswith("ft:")
        engine = OpenAIFinetuneEngine(MODEL, client=client, clock=late, **job)
        engine.finetune()
        with pytest.raises(HostedEndedError, match="shut down its fine-tuned models since 14 Jan"):
            engine.get_finetuned_model()
        other = OpenAIFinetuneEngine(MODEL, chats(), client=client_at(server, NEBIUS), clock=late)
        other.finetune()
        assert other.get_finetuned_model().api_base == NEBIUS.rstrip("/")
