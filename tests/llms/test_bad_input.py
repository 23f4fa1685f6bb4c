"""What cannot work is said at once, by name, before a step is made or a byte written."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from llama_index.tuning import ChatDataset, HuggingFaceFinetuneEngine
from llama_index.tuning.errors import BaseModelError, DatasetError, MissingExtraError, TemplateError
from llama_index.tuning.llms import HuggingFaceOptions
from tests.llms.conftest import fees
from tests.llms.tiny import PLAIN_TEMPLATE, save_tiny, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, of transformers 6


def preflight(model, data=None, **options):
    settings = HuggingFaceOptions(**{"device": "cpu", **options})
    return HuggingFaceFinetuneEngine(data or fees(40), model, options=settings).preflight()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ppo"}, "unknown method 'ppo'; choose one of: sft, dpo"),
        ({"weights": "qlora"}, "unknown weights 'qlora'; choose one of: lora, full"),
        ({"too_long": "cut"}, "unknown too_long 'cut'; choose one of: error, drop"),
        ({"quantize": "8bit"}, "unknown quantize '8bit'"),
        ({"quantize": "4bit", "weights": "full"}, "it needs weights='lora'"),
        ({"packing": True, "device": "cpu"}, "packing needs a GPU with flash attention"),
        ({"packing": True, "method": "dpo"}, "packing is for method='sft'"),
        ({"merge": True, "weights": "full"}, "merge is for weights='lora'"),
        ({"learning_rate": 0}, "learning_rate must be above 0 and finite, got 0"),
        ({"epochs": 0}, "epochs must be above 0 and finite, got 0"),
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, or -1"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"lora_rank": 0}, "lora_rank must be a whole number >= 1, got 0"),
        ({"lora_dropout": 1}, "lora_dropout must be from 0 to below 1, got 1"),
        ({"warmup": 1}, "warmup must be from 0 to below 1, got 1"),
        ({"held_out": 0.9}, "held_out must be between 0.01 and 0.5, got 0.9"),
        ({"max_length": 2}, "max_length must be a whole number >= 8, got 2"),
        ({"batch_size": 2.5}, "batch_size must be a whole number >= 1, got 2.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number >= 1, got '8'"),
        ({"lora_rank": True}, "lora_rank must be a whole number >= 1, got True"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"seed": 1 << 32}, r"seed must be below 2\*\*32, got 4294967296"),
        ({"max_length": "99"}, "max_length must be a whole number >= 8, got '99'"),
        ({"max_steps": 2.5}, "max_steps must be a whole number >= 1, or -1 for no limit, got 2.5"),
        ({"epochs": float("inf")}, "epochs must be above 0 and finite, got inf"),
        ({"held_out": "a"}, "held_out must be between 0.01 and 0.5, got 'a'"),
        ({"warmup": None}, "warmup must be from 0 to below 1, got None"),
        ({"beta": None}, "beta must be above 0 and finite, got None"),
        ({"target_modules": ()}, r"target_modules must be a text or a tuple .* got \(\)"),
        ({"target_modules": 5}, "target_modules must be a text or a tuple .* got 5"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        HuggingFaceOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": "no"}, "resume must be True or False, got 'no'"),
        ({"merge": 1}, "merge must be True or False, got 1"),
        ({"device": 3}, "device must be a text, got 3"),
        ({"revision": 5}, "revision must be a text, got 5"),
    ],
)
def test_options_of_a_wrong_kind_are_named(options, message):
    with pytest.raises(TypeError, match=message):
        HuggingFaceOptions(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"epochs": 1}}, "options must be HuggingFaceOptions, got dict"),
        ({"model_id": None}, "model_id must be a folder or a name of the hub, got None"),
        ({"model_id": ""}, "model_id must be a folder or a name of the hub, got ''"),
        ({"protect": [len]}, "protect must map names to functions, got list"),
        ({"protect": {3: len}}, "protect must have texts as names, got 3"),
        ({"model_output_path": ""}, "model_output_path must be a path, got ''"),
    ],
)
def test_wrong_arguments_are_named_when_the_engine_is_made(arguments, message):
    with pytest.raises(TypeError, match=message):
        HuggingFaceFinetuneEngine(fees(4), **{"model_id": "a/b", **arguments})


def never_loaded(*_, **__):
    raise AssertionError("the weights were loaded before the error")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ({"dataset": ChatDataset([])}, {}, DatasetError, "dataset is empty"),
        ({"val_dataset": ChatDataset([])}, {}, DatasetError, "val_dataset is empty"),
        ({"callbacks": [5]}, {}, TypeError, "callbacks must be TrainerCallbacks of .*, got 5"),
        ({}, {"device": "gpu"}, ValueError, "device 'gpu' is not on this machine"),
        ({}, {"device": "cuda:99"}, ValueError, "device 'cuda:99' is not on this machine"),
    ],
)
def test_what_cannot_work_costs_nothing(
    tiny, tmp_path, monkeypatch, arguments, options, error, message
):
    monkeypatch.setattr("llama_index.tuning.llms.local.engine.load_model", never_loaded)
    given = {"dataset": fees(40), "model_id": tiny, "model_output_path": tmp_path / "out"}
    engine = HuggingFaceFinetuneEngine(
        **{**given, **arguments}, options=HuggingFaceOptions(**{"device": "cpu", **options})
    )
    with pytest.raises(error, match=message):
        engine.finetune()


def test_conversations_to_measure_on_that_are_all_too_long_are_told_before_training(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr("llama_index.tuning.llms.local.engine.load_model", never_loaded)
    long, short = (
        ChatDataset.from_messages(
            [
                [
                    {"role": "user", "content": f"{word} {n}?" * times},
                    {"role": "assistant", "content": "No."},
                ]
                for n in range(3)
            ]
        )
        for word, times in (("Longer", 100), ("Shorter", 1))
    )
    options = HuggingFaceOptions(device="cpu", max_length=100, too_long="drop")

    def engine(val):
        return HuggingFaceFinetuneEngine(
            fees(40), tiny, model_output_path=tmp_path / "out", val_dataset=val, options=options
        )

    with pytest.raises(DatasetError, match="nothing to measure on: all 3 held-out conversations"):
        engine(long).finetune()
    report = engine(ChatDataset([*long.examples, *short.examples])).preflight()
    assert report.measured == 3
    assert "3 conversations to measure on are too long and are left out" in report.warnings


@pytest.mark.parametrize("inside", [".", "merged"])
def test_a_folder_that_holds_the_base_model_is_not_written_to(tiny, tmp_path, inside):
    """As that of a first run is, whose merged weights are tuned on."""
    base = tmp_path / "first" / inside
    shutil.copytree(tiny, base)
    engine = HuggingFaceFinetuneEngine(fees(30), base, model_output_path=tmp_path / "first")
    with pytest.raises(ValueError, match="holds the base model, which the result would replace"):
        engine.preflight()


def broken(tiny, tmp_path, name):
    """A copy of the tiny model with one thing wrong."""
    folder = tmp_path / name
    shutil.copytree(tiny, folder)
    if name == "no config":
        (folder / "config.json").unlink()
    elif name == "no tokenizer":
        for file in folder.glob("token*"):
            file.unlink()
    elif name == "spoilt tokenizer":
        (folder / "tokenizer.json").write_text("{")
    elif name == "spoilt config":
        (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    elif name == "no template":
        tiny_tokenizer(["a"], template=None).save_pretrained(folder)
        (folder / "chat_template.jinja").unlink()
    elif name == "no end":
        tokenizer = tiny_tokenizer(["a"])
        tokenizer.eos_token = None
        tokenizer.save_pretrained(folder)
    elif name == "spoilt template":
        (folder / "chat_template.jinja").write_text("{% for m in messages %}")
    return folder


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no config", BaseModelError, "holds no model: it has no config.json"),
        ("no tokenizer", BaseModelError, "has no tokenizer"),
        ("spoilt tokenizer", BaseModelError, "the tokenizer cannot be loaded"),
        ("spoilt config", BaseModelError, "that transformers can build|cannot be loaded"),
        ("no template", TemplateError, "has no chat template: it is a base model"),
        ("no end", BaseModelError, "has no end token"),
        ("spoilt template", (DatasetError, TemplateError), "refuses the conversation"),
    ],
)
def test_a_broken_model_is_named(tiny, tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        preflight(broken(tiny, tmp_path, name))


@pytest.mark.parametrize(
    "name", ["./nowhere", "/nowhere/at/all", Path("nowhere"), "a/b/c", "wrong name"]
)
def test_a_wrong_path_is_named_at_once(name):
    with pytest.raises(BaseModelError, match="is no folder, and no name of the hub"):
        preflight(name)


def test_a_name_of_the_hub_is_not_waited_for(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelError, match="HF_HUB_OFFLINE forbids asking the hub"):
        preflight("nobody/no-such-model")


def test_an_unreachable_hub_is_named(monkeypatch):
    import httpx
    from huggingface_hub import HfApi, constants

    def unreachable(*_, **__):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(BaseModelError, match="not in the hub's cache; the hub cannot be reached"):
        preflight("nobody/no-such-model")


def test_a_revision_is_for_the_hub(tiny):
    with pytest.raises(BaseModelError, match="revision='main' is for the hub"):
        preflight(tiny, revision="main")


def test_missing_weights_and_a_strange_tokenizer_are_named(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    tuning = HuggingFaceFinetuneEngine(
        fees(40),
        shutil.copytree(tiny, tmp_path / "m"),
        model_output_path=tmp_path / "out",
        options=HuggingFaceOptions(device="cpu"),
    )
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(BaseModelError, match="lacks 1 weights of its architecture"):
        tuning.finetune()
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(BaseModelError, match="cannot be loaded as a causal language model"):
        tuning.finetune()
    shutil.copy(tiny / "model.safetensors", file)
    tiny_tokenizer([f"{n} words" for n in range(3000)], vocabulary=900).save_pretrained(
        tmp_path / "m"
    )
    with pytest.raises(BaseModelError, match="they do not belong together"):
        tuning.finetune()
    assert not (tmp_path / "out").exists()


def test_libraries_that_are_missing_are_named(tiny, monkeypatch):
    from llama_index.tuning.llms.local import plan

    with pytest.raises(ImportError, match="quantize='4bit' needs bitsandbytes"):
        preflight(tiny, quantize="4bit")
    with pytest.raises(ValueError, match="packing needs a GPU and flash attention"):
        preflight(tiny, packing=True, device=None)
    monkeypatch.setattr(plan, "_installed", lambda library: library != "trl")
    with pytest.raises(MissingExtraError, match=r"needs trl, .* 'llama-index-tuning\[llm\]'"):
        preflight(tiny)


def test_a_full_disk_is_named_before_training(tiny, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    tuning = HuggingFaceFinetuneEngine(fees(40), tiny, model_output_path=tmp_path / "a" / "out")
    with pytest.raises(OSError, match=r"0.0 GiB are free") as caught:
        tuning.finetune()
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_overlapping_data_is_refused(tiny):
    tuning = HuggingFaceFinetuneEngine(fees(30), tiny, val_dataset=fees(5))
    with pytest.raises(DatasetError, match=r"val_dataset open like one that is trained on"):
        tuning.preflight()


def test_worse_answers_that_are_not_learnt_are_counted(tiny):
    worse = {"role": "assistant", "content": "No idea."}
    pairs = ChatDataset([replace(example, rejected=worse) for example in fees(30).examples])
    said = "27 conversations have a worse answer: method='dpo' learns from it"
    assert any(said in warning for warning in preflight(tiny, pairs).warnings)
    assert not any("worse" in warning for warning in preflight(tiny, pairs, method="dpo").warnings)


def test_layers_that_the_model_has_not_are_named(tiny):
    with pytest.raises(ValueError, match=r"target_modules: Target modules .*query"):
        preflight(tiny, target_modules=("query",))
    few, many = (preflight(tiny, target_modules=t) for t in (("q_proj",), "all-linear"))
    assert few.trainable < many.trainable


def test_conversations_that_are_all_too_long_leave_nothing_to_learn(tiny):
    with pytest.raises(DatasetError, match="there is nothing to learn: all 36 conversations"):
        preflight(tiny, max_length=10, too_long="drop")
    with pytest.raises(ValueError, match="max_length must be at most the model's 512 tokens"):
        preflight(tiny, max_length=10_000)


def test_wrong_arguments_are_named(tiny):
    for arguments, message in [
        ({"accept": "maybe"}, "unknown accept 'maybe'"),
        ({"val_dataset": [1]}, "val_dataset must be a ChatDataset, got list"),
        ({"evaluate": 3}, "evaluate must be a function of an LLM, got 3"),
        ({"protect": {"a": 3}}, r"protect\['a'\] must be a function of an LLM, got 3"),
        ({"protect": {"score": len}}, "the name 'score' is taken"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            HuggingFaceFinetuneEngine(fees(10), tiny, **arguments)


def test_preflight_says_what_the_run_will_do(tiny):
    long = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "word " * 40}]
    data = ChatDataset([*fees(50).examples, *ChatDataset.from_messages([long]).examples])
    tuning = HuggingFaceFinetuneEngine(
        data,
        tiny,
        evaluate=len,
        options=HuggingFaceOptions(device="cpu", max_length=60, too_long="drop", batch_size=10),
    )
    report = tuning.preflight()
    assert report.dropped == pytest.approx(1 / 51)
    assert (report.conversations, report.rows, report.steps) == (50, 50, 15)
    assert report.end_tokens == ["<|im_end|>"]
    assert report.ends_trained == report.round_trip == 1
    assert 0 < report.trained_tokens < report.tokens
    assert "1 conversations are too long and are left out" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["tools"] is True
    assert report.trainable == trainable(tiny)


def trainable(folder):
    """PEFT's own count."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    return adapted.get_nb_trainable_parameters()[0]


def test_a_template_that_changes_answers_is_pointed_out(tmp_path):
    texts = [m["content"] for e in fees(20).examples for m in e.messages]
    shouting = PLAIN_TEMPLATE.replace("m.content +", "m.content | upper +")
    report = preflight(save_tiny(tmp_path / "m", texts, template=shouting))
    assert report.round_trip == 0
    assert any("changes answers" in warning for warning in report.warnings)
    assert not report.tools
