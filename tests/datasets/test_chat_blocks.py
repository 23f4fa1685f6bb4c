"""Nothing of a message is dropped in silence: it is written, or refused by name."""

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks.schema import CBEventType, EventPayload

from llama_index.tuning import ChatDataset, OpenAIFineTuningHandler
from llama_index.tuning.datasets.chat import FORMATS
from llama_index.tuning.datasets.formats.messages import message_record
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError

PIXEL = b"\x89PNG\r\n\x1a\n"


def collected(*messages):
    """What the handler makes of an exchange; the last message is the answer."""
    handler = OpenAIFineTuningHandler()
    start = {EventPayload.MESSAGES: list(messages[:-1])}
    handler.on_event_start(CBEventType.LLM, start, event_id="a")
    end = {EventPayload.RESPONSE: ChatResponse(message=messages[-1])}
    handler.on_event_end(CBEventType.LLM, end, event_id="a")
    return handler.get_dataset()


def user(*blocks):
    return ChatMessage(role="user", blocks=list(blocks))


def answer(*blocks):
    return ChatMessage(role="assistant", blocks=list(blocks))


def tool_turn(*result):
    call = ToolCallBlock(tool_call_id="c1", tool_name="fee", tool_kwargs={"account": "größer"})
    told = ChatMessage(role="tool", blocks=list(result), additional_kwargs={"tool_call_id": "c1"})
    return user(TextBlock(text="Fee?")), answer(call), told


@pytest.mark.parametrize("format", FORMATS)
def test_thoughts_are_refused_by_line_and_field_until_they_are_taken_out(format):
    thought = {"role": "assistant", "content": "5", "thinking": "Four? No."}
    worse = {"role": "assistant", "content": "6"}
    asked = {"role": "user", "content": "Fee?"}
    data = ChatDataset([ChatExample([asked, thought], rejected=worse)])
    with pytest.raises(DatasetError, match=r"line 1, messages\[1\].thinking: no format holds"):
        list(data.lines(format))
    [line] = data.without_thinking().lines(format)
    assert "Four?" not in str(line)
    assert data.examples[0].messages[1]["thinking"] == "Four? No."
    worse_thought = ChatDataset([ChatExample([asked, worse], rejected=thought)])
    with pytest.raises(DatasetError, match=r"line 1, rejected.thinking: no format holds"):
        list(worse_thought.lines(format))
    assert worse_thought.without_thinking().examples[0].rejected == {
        "role": "assistant", "content": "5",
    }  # fmt: skip


def test_a_thinking_block_comes_through_the_handler_and_is_refused(tmp_path):
    data = collected(
        user(TextBlock(text="Fee?")), answer(ThinkingBlock(content="Hm."), TextBlock(text="5"))
    )
    assert data.examples[0].messages[1] == {
        "role": "assistant", "content": "5", "thinking": "Hm.",
    }  # fmt: skip
    with pytest.raises(DatasetError, match="thinking"):
        data.save_jsonl(tmp_path / "a.jsonl", min_examples=1)
    assert not (tmp_path / "a.jsonl").exists()


def test_an_answer_of_thoughts_alone_is_refused():
    with pytest.raises(DatasetError, match=r"messages\[1\].content is empty"):
        collected(user(TextBlock(text="Fee?")), answer(ThinkingBlock(content="Hm.")))


def test_images_of_a_user_survive():
    image = ImageBlock(image=PIXEL, image_mimetype="image/png", detail="low")
    data = collected(user(TextBlock(text="What?"), image), answer(TextBlock(text="A card.")))
    [line] = data.lines("openai")
    [text, part] = line["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    assert part["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert part["image_url"]["detail"] == "low"


def test_tool_calls_and_their_results_survive():
    data = collected(*tool_turn(TextBlock(text="5")), answer(TextBlock(text="5 euros.")))
    [line] = data.lines("openai")
    called, told = line["messages"][1:3]
    assert called["content"] is None
    assert called["tool_calls"] == [
        {
            "id": "c1", "type": "function",
            "function": {"name": "fee", "arguments": '{"account": "größer"}'},
        }
    ]  # fmt: skip
    assert told == {"role": "tool", "tool_call_id": "c1", "content": "5"}


@pytest.mark.parametrize(
    ("block", "name"),
    [
        (ImageBlock(url="https://example.com/a.png"), "image_url"),
        (DocumentBlock(data=b"%PDF"), "document"),
        (AudioBlock(audio=b"RIFF"), "audio"),
    ],
)
def test_what_a_tool_result_cannot_hold_is_refused_by_name(block, name):
    with pytest.raises(DatasetError, match=rf"messages\[2\].content\[1\]: a part of type '{name}'"):
        collected(*tool_turn(TextBlock(text="see"), block), answer(TextBlock(text="5")))


def test_an_image_in_an_answer_is_refused_by_name():
    picture = answer(TextBlock(text="so"), ImageBlock(url="https://example.com/a.png"))
    with pytest.raises(DatasetError, match=r"messages\[1\].content\[1\]: a part of type 'image_u"):
        collected(user(TextBlock(text="Draw")), picture)


@pytest.mark.parametrize("key", ["function_call", "refusal", "audio", "reasoning_content"])
def test_a_key_that_no_format_would_write_is_refused(key):
    said = {"role": "assistant", "content": "5", key: {"name": "fee"}}
    with pytest.raises(DatasetError, match=rf"example 0, messages\[1\]: '{key}' cannot be trained"):
        ChatDataset.from_messages([[{"role": "user", "content": "q"}, said]])
    said[key] = None  # as clients' own objects print it
    assert len(ChatDataset.from_messages([[{"role": "user", "content": "q"}, said]])) == 1


def test_records_keep_what_the_lines_are_made_of():
    record = message_record(answer(ThinkingBlock(content="Hm."), TextBlock(text="5")))
    assert record == {"role": "assistant", "content": "5", "thinking": "Hm."}
