import json
import threading

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

from llama_index.tuning import OpenAIFineTuningHandler
from llama_index.tuning.errors import DatasetError


@pytest.fixture
def handler():
    return OpenAIFineTuningHandler()


def with_handler(llm, handler):
    llm.callback_manager = CallbackManager([handler])
    return llm


def test_prompts_of_complete_are_recorded_as_text(handler, scripted):
    with_handler(scripted("5 euros."), handler).complete("Fee?")
    [event] = handler.get_finetuning_events().values()
    assert [message.content for message in event["messages"]] == ["Fee?"]
    assert event["response"].content == "5 euros."


@pytest.mark.parametrize("call", ["chat", "stream_chat", "complete", "stream_complete"])
async def test_a_chat_answered_through_complete_is_one_event(handler, call):
    from llama_index.core.llms import MockLLM

    llm = with_handler(MockLLM(max_tokens=2), handler)
    given = [ChatMessage(content="q")] if "chat" in call else "q"
    result = getattr(llm, call)(given)
    if "stream" in call:
        assert list(result)
    again = await getattr(llm, f"a{call}")(given)
    if "stream" in call:
        assert [chunk async for chunk in again]
    events = handler.get_finetuning_events()
    assert len(events) == 2
    assert {event["messages"][0].content for event in events.values()} == {"q"}


def test_the_callers_messages_stay_as_they_were(handler, function_llm):
    llm = function_llm(lambda messages, **_: ChatMessage(role="assistant", content="a"))
    messages = [ChatMessage(content="q")]
    with_handler(llm, handler).chat(messages)
    assert len(messages) == 1
    messages[0].blocks[0].text = "changed"
    [event] = handler.get_finetuning_events().values()
    assert event["messages"][0].content == "q"


def test_a_failed_call_is_no_event_and_no_error(handler, scripted):
    llm = with_handler(scripted(RuntimeError("no credit"), "fine"), handler)
    with pytest.raises(RuntimeError, match="no credit"):
        llm.complete("q")
    llm.complete("q")
    assert len(handler.get_finetuning_events()) == 1


def test_an_empty_answer_costs_no_other_exchange(handler, scripted, tmp_path, caplog):
    llm = with_handler(scripted("", *["fine"] * 10), handler)
    for n in range(11):
        llm.complete(f"q{n}")
    handler.save_finetuning_events(tmp_path / "a.jsonl")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 10
    assert "1 exchanges are left out" in caplog.text


def test_tools_are_saved_and_the_file_holds_valid_lines(handler, function_llm, tmp_path):
    def fee(account: str) -> str:
        """The fee."""
        return "5"

    def respond(messages, **kwargs):
        call = {"tool_call_id": "c", "tool_name": "fee", "tool_kwargs": {"account": "basic"}}
        return ChatMessage(role="assistant", blocks=[{"block_type": "tool_call", **call}])

    llm = with_handler(function_llm(respond), handler)
    for n in range(10):
        llm.chat_with_tools([FunctionTool.from_defaults(fee)], user_msg=f"Fee {n}?")
    handler.save_finetuning_events(str(tmp_path / "a.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert lines[0]["tools"][0]["function"]["name"] == "fee"
    assert lines[0]["messages"][-1]["tool_calls"][0]["function"]["arguments"] == (
        '{"account": "basic"}'
    )


def test_nothing_collected_is_an_error_and_little_a_warning_as_the_old_handler_wrote_it(
    handler, scripted, tmp_path
):
    with pytest.raises(DatasetError, match="is this handler in the callback manager"):
        handler.save_finetuning_events(tmp_path / "a.jsonl")
    with_handler(scripted(), handler).complete("q")
    with pytest.warns(UserWarning, match="has 1 examples; OpenAI asks for at least 10"):
        handler.save_finetuning_events(tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text().count("messages") == 1
    with pytest.raises(DatasetError, match="1 examples, at least 2 are needed"):
        handler.save_finetuning_events(tmp_path / "b.jsonl", min_examples=2)


def test_threads_with_equal_answers_keep_their_events(handler, scripted):
    llm = with_handler(scripted("Yes."), handler)
    threads = [threading.Thread(target=llm.complete, args=(f"q{n}",)) for n in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(handler.get_finetuning_events()) == 16


def test_the_old_ways_responses_as_plain_text_are_taken(handler):
    handler.on_event_start(CBEventType.LLM, {EventPayload.PROMPT: "q"}, event_id="1")
    handler.on_event_end(CBEventType.LLM, {EventPayload.RESPONSE: "a"}, event_id="1")
    handler.on_event_end(CBEventType.LLM, {EventPayload.RESPONSE: "a"}, event_id="unknown")
    handler.on_event_start(CBEventType.QUERY, {EventPayload.QUERY_STR: "q"}, event_id="2")
    assert handler.get_finetuning_events()["1"]["response"].content == "a"
