import logging
import sys

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike

from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.llms.hosted.model import DEFAULT_CONTEXT, hosted_llm
from tests.jobs_server import JobsServer

from .hosted_parts import MODEL

AZURE = {"azure_endpoint": "https://me.openai.azure.com", "api_version": "2024-10-21"}


def client(**options):
    return openai.OpenAI(**{"base_url": "http://127.0.0.1:1/v1", "api_key": "k-client", **options})


@pytest.mark.parametrize(
    ("name", "base", "kind", "window"),
    [
        (f"ft:{MODEL}:org::id", None, OpenAI, 1_047_576),
        (f"ft:{MODEL}:org::id:ckpt-step-20", None, OpenAI, 1_047_576),
        (f"{MODEL}.ft-abc", None, OpenAILike, 1_047_576),
        ("ft:acme-1:org::id", None, OpenAILike, DEFAULT_CONTEXT),
        ("acme/qwen3-8b-tuned", "gpt-4o-mini", OpenAILike, 128_000),
        ("acme/qwen3-8b-tuned", "acme/qwen3-8b", OpenAILike, DEFAULT_CONTEXT),
    ],
)
def test_each_name_gets_the_llm_that_knows_it(name, base, kind, window):
    llm = hosted_llm(client(), name, base_model=base)
    assert type(llm) is kind
    assert llm.metadata.context_window == window
    assert llm.metadata.is_chat_model
    assert llm.metadata.is_function_calling_model
    assert (llm.model, llm.api_base, llm.api_key) == (name, "http://127.0.0.1:1/v1", "k-client")


def test_an_unknown_context_window_is_said_and_can_be_given(caplog):
    with caplog.at_level(logging.WARNING):
        hosted_llm(client(), "acme/a")
    assert "the context window of acme/a is unknown and taken as 8192 tokens" in caplog.text
    caplog.clear()
    llm = hosted_llm(client(), "acme/a", context_window=32_000, temperature=0.7, api_key="other")
    assert not caplog.text
    assert (llm.context_window, llm.temperature, llm.api_key) == (32_000, 0.7, "other")


def test_no_argument_is_dropped_in_silence():
    llm = hosted_llm(client(), f"ft:{MODEL}:org::id", context_window=32_000)
    assert (type(llm), llm.metadata.context_window) == (OpenAILike, 32_000)
    for name in (f"ft:{MODEL}:org::id", "acme/a"):
        with pytest.raises(TypeError, match=r"no argument 'temperatur'; did you mean 'temperatu"):
            hosted_llm(client(), name, temperatur=0.3)


def test_an_environment_s_key_never_stands_in_for_the_client_s(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    by_function = client(api_key=lambda: "k-fresh")
    with pytest.raises(ValueError, match="the client has no fixed key: pass api_key="):
        hosted_llm(by_function, "acme/a")
    assert hosted_llm(by_function, "acme/a", api_key="k").api_key == "k"


@pytest.mark.parametrize("missing", ["openai", "openai_like"])
def test_a_missing_llm_package_names_the_extra(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, f"llama_index.llms.{missing}", None)
    with pytest.raises(MissingExtraError, match=r"get_finetuned_model\(\) needs .*\[openai\]"):
        hosted_llm(client(), "acme/a")


def test_azure_s_address_with_openai_s_client_asks_the_deployment():
    llm = hosted_llm(
        client(base_url="https://me.openai.azure.com/openai/v1/"), MODEL, deployment="mine"
    )
    assert type(llm) is OpenAILike
    assert (llm.model, llm.api_base) == ("mine", "https://me.openai.azure.com/openai/v1")


def test_azure_s_client_without_its_llm_package_gets_an_openai_like(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_index.llms.azure_openai", None)
    azure = openai.AzureOpenAI(api_key="k-client", **AZURE)
    llm = hosted_llm(azure, f"{MODEL}.ft-abc", deployment="mine")
    assert type(llm) is OpenAILike
    assert (llm.model, llm.api_base) == ("mine", "https://me.openai.azure.com/openai/v1")
    assert llm.context_window == 1_047_576
    entra = openai.AzureOpenAI(azure_ad_token_provider=lambda: "t", **AZURE)
    with pytest.raises(ImportError, match=r"llama-index-tuning\[azure\]"):
        hosted_llm(entra, MODEL, deployment="mine")


def test_azure_s_client_gets_azure_s_llm_where_it_is_installed():
    azure_openai = pytest.importorskip("llama_index.llms.azure_openai")
    azure = openai.AzureOpenAI(api_key="k-client", **AZURE)
    llm = hosted_llm(azure, f"{MODEL}.ft-abc", deployment="mine", temperature=0.5)
    assert type(llm) is azure_openai.AzureOpenAI
    assert (llm.engine, llm.model, llm.temperature) == ("mine", MODEL, 0.5)
    assert (llm.azure_endpoint, llm.api_version) == (AZURE["azure_endpoint"], AZURE["api_version"])
    assert type(hosted_llm(azure, "acme/a", deployment="mine")) is OpenAILike
    entra = openai.AzureOpenAI(azure_ad_token_provider=lambda: "t", **AZURE)
    assert hosted_llm(entra, MODEL, deployment="mine").use_azure_ad
    with JobsServer() as server:
        llm = hosted_llm(server.azure(), MODEL, deployment="mine")
        assert llm.complete("x").text == "mine says hello"


async def test_the_llm_answers_in_every_way():
    with JobsServer() as server:
        llm = hosted_llm(server.client(), "acme/a", context_window=4096)
        asked = [ChatMessage(role="user", content="hi")]
        assert llm.chat(asked).message.content == "acme/a says hello"
        assert (await llm.achat(asked)).message.content == "acme/a says hello"
        assert "".join(c.delta for c in llm.stream_chat(asked)).strip() == "acme/a says hello"
        stream = await llm.astream_chat(asked)
        assert "".join([c.delta async for c in stream]).strip() == "acme/a says hello"
