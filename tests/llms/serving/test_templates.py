"""Every chat template that TRL ships: taught and read alike, or refused with a cure."""

import json
import re
from pathlib import Path

import pytest

from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import DatasetError, TemplateError
from llama_index.tuning.llms.local.data import IGNORED, tokenize_chats
from llama_index.tuning.llms.local.options import HuggingFaceOptions
from llama_index.tuning.llms.local.plan import check_parser, template_arguments_of
from llama_index.tuning.llms.serving.replies import parser_of, read_reply, visible_reply
from llama_index.tuning.llms.serving.template import ChatTemplate
from tests.llms.tiny import tiny_tokenizer

trl = pytest.importorskip("trl")
FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.jinja"))

WITHOUT_END = {"glm4moe"}
"""It ends a turn by beginning the next: a model tuned on it would never stop."""
WITH_TOOLS = {
    *("diffusion_gemma", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"),
    *("glm4moe", "gptoss", "lfm2_2_5", "lfm2_2_5_v2", "lfm2_2_5_vl", "lfm2_v2"),
    *("llama3_1", "llama3_2", "muse_glimmer", "nemotron_3_5_lightning", "nemotron_3_nano"),
    *("nemotron_3_super", "nemotron_3_ultra", "qwen2_5", "qwen3", "qwen3_5_nothink"),
    *("qwen3_5_think", "qwen3_6", "qwen3_8", "qwen3_instruct_2507", "qwen3_vl"),
}
ONE_CALL_ONLY = {"llama3_1", "llama3_2"}
MARK = re.compile(
    r"<\|[\w|]+?\|>|<\|\w+>|<\w+\|>|<｜[^｜]+｜>|<end_of_\w+>|<start_of_turn>|<\|\"\|>|</s>"
)
NO_TOKENS_OF_THEIR_OWN = {'<|"|>'}

TOOL = {
    "type": "function",
    "function": {
        "name": "get_fee",
        "description": "The fee.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "c"},
                "zip": {"type": "string", "description": "z"},
                "people": {"type": "integer", "description": "p"},
                "members": {"type": "boolean", "description": "m"},
                "extras": {"type": "array", "items": {"type": "string"}, "description": "e"},
            },
            "required": ["city"],
        },
    },
}
ARGUMENTS = {
    "city": "São Paulo",
    "zip": "75001",
    "people": 3,
    "members": True,
    "extras": ["a", "b"],
}
ANSWERS = ["SELECT name FROM city", "  indented\n    code()\n", "\nafter a newline", "süß 🦊"]


def base(name):
    return name.removesuffix("_training")


def chats(*conversations, tools=()):
    return ChatDataset.from_messages(list(conversations), tools=list(tools))


def asked(answer):
    return [{"role": "user", "content": "Question?"}, {"role": "assistant", "content": answer}]


def calling(*arguments, text=None):
    calls = [
        {
            "id": f"call0000{place}",
            "type": "function",
            "function": {"name": "get_fee", "arguments": json.dumps(given)},
        }
        for place, given in enumerate(arguments)
    ]
    said = {"role": "assistant", "content": text, "tool_calls": calls}
    return [{"role": "user", "content": "Fee?"}, said]


def made(name, dataset):
    """(the chat template, tokens that end a turn) as a real tokenizer with it has them."""
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer = tiny_tokenizer(["Question? Fee? SELECT name FROM city"], template=source)
    special = sorted(set(MARK.findall(source)) - NO_TOKENS_OF_THEIR_OWN)
    tokenizer.add_special_tokens({"additional_special_tokens": [*special, "<s>"]})
    tokenizer.bos_token = "<s>"
    arguments = template_arguments_of(HuggingFaceOptions(), dataset, tokenizer, name)
    template = ChatTemplate(tokenizer, name, arguments)
    ends = [tokenizer.eos_token_id, *map(tokenizer.convert_tokens_to_ids, _ends(special))]
    return template, ends


def _ends(special):
    known = (
        *("<|end_of_text|>", "<|eot_id|>", "<|eot|>", "<|end|>", "<|return|>", "<|call|>"),
        *("<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "<turn|>", "<|tool_response>"),
        *("<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|im_end|>", "<|user|>"),
        *("<|observation|>", "</s>"),
    )
    # gpt-oss ends a channel by <|end|>, and a turn by others.
    return [
        mark
        for mark in known
        if mark in special and not (mark == "<|end|>" and "<|return|>" in special)
    ]


def learnt_of(row, template):
    ids = [token for token in row.labels if token != IGNORED]
    return template.tokenizer.decode(ids[:-1])


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_is_read_as_it_is_taught_or_refused(name):
    dataset = chats(*map(asked, ANSWERS))
    template, ends = made(name, dataset)
    options = HuggingFaceOptions()
    if name in WITHOUT_END:
        with pytest.raises(
            DatasetError, match=r"end the turn with one in tokenizer\.chat_template"
        ):
            tokenize_chats(dataset, template, ends, options, 10_000)
        return
    found = tokenize_chats(dataset, template, ends, options, 10_000)
    for row, answer in zip(found.rows, ANSWERS, strict=True):
        assert row.given_back == (True,)
        thoughts, read = read_reply(learnt_of(row, template), template, None, ())
        assert (thoughts, read.content.strip()) == ("", answer.strip())
        served = template.ids(template.render(asked(answer)[:1], answer=True))
        assert row.input_ids[: row.prompt_length] == served
        assert row.input_ids[-1] in ends


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_unfinished_answer_shows_no_mark(name):
    dataset = chats(asked("SELECT 1"))
    template, _ = made(name, dataset)
    learnt = template.turn(asked("")[:1], asked("SELECT 1")[1])[1]
    whole = learnt[: learnt.index("SELECT 1") + len("SELECT 1")]
    shown = [visible_reply(whole[:end], template, None, ()) for end in range(1, len(whole) + 1)]
    assert shown[-1].strip() == "SELECT 1"
    assert all("SELECT 1".startswith(text.strip()) for text in shown)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_call_is_read_as_it_is_taught_or_refused(name):
    dataset = chats(calling(ARGUMENTS), tools=[TOOL])
    template, ends = made(name, dataset)
    parser = parser_of(template)
    assert (parser is not None) == template.supports_tools == (base(name) in WITH_TOOLS)
    if parser is None:
        with pytest.raises(DatasetError, match=r"knows no tools|does not write calls"):
            tokenize_chats(dataset, template, ends, HuggingFaceOptions(), 10_000)
        return
    check_parser(template, parser, [dataset])
    if name in WITHOUT_END:
        return
    (row,) = tokenize_chats(dataset, template, ends, HuggingFaceOptions(), 10_000, parser).rows
    assert row.given_back == (True,)
    _, read = read_reply(learnt_of(row, template), template, parser, [TOOL])
    assert read.content == ""
    assert [(call.name, call.arguments) for call in read.calls] == [("get_fee", ARGUMENTS)]


@pytest.mark.parametrize("name", sorted(WITH_TOOLS - WITHOUT_END - ONE_CALL_ONLY))
def test_two_calls_are_read_in_their_order(name):
    dataset = chats(calling({"city": "Oslo"}, {"city": "Lima"}), tools=[TOOL])
    template, ends = made(name, dataset)
    if name == "gptoss":  # its template writes the first call alone: nothing else can be learnt
        pytest.skip("one call a turn")
    parser = parser_of(template)
    (row,) = tokenize_chats(dataset, template, ends, HuggingFaceOptions(), 10_000, parser).rows
    _, read = read_reply(learnt_of(row, template), template, parser, [TOOL])
    assert [call.arguments["city"] for call in read.calls] == ["Oslo", "Lima"]


@pytest.mark.parametrize("name", sorted(WITH_TOOLS))
def test_a_forced_call_begins_as_the_template_writes_it(name):
    template, _ = made(name, chats(calling({"city": "Oslo"}), tools=[TOOL]))
    parser = parser_of(template)
    written = template.written_call("get_fee", {"city": "Oslo"}, TOOL)
    assert parser.opening("get_fee").strip() in written


def test_thoughts_are_asked_for_where_a_message_has_them():
    thinking = [*asked("Paris")[:1], {"role": "assistant", "content": "Paris", "thinking": "Hm."}]
    inline = asked("<think>\nHm.\n</think>\n\nParis")
    for conversation in (thinking, inline):
        dataset = chats(conversation)
        template, ends = made("qwen3", dataset)
        assert template.arguments == {}
        (row,) = tokenize_chats(dataset, template, ends, HuggingFaceOptions(), 10_000).rows
        learnt = learnt_of(row, template)
        assert learnt == "<think>\nHm.\n</think>\n\nParis"
        assert read_reply(learnt, template, None, ())[0] == "Hm."
        assert row.given_back == (True,)


def test_earlier_turns_are_measured_as_they_are_learnt():
    """A thinking template writes each turn anew: no false alarm about the other half."""
    turns = [*asked("one"), *asked("two"), *asked("three")]
    for name in ("qwen3", "qwen2_5", "deepseek_r1_distill", "gptoss"):
        template, ends = made(name, chats(turns))
        found = tokenize_chats(chats(turns), template, ends, HuggingFaceOptions(), 10_000)
        good = [each for row in found.rows for each in row.given_back]
        assert good == [True] * 3


def test_an_argument_that_the_template_does_not_read_is_refused():
    dataset = chats(asked("a"))
    tokenizer = made("qwen3", dataset)[0].tokenizer
    with pytest.raises(ValueError, match="qwen3 does not read 'enable_thoughts'"):
        ChatTemplate(tokenizer, "qwen3", {"enable_thoughts": False})
    with pytest.raises(TypeError, match="template_arguments must be plain data"):
        HuggingFaceOptions(template_arguments={"x": object()})


def test_a_template_that_needs_tools_is_refused_by_name():
    tokenizer = tiny_tokenizer(["q"], template="{% for tool in tools %}{{ tool }}{% endfor %}")
    with pytest.raises(TemplateError, match="hermes refuses the conversation"):
        ChatTemplate(tokenizer, "hermes").render(asked("a"))
