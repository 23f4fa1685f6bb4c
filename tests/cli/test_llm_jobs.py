import json

import pytest

from llama_index.tuning.cli.app import run
from tests.jobs_server import JobsServer
from tests.llms.hosted_parts import MODEL, chats


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    chats().save_jsonl(tmp_path / "train.jsonl")
    return tmp_path / "train.jsonl"


@pytest.fixture
def server(monkeypatch):
    with JobsServer(stages=("running",)) as server:
        monkeypatch.setenv("TEST_KEY", server.key)
        yield server


def there(server):
    return ["--base-url", server.base_url, "--api-key-env", "TEST_KEY"]


def test_a_job_is_made_once_and_followed_to_its_end(server, data, capsys):
    command = ["llm", "jobs", "create", str(data), "--model", MODEL, *there(server), "--json"]
    more = ["--hyperparameter", "n_epochs=3", "--hyperparameter", "lora=true", "--seed", "3",
            "--extra-body", "tags=x"]  # fmt: skip
    for _ in range(2):
        assert run([*command, *more]) == 0
        assert json.loads(capsys.readouterr().out)["id"] == "ftjob-1"
    assert (len(server.files), len(server.jobs)) == (1, 1)
    [asked] = server.asked("POST", "/jobs")
    assert asked["hyperparameters"] == {"n_epochs": 3, "lora": True}
    assert (asked["seed"], asked["tags"]) == (3, "x")
    assert run(["llm", "jobs", "follow", "ftjob-1", *there(server)]) == 0
    shown = capsys.readouterr().out
    assert "accepted, not measured" in shown
    assert f"ft:{MODEL}:org::ftjob-1" in shown
    assert run(["llm", "jobs", "status", "ftjob-1", *there(server)]) == 0
    assert "status: succeeded" in capsys.readouterr().out


def test_a_job_is_cancelled(data, capsys, monkeypatch):
    with JobsServer(stages=(("queued", 1e9),)) as server:
        monkeypatch.setenv("TEST_KEY", server.key)
        create = ["llm", "jobs", "create", str(data), "--model", MODEL, *there(server)]
        assert run(create) == 0
        capsys.readouterr()
        assert run(["llm", "jobs", "cancel", "ftjob-1", *there(server), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "cancelled"
        assert run(["llm", "jobs", "follow", "ftjob-1", *there(server), "--json"]) == 1
        assert capsys.readouterr().err == "error: job ftjob-1 was cancelled\n"


def test_an_estimate_sends_nothing(server, data, capsys):
    command = ["llm", "jobs", "create", str(data), "--model", MODEL, *there(server), "--estimate"]
    assert run([*command, "--price", "3", "--hyperparameter", "n_epochs=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["examples"], found["epochs"]) == (12, 2)
    assert found["cost"] == found["trained_tokens"] * 3 / 1e6
    assert run(command) == 0
    assert "12 examples" in capsys.readouterr().out
    assert not server.seen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "{data}"], "Missing option '--model'"),
        (["create", "{data}", "--model", "m"], "there is no API key"),
        (["create", "{data}", "--model", "m", "--base-url", "http://a.b/v1"], "api_key is needed"),
        (["create", "{data}", "--model", "m", "--api-key-env", "NOT_SET"], "names NOT_SET, which"),
        (
            ["create", "{data}", "--model", "m", "--hyperparameter", "x"],
            "--hyperparameter must be NAME=VALUE",
        ),
        (["create", "{data}", "--model", "m", "--method", "x"], "unknown method 'x'"),
        (
            ["create", "{data}", "--model", "m", "--method", "dpo"],
            "must have the format 'openai-preference'",
        ),
        (["status", "ftjob-1", "--azure"], "set AZURE_OPENAI_ENDPOINT"),
    ],
)
def test_an_error_is_one_line(data, capsys, arguments, words, monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    assert run(["llm", "jobs", *(text.format(data=data) for text in arguments)]) == 1
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.err.count("\n") == 1
