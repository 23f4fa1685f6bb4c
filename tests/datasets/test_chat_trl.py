"""TRL's own data pipeline on our files."""

import json

import pytest

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.records import ChatExample

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # trl's and torch's own
]

TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>"
    "{% endfor %}</s>{% endfor %}"
)


def tool(name, **parameters):
    schema = {"type": "object", "properties": parameters}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def conversation(name, arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return [
        {"role": "user", "content": f"Use {name}"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
        {"role": "assistant", "content": "5 euros."},
    ]


@pytest.fixture
def chats():
    fee = tool("fee", account={"type": "string", "description": "Which"})
    card = tool("card", number={"type": "integer"}, hot={"type": "boolean"})
    card["function"]["parameters"]["required"] = ["number"]
    plain = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    return ChatDataset(
        [
            ChatExample(conversation("fee", {"account": "basic"}), [fee]),
            ChatExample(conversation("card", {"number": 3, "hot": True}), [card, fee]),
            ChatExample(plain),
        ]
        * 4
    )


@pytest.fixture
def tiny():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<unk>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(models.BPE({t: n for n, t in enumerate(tokens)}, [], unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token="<unk>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = TEMPLATE
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), **size, **heads))
    return model, tokenizer


@pytest.mark.parametrize("format", ["trl", "trl-prompt-completion"])
def test_sft_sees_exactly_what_was_written(tmp_path, chats, tiny, format):
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    path = tmp_path / "train.jsonl"
    chats.save_jsonl(path, format=format)
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "c"))
    model, tokenizer = tiny
    options = {"use_cpu": True, "bf16": False, "report_to": [], "max_steps": 1, "max_length": None}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(tmp_path / "out"), save_strategy="no", **options),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    for seen, example, line in zip(
        trainer.train_dataset, chats.examples, chats.lines(format), strict=True
    ):
        messages = line.get("messages") or [*line["prompt"], *line["completion"]]
        expected = tokenizer.apply_chat_template(
            messages, tools=example.tools or None, tokenize=False
        )
        assert seen["input_ids"] == tokenizer(expected)["input_ids"]
        assert "null" not in expected
    assert trainer.train().training_loss > 0
