"""The embedded pretrained chat model: unpacked, tuned, served with tools."""

from __future__ import annotations

import pytest
from llama_index.core.llms import ChatMessage

from llama_index.tuning import HuggingFaceFinetuneEngine, TunedHuggingFaceLLM
from llama_index.tuning.demo import smollm2_folder
from llama_index.tuning.llms import HuggingFaceOptions
from llama_index.tuning.llms.serving.template import ChatTemplate
from tests.llms.conftest import fees

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # PEFT's, about transformers 6
]


def served(folder):
    """The model as it comes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TunedHuggingFaceLLM(model, tokenizer, model_name="smollm2", max_new_tokens=20)


def test_it_is_unpacked_once_and_knows_a_capital():
    folder = smollm2_folder()
    written = (folder / "model.safetensors").stat().st_mtime
    assert smollm2_folder() == folder
    assert (folder / "model.safetensors").stat().st_mtime == written
    llm = served(folder)
    said = llm.chat([ChatMessage(role="user", content="What is the capital of France?")])
    assert "Paris" in str(said.message.content)


def test_its_own_template_knows_no_tools_and_the_other_one_does():
    from transformers import AutoTokenizer

    plain, tools = (smollm2_folder(tools=given) for given in (False, True))
    assert not ChatTemplate(AutoTokenizer.from_pretrained(plain)).supports_tools
    assert ChatTemplate(AutoTokenizer.from_pretrained(tools)).supports_tools


def test_a_few_steps_teach_it_a_rule_that_it_did_not_know(tmp_path):
    options = HuggingFaceOptions(device="cpu", max_steps=6, learning_rate=1e-3, held_out=0.2)
    engine = HuggingFaceFinetuneEngine(
        fees(60), smollm2_folder(), model_output_path=tmp_path / "tuned", options=options
    )
    report = engine.finetune()
    assert report.accepted, str(report)
