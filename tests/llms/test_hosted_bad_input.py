"""Bad input is told clearly, before anything is sent, and without a key."""

import io
import json
import logging
import re
import traceback

import openai
import pytest
from llama_index.core.llms import MockLLM

from llama_index.tuning import MistralAIFinetuneEngine, OpenAIFinetuneEngine
from llama_index.tuning.errors import DatasetError, HostedEndedError, HostedError
from llama_index.tuning.llms.hosted.calls import Clock
from tests.jobs_server import JobsServer

from .hosted_parts import MODEL, chats, engine_on, preferences, scaled, train_file

GOOD = json.dumps(next(chats().lines("openai")))


def line(*messages, **fields):
    return json.dumps({"messages": list(messages), **fields})


USER = {"role": "user", "content": "q"}
ARGUMENTS = [
    ({"base_model": ""}, "base_model must be a non-empty name, got ''"),
    ({"data_path": None}, "data_path is needed, or start_job_id of a job that exists"),
    ({"method": "sft"}, "unknown method 'sft'; choose one of: supervised, dpo"),
    ({"data_path": 7}, "data_path must be a path or a ChatDataset, got int"),
    ({"suffix": "s" * 65}, "suffix must have at most 64 characters, got 65"),
    ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
    ({"hyperparameters": {"n_epochs": 0}}, "n_epochs must be a whole number >= 1, got 0"),
    ({"hyperparameters": {"n_epochs": 2.5}}, "n_epochs must be a whole number >= 1"),
    ({"extra_body": {"model": "x"}}, "extra_body must not hold 'model': the engine sets it"),
    ({"timeout": 0}, "timeout must be a number > 0, got 0"),
    ({"poll_interval": -1.0}, "poll_interval must be a number > 0, got -1.0"),
    ({"accept": "never"}, "unknown accept 'never'; choose one of: gain, always"),
    ({"protect": {"old": list}}, "protect needs evaluate"),
    ({"evaluate": 3}, "evaluate must be a function of an LLM, got 3"),
    ({"evaluate": list, "protect": {"old": 3}}, "protect['old'] must be a function of an LLM"),
    ({"evaluate": list, "protect": {"score": list}}, "the name 'score' is taken by evaluate's"),
    ({"min_examples": "a"}, "min_examples must be a whole number >= 1, got 'a'"),
    ({"timeout": "a"}, "timeout must be a number > 0, got 'a'"),
    ({"poll_interval": None}, "poll_interval must be a number > 0, got None"),
    ({"hyperparameters": [1]}, "hyperparameters must map names to values, got list"),
    ({"extra_body": [1]}, "extra_body must map names to values, got list"),
    ({"suffix": 5}, "suffix must be a text, got 5"),
    ({"seed": True}, "seed must be a whole number >= 0, got True"),
    ({"base_url": 5}, "base_url must be a text, got 5"),
    ({"base_url": ""}, "base_url must be a text, got an empty one"),
    ({"deployment": 5}, "deployment must be a text, got 5"),
    ({"start_job_id": 5}, "start_job_id must be a text, got 5"),
    ({"base_llm": MockLLM()}, "base_llm needs evaluate: without it nothing is compared"),
    ({"base_llm": "gpt", "evaluate": list}, "base_llm must be an LLM of LlamaIndex, got 'gpt'"),
    ({"peers": {"teacher": MockLLM()}}, "peers needs evaluate"),
    ({"evaluate": list, "protect": [1]}, "protect must map names to functions, got list"),
    ({"client": object()}, "client must be an openai.OpenAI or openai.AzureOpenAI, got object"),
    ({"client": openai.AsyncOpenAI(api_key="k")}, "client must be synchronous"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_arguments_are_checked_when_the_engine_is_made(arguments, message):
    given = {"base_model": MODEL, "data_path": chats(), **arguments}
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        OpenAIFinetuneEngine(**given)


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="n_epochs"):
        OpenAIFinetuneEngine(MODEL, chats(), n_epochs=3)


FILES = [
    ("", "is empty"),
    (GOOD[:-9], "data_path: line 1 is not valid JSON"),
    ("[1]", "data_path: line 1 must be an object, got list"),
    (f"{GOOD}\n" * 9, "data_path: 9 examples, at least 10 are needed; min_examples= sets another"),
    (line(USER), "line 1, messages[0]: the last message must be the assistant's"),
    (line(USER, {"role": "assistant", "content": ""}), "line 1, messages[1].content is empty"),
    (
        f"{GOOD}\n" + line(USER, {"role": "bot", "content": "a"}),
        "line 2, messages[1].role must be one of system, developer, user, assistant, tool",
    ),
    (
        line(USER, {"role": "assistant", "content": "a", "function_call": {"name": "f"}}),
        "line 1, messages[1]: 'function_call' cannot be trained on",
    ),
    (
        line({"role": "tool", "tool_call_id": "a", "content": "5"}),
        "line 1, messages[0].tool_call_id 'a' answers no open call",
    ),
    (line(USER, {"role": "assistant", "content": "a"}, tools=[{}]), "line 1, tools[0] must have"),
    ('{"prompt": "q", "completion": "a"}', "line 1"),
    (f"{GOOD}\n" * 11 + json.dumps(next(preferences().lines("openai-preference"))),
     "must have the format 'openai':\n  - line 12 has the format 'openai-preference'"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), FILES)
def test_faults_of_a_file_are_told_by_line_and_field(tmp_path, content, message):
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    with JobsServer() as server:
        with pytest.raises(DatasetError) as caught:
            engine_on(server, path).finetune()
        assert message in str(caught.value)
        assert not server.seen


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "data_path: line 1 is not valid"), (b"\xff", "data_path: line 1 is not valid"),
     (b"\n3", "data_path: line 2 must be an object, got int")],
)  # fmt: skip
def test_without_validation_lines_are_still_json(tmp_path, content, message):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with JobsServer() as server:
        with pytest.raises(DatasetError, match=message):
            engine_on(server, path, validate_json=False).finetune()
        path.write_text('{"prompt": "q", "completion": "a"}\n')
        assert engine_on(server, path, validate_json=False).finetune().accepted
    assert len(server.files) == 1


DATA = [
    ("missing.jsonl", {}, FileNotFoundError, "data_path: there is no file 'missing.jsonl'"),
    (chats(9), {}, DatasetError, "data_path: 9 examples, at least 10 are needed"),
    (chats(), {"method": "dpo"}, DatasetError, "line 1, rejected: the preference format needs a"),
    (chats(), {"validation_data": "no.jsonl"}, FileNotFoundError, "validation_data: there is no"),
]


@pytest.mark.parametrize(("data", "options", "kind", "message"), DATA)
def test_data_is_checked_before_anything_is_sent(data, options, kind, message, tmp_path):
    with JobsServer() as server:
        with pytest.raises(kind) as caught:
            engine_on(server, data, **options).finetune()
        assert message in str(caught.value)
        assert not server.seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "there is no API key: set OPENAI_API_KEY, or pass api_key= or client="),
        ({"base_url": "https://api.other.org/v1"}, "api_key is needed for api.other.org"),
        (
            {"base_url": "https://api.other.org/v1", "api_key": "sk-1\n"},
            "api_key holds white space",
        ),
        ({"api_key": "schlüssel"}, "api_key holds white space"),
        ({"base_url": "api.other.org"}, "base_url must start with http:// or https://"),
        ({"client": openai.OpenAI(api_key="k"), "api_key": "k"}, "pass either client=, or base_ur"),
    ],
)
def test_a_missing_key_or_two_ways_are_told(arguments, message, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=re.escape(message)):
        OpenAIFinetuneEngine(MODEL, chats(), **arguments).finetune()


def test_openai_s_key_is_not_sent_to_another_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-secret")
    with JobsServer() as server:
        with pytest.raises(ValueError, match="OPENAI_API_KEY is not sent to another server"):
            OpenAIFinetuneEngine(MODEL, chats(), base_url=server.base_url).finetune()
        with pytest.raises(ValueError, match="OPENAI_API_KEY is not sent to another server"):
            OpenAIFinetuneEngine(MODEL, chats(), base_url=server.base_url, api_key="").finetune()
        assert not server.seen
        own = {"base_url": server.base_url, "api_key": server.key, "clock": scaled()}
        assert OpenAIFinetuneEngine(MODEL, chats(), **own).finetune().accepted


def test_a_server_that_cannot_be_reached_is_told():
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="k")
    engine = OpenAIFinetuneEngine(MODEL, chats(), client=client, clock=scaled())
    with pytest.raises(HostedError, match=r"http://127.0.0.1:9/v1 cannot be reached: .*ConnectErr"):
        engine.finetune()


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_refusal_is_told_in_the_servers_words_at_once(status):
    words = "The model `nobody/knows` is not available for fine-tuning"
    with JobsServer(faults={"create": [f"{status}:{words}"] * 9}) as server:
        engine = engine_on(server, chats(), model="nobody/knows")
        with pytest.raises(
            HostedError, match=f"cannot create the job: .* {status}: The model"
        ) as e:
            engine.finetune()
        assert e.value.status == status
        assert len(server.asked("POST", "/jobs")) == 1


def test_an_unknown_model_is_told_when_it_is_first_asked():
    def asks(llm):
        return [float(bool(llm.complete("x").text))]

    with JobsServer(faults={"chat": ["404:The model `m` does not exist"] * 9}) as server:
        with pytest.raises(openai.NotFoundError, match="The model `m` does not exist"):
            engine_on(server, chats(), model="m", evaluate=asks).finetune()
        assert not server.files


def test_mistral_says_what_replaced_it():
    for make in (MistralAIFinetuneEngine, MistralAIFinetuneEngine.from_finetuning_handler):
        with pytest.raises(HostedEndedError, match=r"HuggingFaceFinetuneEngine.*OpenAIFinetuneEng"):
            make("open-mistral-7b", "train.jsonl")


def test_the_key_is_in_no_error_log_or_file(tmp_path):
    key = "sk-very-secret-key"
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    loggers = [logging.getLogger("llama_index.tuning"), logging.getLogger("openai")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    path = train_file(tmp_path)
    try:
        with JobsServer(faults={"create": ["500"] * 2}) as server:
            engine = engine_on(server, path, client=server.client(api_key=key))
            with pytest.raises(HostedError) as caught:  # the server repeats the key it was given
                engine.finetune()
            server.key = key
            good = engine_on(server, path, client=server.client(api_key=key))
            report = good.finetune()
            server.jobs["ftjob-1"] |= {"status": "failed", "error": {"code": "c", "message": key}}
            job = engine_on(server, None, start_job_id="ftjob-1", client=server.client(api_key=key))
            with pytest.raises(HostedError) as failed:
                job.finetune()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
    assert "Incorrect API key provided: Bearer [key]." in str(caught.value)
    shown = [
        *("".join(traceback.format_exception(error.value)) for error in (caught, failed)),
        said.getvalue(), repr(engine), repr(good), repr(good._server()), str(report),
        json.dumps(report.to_dict()), *(p.read_text() for p in tmp_path.iterdir()),
    ]  # fmt: skip
    assert not [text for text in shown if key in text]


def test_the_default_clock_is_the_real_one():
    assert OpenAIFinetuneEngine(MODEL, chats()).clock == Clock()
