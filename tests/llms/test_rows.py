"""Masks, token by token."""

import json

import pytest

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError, TemplateError
from llama_index.tuning.llms.local.data import IGNORED, tokenize_chats
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.serving.template import ChatTemplate
from tests.llms.tiny import IM_END, PLAIN_TEMPLATE, TEMPLATE, tiny_tokenizer

FEE = {"type": "function", "function": {"name": "fee", "parameters": {"type": "object"}}}


def user(text):
    return {"role": "user", "content": text}


def said(text, **more):
    return {"role": "assistant", "content": text, **more}


def calling(**arguments):
    function = {"name": "fee", "arguments": json.dumps(arguments)}
    call = {"id": "c1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(["Hello, how high is the fee? Five euros, süß 🦊."] * 3)


def rows(tokenizer, *examples, max_length=400, **options):
    settings = HuggingFaceOptions(**options)
    template = ChatTemplate(tokenizer, "tiny")
    ends = [tokenizer.eos_token_id]
    return tokenize_chats(ChatDataset(list(examples)), template, ends, settings, max_length)


def learnt(tokenizer, row):
    """The stretches with a loss, as text."""
    stretches, now = [], []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        assert label in (IGNORED, token)
        if label == IGNORED and now:
            stretches, now = [*stretches, now], []
        elif label != IGNORED:
            now.append(label)
    return [tokenizer.decode(part) for part in [*stretches, now] if part]


def test_only_the_assistants_words_and_their_end_are_learnt(tokenizer):
    chat = ChatExample([user("Hi"), said("Süß 🦊!"), user("And?"), said(" five\n")])
    (row,) = rows(tokenizer, chat).rows
    assert learnt(tokenizer, row) == [f"Süß 🦊!{IM_END}", f" five\n{IM_END}"]
    assert row.input_ids[-1] == tokenizer.eos_token_id


def test_the_prompts_tokens_are_a_prefix_and_are_those_of_serving(tokenizer):
    chat = ChatExample([{"role": "system", "content": "S"}, user("Hi"), said("Five.")], [FEE])
    (row,) = rows(tokenizer, chat).rows
    served = tokenizer.apply_chat_template(
        chat.messages[:2], tools=[FEE], add_generation_prompt=True, tokenize=True
    )["input_ids"]
    assert row.input_ids[: len(served)] == served
    assert row.prompt_length == len(served)
    assert '"name": "fee"' in tokenizer.decode(served)


def test_a_weight_of_zero_is_not_learnt(tokenizer):
    chat = ChatExample([user("a"), said("no", weight=0), user("b"), said("yes", weight=1)])
    (row,) = rows(tokenizer, chat).rows
    assert learnt(tokenizer, row) == [f"yes{IM_END}"]
    last = ChatExample([user("a"), said("yes"), user("b"), said("no", weight=0)])
    (row,) = rows(tokenizer, last).rows
    assert learnt(tokenizer, row) == [f"yes{IM_END}"]
    assert "b" not in tokenizer.decode(row.input_ids)  # nothing after the last learnt turn


def test_tool_calls_are_learnt_and_their_results_are_not(tokenizer):
    result = {"role": "tool", "tool_call_id": "c1", "content": "5"}
    chat = ChatExample([user("Fee?"), calling(city="Oslo"), result, said("Five.")], [FEE])
    (row,) = rows(tokenizer, chat).rows
    call = '<tool_call>\n{"name": "fee", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert learnt(tokenizer, row) == [call + IM_END, f"Five.{IM_END}"]
    assert "<tool_response>\n5" in tokenizer.decode(row.input_ids)


def test_a_turn_that_the_template_rewrites_later_gets_a_row_of_its_own():
    # As Qwen 3 does: the thoughts of earlier turns are left out.
    thoughts = TEMPLATE.replace(
        "(m.content or '') }}",
        "('<think>' + m.reasoning_content + '</think>' if m.reasoning_content and loop.last"
        " else '') + (m.content or '') }}",
    )
    tokenizer = tiny_tokenizer(["abc"], template=thoughts)
    chat = ChatExample([user("a"), said("b", thinking="hm"), user("c"), said("d", thinking="so")])
    first, second = rows(tokenizer, chat).rows
    assert learnt(tokenizer, first) == [f"<think>hm</think>b{IM_END}"]
    assert learnt(tokenizer, second) == [f"<think>so</think>d{IM_END}"]
    assert "hm" not in tokenizer.decode(second.input_ids)


def test_thoughts_without_a_place_are_counted(tokenizer):
    chat = ChatExample([user("a"), said("b", thinking="hm")])
    assert rows(tokenizer, chat).unwritten_thoughts == 1


def test_bos_is_there_once():
    from tokenizers import processors

    bos = "{{ bos_token }}" + TEMPLATE
    tokenizer = tiny_tokenizer(["abc"], template=bos)
    tokenizer.bos_token = "<|pad|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", tokenizer.bos_token_id)]
    )
    (row,) = rows(tokenizer, ChatExample([user("a"), said("b")])).rows
    assert row.input_ids.count(tokenizer.bos_token_id) == 1


def test_too_long_is_an_error_or_a_counted_drop_and_never_a_cut(tokenizer):
    long = ChatExample([user("q"), said("word " * 50)])
    short = ChatExample([user("q"), said("a")])
    with pytest.raises(DatasetError, match=r"example 1 has \d+ tokens, max_length is 40; too_long"):
        rows(tokenizer, short, long, max_length=40)
    kept = rows(tokenizer, short, long, max_length=40, too_long="drop")
    assert [row.example for row in kept.rows] == [0]
    assert kept.too_long == [1]


def test_preferences_are_a_prompt_and_two_answers(tokenizer):
    pair = ChatExample([user("q"), said("good")], rejected=said("bad one"))
    (row,) = rows(tokenizer, pair, method="dpo").rows
    assert learnt(tokenizer, row) == [f"good{IM_END}"]
    assert tokenizer.decode(row.worse) == f"bad one{IM_END}"
    with pytest.raises(DatasetError, match="example 0, rejected: method='dpo' needs a worse"):
        rows(tokenizer, ChatExample([user("q"), said("good")]), method="dpo")


NO_END = PLAIN_TEMPLATE.replace("<|im_end|>", "")
OTHER_PROMPT = PLAIN_TEMPLATE.replace("'<|im_start|>assistant", "'<|im_start|>answer")
STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    + PLAIN_TEMPLATE
)
IMAGE = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]


@pytest.mark.parametrize(
    ("template", "example", "message"),
    [
        (NO_END, ChatExample([user("q"), said("a")]), r"writes no end token \('<|im_end|>'\)"),
        (OTHER_PROMPT, ChatExample([user("q"), said("a")]), "no prefix of those with the answer"),
        (PLAIN_TEMPLATE, ChatExample([user("q"), said("a")], [FEE]), "knows no tools"),
        (
            PLAIN_TEMPLATE,
            ChatExample([user("q"), calling(city="Oslo")]),
            r"messages\[1\].tool_calls: the chat template of tiny does not write calls",
        ),
        (
            STRICT,
            ChatExample([{"role": "system", "content": "s"}, user("q"), said("a")]),
            "refuses the conversation: no system here",
        ),
        (TEMPLATE, ChatExample([user(IMAGE), said("a")]), "holds image_url; tiny reads text alone"),
        (TEMPLATE, ChatExample([said("Hello"), user("q"), said("a")]), "answers nothing; give it"),
        (
            TEMPLATE,
            ChatExample([user("q"), said("a <|im_end|> b")]),
            "the end token stands within the text",
        ),
    ],
)
def test_what_cannot_be_learnt_is_named(template, example, message):
    tokenizer = tiny_tokenizer(["abc"], template=template)
    with pytest.raises(DatasetError, match=message) as caught:
        rows(tokenizer, example)
    assert "example 0, " in str(caught.value)


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(TemplateError, match="tiny has no chat template: it is a base model"):
        ChatTemplate(tiny_tokenizer(["a"], template=None), "tiny")


def test_the_measured_likelihood_is_the_trainers_loss(tiny):
    """Our batched measure and the loss that transformers computes are the same number."""
    import torch
    from transformers import AutoModelForCausalLM

    from llama_index.tuning.llms.local.measure import log_likelihoods
    from llama_index.tuning.llms.serving.loading import Source, load_tokenizer

    own = load_tokenizer(Source(str(tiny), local=True))
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    made = rows(own, ChatExample([user("Fee in Oslo"), said("5 euros")]), max_length=100).rows
    row = made[0]
    with torch.no_grad():
        out = model(torch.tensor([row.input_ids]), labels=torch.tensor([row.labels]))
    assert log_likelihoods(model, made, pad_id=0)[0] == pytest.approx(-float(out.loss), abs=1e-5)
