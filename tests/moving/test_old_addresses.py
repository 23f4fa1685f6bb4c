"""Every name that llama-index-finetuning 0.4.2 had, at its address with the package changed."""

import importlib
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import llama_index.tuning as tuning
from llama_index.tuning.errors import DatasetError, HostedEndedError

OLD = {
    "": "OpenAIFinetuneEngine AzureOpenAIFinetuneEngine generate_qa_embedding_pairs "
    "EmbeddingQAFinetuneDataset SentenceTransformersFinetuneEngine EmbeddingAdapterFinetuneEngine "
    "generate_cohere_reranker_finetuning_dataset CohereRerankerFinetuneEngine "
    "MistralAIFinetuneEngine",
    "azure_openai": "AzureOpenAIFinetuneEngine",
    "azure_openai.base": "AzureOpenAIFinetuneEngine",
    "callbacks": "BaseFinetuningHandler OpenAIFineTuningHandler MistralAIFineTuningHandler",
    "callbacks.finetuning_handler": "BaseFinetuningHandler OpenAIFineTuningHandler "
    "MistralAIFineTuningHandler",
    "cross_encoders": "CrossEncoderFinetuneEngine",
    "cross_encoders.cross_encoder": "CrossEncoderFinetuneEngine",
    "cross_encoders.dataset_gen": "CrossEncoderFinetuningDatasetSample "
    "DEFAULT_QUERY_GEN_SYSTEM_PROMPT DEFAULT_QUERY_GEN_USER_PROMPT "
    "DEFAULT_QUERY_DOC_RELEVANCE_PROMPT generate_synthetic_queries_over_documents "
    "generate_ce_fine_tuning_dataset",
    "embeddings": "EmbeddingAdapterFinetuneEngine SentenceTransformersFinetuneEngine",
    "embeddings.adapter": "EmbeddingAdapterFinetuneEngine",
    "embeddings.common": "EmbeddingQAFinetuneDataset DEFAULT_QA_GENERATE_PROMPT_TMPL "
    "generate_qa_embedding_pairs",
    "embeddings.sentence_transformer": "SentenceTransformersFinetuneEngine",
    "mistralai": "MistralAIFinetuneEngine",
    "mistralai.base": "MistralAIFinetuneEngine",
    "mistralai.utils": "reformat_jsonl",
    "openai": "OpenAIFinetuneEngine",
    "openai.base": "OpenAIFinetuneEngine",
    "openai.validate_json": "validate_json",
    "rerankers": "CohereRerankerFinetuneEngine CohereRerankerFinetuneDataset",
    "rerankers.cohere_reranker": "CohereRerankerFinetuneEngine",
    "rerankers.dataset_gen": "CohereRerankerFinetuneDataset generate_hard_negatives "
    "generate_cohere_reranker_finetuning_dataset",
    "types": "BaseLLMFinetuneEngine BaseEmbeddingFinetuneEngine BaseCrossEncoderFinetuningEngine "
    "BaseCohereRerankerFinetuningEngine",
}
GONE = {
    "callbacks.finetuning_handler": "GradientAIFineTuningHandler",
    "embeddings.adapter_utils": "MyMultipleNegativesRankingLoss train_model",
    "embeddings.common": "load_existing_data",
    "gradient": "GradientFinetuneEngine",
    "gradient.base": "GradientFinetuneEngine",
    "rerankers.dataset_gen": "generate_embeddings get_query_context_lists",
}


def address(module):
    return f"llama_index.tuning.{module}".removesuffix(".")


def test_the_page_tells_of_every_old_name_and_its_code_runs():
    page = (Path(__file__).parents[2] / "docs" / "moving_over.md").read_text(encoding="utf-8")
    table = page.split("## Every old name")[1]
    for module in (OLD, GONE):
        for names in module.values():
            assert not [name for name in names.split() if f"`{name}`" not in table]
    [block] = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(block, {})


def in_a_new_process(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", OLD)
def test_the_old_names_are_found_at_their_old_addresses(module):
    for name in OLD[module].split():
        names = {}
        exec(f"from {address(module)} import {name}", names)
        assert names[name].__doc__


@pytest.mark.parametrize("module", GONE)
def test_what_is_gone_says_what_to_use(module):
    for name in GONE[module].split():
        with pytest.raises(ImportError, match=rf"{name} is gone: .*[Uu]?se?"):
            exec(f"from {address(module)} import {name}", {})


def test_a_name_is_the_same_class_at_both_addresses():
    from llama_index.tuning.callbacks import OpenAIFineTuningHandler
    from llama_index.tuning.types import BaseCrossEncoderFinetuningEngine

    assert OpenAIFineTuningHandler is tuning.OpenAIFineTuningHandler
    assert issubclass(tuning.CrossEncoderFinetuneEngine, BaseCrossEncoderFinetuningEngine)


def test_our_own_names_stay_beside_the_old_ones():
    from llama_index.tuning.embeddings.adapter import AdapterOptions, options
    from llama_index.tuning.rerankers import LightReranker, dataset_gen

    assert AdapterOptions is options.AdapterOptions
    assert LightReranker is tuning.LightReranker
    assert "generate_hard_negatives" in dir(dataset_gen)
    assert "generate_embeddings" not in dir(dataset_gen)


def test_each_way_to_import_works_in_a_new_process():
    for code in (
        "import llama_index.tuning.embeddings.common as c; print(c.EmbeddingQAFinetuneDataset)",
        "import llama_index.tuning.openai.base; print(llama_index.tuning.openai.base.__doc__)",
        "from llama_index.tuning.callbacks import *; print(OpenAIFineTuningHandler)",
        "from llama_index.tuning import cross_encoders; print(cross_encoders.__name__)",
        "from importlib import import_module as i; print(i('llama_index.tuning.types').__all__)",
    ):
        assert in_a_new_process(code), code


def test_an_old_address_loads_what_is_asked_for_and_no_more():
    code = (
        "import sys, llama_index.tuning.openai, llama_index.tuning.cross_encoders.dataset_gen\n"
        "print(*sorted({'torch', 'openai', 'llama_index.core'} & set(sys.modules)), 'nothing')"
    )
    assert in_a_new_process(code) == "nothing"


def test_unknown_modules_and_names_are_errors_as_ever():
    with pytest.raises(ModuleNotFoundError, match=r"llama_index\.tuning\.callback'"):
        importlib.import_module("llama_index.tuning.callback")
    with pytest.raises(ImportError, match="cannot import name 'OpenAIHandler'"):
        exec("from llama_index.tuning.callbacks import OpenAIHandler", {})
    assert find_spec("llama_index.tuning.callbacks").origin == "llama-index-finetuning"


def test_ended_services_say_so_when_they_are_used():
    from llama_index.tuning.mistralai.base import MistralAIFinetuneEngine
    from llama_index.tuning.rerankers import CohereRerankerFinetuneEngine

    for engine in (MistralAIFinetuneEngine, CohereRerankerFinetuneEngine):
        with pytest.raises(HostedEndedError, match="Use "):
            engine("train.jsonl")


def test_validate_json_names_each_faulty_line(tmp_path):
    from llama_index.tuning.openai.validate_json import validate_json

    path = tmp_path / "train.jsonl"
    good = '{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}'
    path.write_text(f"{good}\n{good}\n")
    validate_json(str(path))
    path.write_text(f"{good}\n" + good.replace('"user"', '"usr"') + "\n")
    with pytest.raises(DatasetError, match=r"line 2, messages\[0\]"):
        validate_json(str(path))


def test_reformat_jsonl_writes_tools_for_functions(tmp_path):
    from llama_index.tuning import ChatDataset
    from llama_index.tuning.mistralai.utils import reformat_jsonl

    call = {"name": "fee", "arguments": "{}"}
    messages = [
        {"role": "user", "content": "Fee?"},
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "fee", "content": "5"},
        {"role": "assistant", "content": "5 euros."},
    ]
    functions = [{"name": "fee", "parameters": {"type": "object", "properties": {}}}]
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"messages": messages, "functions": functions}) + "\n")
    reformat_jsonl(path)
    [example] = ChatDataset.from_jsonl(path).examples
    assert example.tools[0]["function"] == functions[0]
    assert example.messages[1]["tool_calls"][0]["function"] == call
    assert example.messages[2]["tool_call_id"] == example.messages[1]["tool_calls"][0]["id"]
    again = path.read_text()
    reformat_jsonl(path)
    assert path.read_text() == again
    path.write_text('{"messages": [5]}\n')
    with pytest.raises(DatasetError, match="line 1 does not hold"):
        reformat_jsonl(path)
    assert path.read_text() == '{"messages": [5]}\n'


def test_a_handler_of_ones_own_builds_on_the_base_class(tmp_path):
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.llms import MockLLM

    from llama_index.tuning.callbacks import BaseFinetuningHandler, MistralAIFineTuningHandler

    class Lines(BaseFinetuningHandler):
        def save_finetuning_events(self, path):
            events = self.get_finetuning_events().values()
            path.write_text("".join(f"{event['response'].content}\n" for event in events))

    own, mistral = Lines(), MistralAIFineTuningHandler()
    MockLLM(callback_manager=CallbackManager([own, mistral])).complete("Fee?")
    own.save_finetuning_events(tmp_path / "own.txt")
    assert (tmp_path / "own.txt").read_text() == "Fee?\n"
    with pytest.warns(UserWarning, match="1 examples"):
        mistral.save_finetuning_events(tmp_path / "mistral.jsonl")
    assert '"content": "Fee?"' in (tmp_path / "mistral.jsonl").read_text()
    with pytest.raises(TypeError, match="abstract"):
        BaseFinetuningHandler()
