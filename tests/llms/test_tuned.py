"""The served LLM: a tiny model that knows its conversations by heart."""

import asyncio
import copy
import pickle
import time

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.prompts import PromptTemplate

from llama_index.tuning import TunedHuggingFaceLLM
from llama_index.tuning.errors import ArtifactError, BaseModelError, TemplateError
from llama_index.tuning.llms.serving.generation import generation_settings
from llama_index.tuning.llms.serving.loading import Source, load_model, load_tokenizer
from llama_index.tuning.llms.serving.tool_parsers import HermesToolParser
from tests.llms.conftest import FEES, City, fee_tool, json_chats, learn_by_heart, question, request
from tests.llms.tiny import PLAIN_TEMPLATE, tiny_model, tiny_tokenizer

HI = [ChatMessage(role="user", content="Hi Oslo")]


def asked(text):
    return [ChatMessage(role="user", content=text)]


def test_it_chats_streams_and_completes_alike(tuned):
    assert tuned.chat(HI).message.content == "Hello!"
    pieces = list(tuned.stream_chat(HI))
    assert "".join(piece.delta for piece in pieces) == pieces[-1].message.content == "Hello!"
    assert tuned.complete("Hi Oslo").text == "Hello!"
    streamed = list(tuned.stream_complete("Hi Oslo"))
    assert "".join(piece.delta for piece in streamed) == streamed[-1].text == "Hello!"


async def test_it_does_so_asynchronously(tuned):
    assert (await tuned.achat(HI)).message.content == "Hello!"
    pieces = [piece async for piece in await tuned.astream_chat(HI)]
    assert "".join(piece.delta for piece in pieces) == "Hello!"
    assert (await tuned.acomplete("Hi Oslo")).text == "Hello!"
    streamed = [piece async for piece in await tuned.astream_complete("Hi Oslo")]
    assert streamed[-1].text == "Hello!"


async def test_the_event_loop_goes_on_meanwhile(tuned):
    beats = []

    async def heart():
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.005)

    beating = asyncio.create_task(heart())
    await tuned.achat(HI, min_new_tokens=60, max_tokens=60)
    beating.cancel()
    assert len(beats) > 5


def test_it_says_where_it_stopped_and_counts_tokens(tuned):
    raw = tuned.chat(HI).raw
    assert raw["finish_reason"] == "stop"
    assert raw["usage"]["total_tokens"] == sum(
        raw["usage"][key] for key in ("prompt_tokens", "completion_tokens")
    )
    cut = tuned.chat(HI, max_tokens=1)
    assert cut.raw["finish_reason"] == "length"
    assert cut.raw["usage"]["completion_tokens"] == 1


def test_settings_of_a_call_are_honoured(tuned):
    assert tuned.complete("Hi Oslo", stop=["ell"]).text.startswith("Hell")
    assert len(tuned.complete("Hi Oslo", stop=["ell"]).text) < len("Hello!")
    hot = {"temperature": 5.0, "max_tokens": 12}
    one, other = (tuned.complete("Hi Oslo", seed=1, **hot).text for _ in range(2))
    assert one == other
    assert len({tuned.complete("Hi Oslo", seed=seed, **hot).text for seed in range(4)}) > 1
    assert tuned.complete("Hi Oslo", temperature=0).text == "Hello!"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"max_tokens": 0}, ValueError, "max_tokens must be >= 1, got 0"),
        ({"temperature": -1}, ValueError, "temperature must be >= 0, got -1"),
        ({"temperature": "a"}, ValueError, "temperature must be >= 0, got 'a'"),
        ({"top_p": 7}, ValueError, "top_p must be above 0 and at most 1, got 7"),
        ({"top_k": 0}, ValueError, "top_k must be >= 1, got 0"),
        ({"stop": 5}, ValueError, "stop must be a text or a list of texts, none empty, got 5"),
        ({"seed": "x"}, ValueError, "seed must be a whole number, got 'x'"),
        ({"tool_choice": "zz"}, ValueError, "tool_choice is 'zz', and there are no tools"),
        ({"colour": "red"}, TypeError, "unknown argument 'colour'"),
        ({"tools": [fee_tool()], "tool_choice": "fees"}, ValueError, "the tools are: fee"),
    ],
)
def test_a_wrong_setting_is_named(tuned, call, error, message):
    with pytest.raises(error, match=message):
        tuned.chat(HI, **call)


def test_a_prompt_without_room_for_a_reply_is_refused(tuned):
    with pytest.raises(ValueError, match=r"the context window of .* 512: there is no room"):
        tuned.complete("word " * 600)


def test_many_conversations_at_once_are_answered_as_each_alone(tuned):
    conversations = [asked(question("Oslo")), HI, asked("Hi Lima, and more")]
    together = [r.message.content for r in tuned.chat_batch(conversations, batch_size=2)]
    assert together == [tuned.chat(one).message.content for one in conversations]


def test_a_long_conversation_beside_it_cuts_no_reply_short():
    llm = plain(context_window=80)
    replies = llm.chat_batch([HI, asked("Hi Oslo" * 5)], max_tokens=40)
    alone = [llm.chat(one, max_tokens=40) for one in (HI, asked("Hi Oslo" * 5))]
    assert [reply.raw for reply in replies] == [reply.raw for reply in alone]
    assert alone[1].raw["usage"]["total_tokens"] == 80 > alone[0].raw["usage"]["total_tokens"]


def test_leaving_a_stream_early_ends_the_generation(tuned):
    stream = tuned.stream_chat(HI, min_new_tokens=400, max_tokens=400)
    next(stream)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 2
    assert tuned.chat(HI).message.content == "Hello!"


def test_its_name_is_the_folder(tuned, tuned_folder):
    assert tuned.metadata.model_name == str(tuned_folder)
    assert tuned.to_dict()["model_name"] == str(tuned_folder)
    assert tuned.metadata.is_chat_model
    assert tuned.metadata.is_function_calling_model


@pytest.mark.parametrize(("city", "euros"), FEES.items())
def test_it_calls_tools(tuned, city, euros):
    response = tuned.chat_with_tools([fee_tool()], question(city))
    (call,) = tuned.get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("fee", {"city": city})
    asking = asked(question(city))[0]
    assert str(tuned.predict_and_call([fee_tool()], user_msg=asking)) == str(euros)
    pieces = list(tuned.stream_chat_with_tools([fee_tool()], question(city)))
    assert tuned.get_tool_calls_from_response(pieces[-1])[0].tool_kwargs == {"city": city}
    assert not any("<tool" in (piece.delta or "") for piece in pieces)


def test_a_call_is_forced_where_one_is_required(tuned):
    forced = tuned.chat_with_tools([fee_tool()], "Hi Oslo", tool_required=True)
    assert forced.message.blocks[-1].tool_name == "fee"
    none = tuned.chat(HI, tools=[fee_tool()], tool_choice="none")
    assert none.message.content == "Hello!"
    with pytest.raises(ValueError, match="the reply calls no tool: 'Hello!'"):
        tuned.get_tool_calls_from_response(none)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("city", "euros"), FEES.items())
async def test_an_agent_runs_on_it(tuned, city, euros, streaming):
    agent = FunctionAgent(tools=[fee_tool()], llm=tuned, streaming=streaming)
    assert str(await agent.run(question(city))) == f"In {city} it is {euros} euros."


@pytest.mark.parametrize(("city", "euros"), FEES.items())
async def test_it_fills_in_a_pydantic_class(tuned, city, euros):
    found = tuned.as_structured_llm(City).complete(request(city)).raw
    assert found == City(name=city, fee=euros)
    program = FunctionCallingProgram.from_defaults(
        City, prompt=PromptTemplate("{request}"), llm=tuned
    )
    assert program(request=request(city)) == found
    assert await program.acall(request=request(city)) == found
    streamed = tuned.stream_structured_predict(City, program.prompt, request=request(city))
    assert list(streamed)[-1] == found


async def test_a_text_completion_program_runs_on_a_model_tuned_for_it(tmp_path):
    chats = json_chats()
    folder = learn_by_heart(tmp_path, chats, steps=60)
    llm = TunedHuggingFaceLLM.load(folder, device="cpu", max_new_tokens=60)
    program = LLMTextCompletionProgram.from_defaults(
        output_parser=PydanticOutputParser(output_cls=City),
        prompt_template_str="{request}",
        llm=llm,
    )
    for example, (city, euros) in zip(chats.examples, FEES.items(), strict=True):
        sent = program.prompt.format_messages(llm=llm, request=request(city))
        assert [m.content for m in sent] == [m["content"] for m in example.messages[:-1]]
        assert program(request=request(city)) == City(name=city, fee=euros)
        assert await program.acall(request=request(city)) == City(name=city, fee=euros)


def test_its_repr_is_finite(tuned):
    assert "TunedHuggingFaceLLM" in repr(tuned)


def plain(bos=False, template=PLAIN_TEMPLATE, **kwargs):
    from tokenizers import processors

    template = "{{ bos_token }}" + template if bos else template
    tokenizer = tiny_tokenizer(["abc def"], template=template)
    if bos:
        tokenizer.bos_token = "<|pad|>"
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|pad|> $A", special_tokens=[("<|pad|>", tokenizer.bos_token_id)]
        )
    model = tiny_model(tokenizer)
    return TunedHuggingFaceLLM(model, tokenizer, model_name="plain", max_new_tokens=3, **kwargs)


def test_a_template_without_tools_makes_no_function_calling_model():
    llm = plain()
    assert not llm.metadata.is_function_calling_model
    with pytest.raises(ValueError, match="knows no tools"):
        llm.chat(HI, tools=[fee_tool()])


def test_no_message_is_no_conversation():
    llm = plain()
    for call in (llm.chat, llm.stream_chat, lambda m: llm.chat_batch([HI, m])):
        with pytest.raises(ValueError, match="messages must hold at least one message, got none"):
            list(call([]))
    with pytest.raises(ValueError, match="max_tokens must be >= 1, got 0"):
        llm.chat(HI, max_tokens=0)


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([{"role": "user", "content": "hi"}], TypeError, "must hold ChatMessages, got dict"),
        (HI[0], TypeError, "must hold ChatMessages, got tuple"),
        ([ChatMessage(role="user", content="\ud800")], ValueError, "half a character"),
    ],
)
def test_what_is_no_conversation_is_named(messages, error, message):
    with pytest.raises(error, match=message):
        plain().chat_batch([messages])


@pytest.mark.parametrize("tools", ["fee", [len], [{"name": "fee"}]])
def test_what_is_no_tool_is_named(tools):
    with pytest.raises(TypeError, match="tools must hold tools or their schemas"):
        plain().chat_with_tools(tools, "hi")


def test_it_can_be_copied_and_pickled():
    llm = plain(system_prompt="Be brief.")
    said = llm.complete("abc").text
    for twin in (copy.copy(llm), copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        assert twin.complete("abc").text == said
        assert twin.messages_to_prompt(HI) == llm.messages_to_prompt(HI)


def test_odd_settings_of_a_call():
    llm = plain()
    assert llm.complete("a", max_tokens=None, stop=None).text == llm.complete("a").text
    with pytest.raises(ValueError, match="the prompt is empty"):
        llm.complete("", formatted=True)
    with pytest.raises(ValueError, match="num_return_sequences must be 1"):
        llm.complete("a", num_return_sequences=3, do_sample=True)


def test_a_strange_tokenizer_is_named():
    many = tiny_tokenizer(["Fee in Oslo for one and two euros."] * 9, vocabulary=600)
    with pytest.raises(BaseModelError, match="they do not belong together"):
        TunedHuggingFaceLLM(tiny_model(tiny_tokenizer(["a"], vocabulary=261)), many, model_name="x")


def test_bos_is_there_once():
    llm = plain(bos=True)
    bos = llm.tokenizer.bos_token_id
    assert llm._encode(llm.messages_to_prompt(HI)).count(bos) == 1
    assert llm._encode("no template").count(bos) == 1
    assert llm.complete("hello").text is not None  # token_type_ids are not handed on


def test_a_system_prompt_goes_first_unless_there_is_one():
    llm = plain(system_prompt="Be brief.")
    assert llm.messages_to_prompt(HI).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    own = [ChatMessage(role="system", content="Mine."), *HI]
    assert "Be brief." not in llm.messages_to_prompt(own)


def test_a_default_may_be_named_as_in_a_call():
    short = plain(generate_kwargs={"max_tokens": 1}).complete("abc")
    assert short.raw == plain().complete("abc", max_tokens=1).raw


def test_a_template_that_leaves_a_system_message_out_is_named():
    """Its words would be lost, and an app would not notice."""
    told = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    template = PLAIN_TEMPLATE.replace(told, f"{{% if m.role != 'system' %}}{told}{{% endif %}}")
    llm = plain(template=template, system_prompt="Be brief.")
    with pytest.raises(TemplateError, match="no place for a message of the role 'system'"):
        llm.chat(HI)


def test_a_template_that_writes_a_first_system_message_alone_is_named():
    told = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    first = f"{{% if m.role != 'system' or loop.first %}}{told}{{% endif %}}"
    llm = plain(template=PLAIN_TEMPLATE.replace(told, first))
    brief = ChatMessage(role="system", content="Be brief.")
    assert llm.chat([brief, *HI]).message.content is not None
    with pytest.raises(TemplateError, match="'system' after the first message"):
        llm.chat([*HI, ChatMessage(role="assistant", content="hello"), brief, *HI])


def test_a_default_that_generate_does_not_know_is_named():
    with pytest.raises(TypeError, match="unknown argument 'colour'"):
        plain(generate_kwargs={"colour": "red"})


def test_a_damaged_folder_is_refused(tuned_folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tuned_folder, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"0000")
    with pytest.raises(ArtifactError, match=r"model.safetensors is not what was saved"):
        TunedHuggingFaceLLM.load(copy)
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"model.safetensors is missing"):
        TunedHuggingFaceLLM.load(copy)
    with pytest.raises(ArtifactError, match="holds no saved component"):
        TunedHuggingFaceLLM.load(tmp_path)
    with pytest.raises(ArtifactError, match="has no merged weights"):
        TunedHuggingFaceLLM.load(tuned_folder, merged=True)


def test_the_folder_is_a_model_for_plain_transformers_too(tuned, tuned_folder):
    import torch

    source = Source(str(tuned_folder), local=True)
    model, tokenizer = load_model(source, device="cpu"), load_tokenizer(source)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi Oslo"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    with torch.no_grad():
        out = model.generate(ids, max_new_tokens=20, do_sample=False)
    assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == "Hello!"
    assert not list(tuned_folder.rglob("*.bin"))  # no pickle


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', "", [("f", {"a": 1})]),
        ('Well.\n<tool_call>{"name": "f"}</tool_call>', "Well.", [("f", {})]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 2}"}', "", [("f", {"a": 2})]),
        (
            '<tool_call>{"name": "f"}</tool_call><tool_call>{"name": "g"}</tool_call>',
            "",
            [("f", {}), ("g", {})],
        ),
        ("<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", []),
        ('<tool_call>["f"]</tool_call>', '<tool_call>["f"]</tool_call>', []),
        ("no call < 5", "no call < 5", []),
    ],
)
def test_calls_are_parsed_and_what_is_none_stays_text(text, content, calls):
    reply = HermesToolParser().parse(text)
    assert reply.content == content
    assert [(call.name, call.arguments) for call in reply.calls] == calls


def test_what_may_become_a_call_is_held_back():
    visible = HermesToolParser().visible
    assert visible("fine <tool") == "fine "
    assert visible("fine <tool_call>{") == "fine "
    assert visible("a < b") == "a < b"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, "device 'gpu' is not on this machine"),
        ({"quantize": "8bit"}, ValueError, "unknown quantize '8bit'; choose one of: 4bit, None"),
        ({"tool_parser": 5}, TypeError, "tool_parser must be a ToolParser, got 5"),
        ({"context_window": 0}, ValueError, "context_window must be a whole number >= 1, got 0"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be a whole number >= 1, got 0"),
        ({"max_new_tokens": "9"}, ValueError, "max_new_tokens must be a whole number >= 1"),
    ],
)
def test_a_wrong_argument_of_loading_is_named(tuned_folder, arguments, error, message):
    with pytest.raises(error, match=message):
        TunedHuggingFaceLLM.load(tuned_folder, **arguments)


def test_top_p_alone_samples():
    settings, _, _ = generation_settings({}, {"top_p": 0.9})
    assert settings["do_sample"]
    assert settings["top_p"] == 0.9
    assert not generation_settings({}, {"top_p": 0.9, "temperature": 0})[0]["do_sample"]
    assert not generation_settings({}, {"max_tokens": 5})[0]["do_sample"]
