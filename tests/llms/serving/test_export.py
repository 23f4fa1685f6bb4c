"""A tuned LLM for other servers: merged, GGUF by llama.cpp's converter, Ollama."""

from __future__ import annotations

import shutil

import pytest

from llama_index.tuning import HuggingFaceFinetuneEngine
from llama_index.tuning.cli.app import run
from llama_index.tuning.errors import ArtifactError, TemplateError
from llama_index.tuning.llms import HuggingFaceOptions, export_llm
from llama_index.tuning.llms.serving.export import go_template
from llama_index.tuning.llms.serving.template import ChatTemplate
from tests.llms.conftest import fees
from tests.llms.tiny import PLAIN_TEMPLATE, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, about transformers 6


@pytest.fixture(scope="module")
def tuned(tiny, tmp_path_factory):
    """A saved LoRA adapter."""
    out = tmp_path_factory.mktemp("export") / "tuned"
    options = HuggingFaceOptions(device="cpu", max_steps=2, learning_rate=1e-2)
    engine = HuggingFaceFinetuneEngine(
        fees(), tiny, model_output_path=out, options=options, accept="always"
    )
    engine.finetune()
    return out


def first_words(model, tokenizer):
    """What greedy decoding goes on with."""
    ids = tokenizer("Fee in Oslo", return_tensors="pt")
    return model.generate(**ids, max_new_tokens=8, do_sample=False)[0].tolist()


def test_merged_weights_answer_as_the_tuned_model_in_the_stock_loader(tuned, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llama_index.tuning import TunedHuggingFaceLLM

    out = export_llm(tuned, tmp_path / "merged")
    assert not (out / "adapter_config.json").exists()
    stock = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ours = TunedHuggingFaceLLM.load(tuned, device="cpu")
    assert first_words(stock, tokenizer) == first_words(ours.model, tokenizer)


def test_gguf_is_written_by_the_converter_and_nothing_is_left_beside_it(tuned, tmp_path):
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text(
        "import pathlib, sys\n"
        "folder, _, out, _, kind = sys.argv[1:]\n"
        "assert (pathlib.Path(folder) / 'model.safetensors').is_file()\n"
        "pathlib.Path(out).write_text('GGUF ' + kind)\n"
    )
    out = export_llm(tuned, tmp_path / "model.gguf", "gguf", converter=script, weights="q8_0")
    assert out.read_text() == "GGUF q8_0"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["convert_hf_to_gguf.py", "model.gguf"]


def test_a_failing_converter_is_quoted_and_leaves_nothing(tuned, tmp_path):
    script = tmp_path / "convert.py"
    script.write_text("import sys\nsys.exit('no such architecture')\n")
    with pytest.raises(ArtifactError, match="no such architecture"):
        export_llm(tuned, tmp_path / "model.gguf", "gguf", converter=script)
    assert [p.name for p in tmp_path.iterdir()] == ["convert.py"]


def test_without_a_converter_the_error_is_the_command_to_run(tuned, tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"convert_hf_to_gguf\.py FOLDER --outfile"):
        export_llm(tuned, tmp_path / "model.gguf", "gguf")
    assert not any(tmp_path.iterdir())


def test_ollama_gets_a_modelfile_with_template_and_stop_words(tiny, tmp_path):
    from transformers import AutoTokenizer

    options = HuggingFaceOptions(device="cpu", max_steps=1, weights="full")
    model = tmp_path / "base"
    shutil.copytree(tiny, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = PLAIN_TEMPLATE
    tokenizer.save_pretrained(model)
    HuggingFaceFinetuneEngine(
        fees(), model, model_output_path=tmp_path / "tuned", options=options, accept="always"
    ).finetune()
    out = export_llm(tmp_path / "tuned", tmp_path / "ollama", "ollama")
    written = (out / "Modelfile").read_text().splitlines()
    assert written[0] == "FROM ."
    assert 'PARAMETER stop "<|im_end|>"' in written
    assert (out / "model.safetensors").is_file()


def test_a_template_that_only_wraps_messages_is_said_in_gos_language():
    template = ChatTemplate(tiny_tokenizer(["a b"], template=PLAIN_TEMPLATE))
    turn = (
        '{{{{ if eq .Role "{0}" }}}}{{{{ "<|im_start|>{0}\\n" }}}}{{{{ .Content }}}}'
        '{{{{ "<|im_end|>\\n" }}}}{{{{ end }}}}'
    )
    assert go_template(template) == (
        "{{ range .Messages }}"
        + "".join(turn.format(role) for role in ("system", "user", "assistant"))
        + '{{ end }}{{ "<|im_start|>assistant\\n" }}'
    )


def test_a_begin_token_that_the_tokenizer_does_not_write_itself_stays_in_the_template():
    tokenizer = tiny_tokenizer(["a b"], template=PLAIN_TEMPLATE)
    tokenizer.bos_token = "<|im_start|>"  # as SmolLM2's
    assert go_template(ChatTemplate(tokenizer)).count("<|im_start|>") == 4


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ loop.index }}{{ m.content }}|{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}|{% endfor %}",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.content }}|{% endfor %}",
    ],
)
def test_a_template_that_does_more_is_refused_for_ollama(source):
    with pytest.raises(TemplateError, match="gguf"):
        go_template(ChatTemplate(tiny_tokenizer(["a b"], template=source)))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"format": "onnx"}, ValueError),
        ({"weights": "q2"}, ValueError),
        ({"path": None}, TypeError),
        ({"source": "nowhere"}, ArtifactError),
        ({"converter": "nowhere.py", "format": "gguf"}, ArtifactError),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_weight_is_read(
    tuned, tmp_path, arguments, error
):
    given = {"source": tuned, "path": tmp_path / "out", **arguments}
    with pytest.raises(error):
        export_llm(**given)
    assert not any(tmp_path.iterdir())


def test_a_saved_component_is_not_replaced_by_an_export(tuned):
    for format in ("merged", "gguf"):
        with pytest.raises(ArtifactError, match="holds a saved component"):
            export_llm(tuned, tuned, format)


def test_the_command_line_exports_too(tuned, tmp_path, capsys):
    assert run(["llm", "export", str(tuned), "--out", str(tmp_path / "merged")]) == 0
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert "merged" in capsys.readouterr().out
