import pytest

from llama_index.tuning import OpenAIFinetuneEngine
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.llms.hosted.files import estimate_job, read_files
from llama_index.tuning.llms.hosted.options import JobOptions
from tests.jobs_server import JobsServer

from .hosted_parts import MODEL, chats, engine_on, preferences

FEE = {"type": "function", "function": {"name": "fee", "parameters": {"type": "object"}}}


def words(text):
    return text.split()


def estimate(data, method="supervised", epochs="auto", price=None):
    options = JobOptions(model=MODEL, method=method)
    files = read_files(options, data, None, validate=True, min_examples=1)
    return estimate_job(files.training, epochs, price, words)


def test_a_conversation_is_counted_as_openai_counts_it():
    # Per message 3 and its role, texts 5 and 2, and 3 for the answer.
    found = estimate(chats(1), epochs=2, price=5.0)
    assert (found.tokens, found.longest) == (2 * (3 + 1) + 5 + 2 + 3, 18)
    assert (found.epochs, found.epochs_assumed, found.trained_tokens) == (2, False, 36)
    assert found.cost == pytest.approx(36 * 5 / 1e6)
    assert str(found) == (
        "1 examples, 18 tokens, 2 epochs: 36 trained tokens, about 0.00018 at 5.0 a million"
    )


def test_tools_calls_and_pairs_are_counted():
    call = {"id": "a", "type": "function", "function": {"name": "fee", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "Fee?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "5"},
        {"role": "assistant", "content": "5"},
    ]
    one = estimate(ChatDataset([ChatExample(messages)]))
    two = estimate(ChatDataset([ChatExample(messages, [FEE])]))
    assert one.tokens == 4 * 4 + 3 + 1 + 3 + 1 + 1
    assert two.tokens == one.tokens + 8  # the schema's words
    pair = estimate(preferences(1), "dpo")
    assert (pair.examples, pair.tokens, pair.longest) == (1, 18 + 18, 18)


def test_epochs_left_to_the_server_are_assumed():
    found = estimate(chats(10))
    assert (found.epochs, found.epochs_assumed) == (3, True)
    assert "3 epochs (assumed)" in str(found)
    with pytest.raises(ValueError, match="price must be a number > 0, got nan"):
        OpenAIFinetuneEngine(MODEL, chats()).estimate(price=float("nan"))


def test_the_default_tokenizer_needs_no_network_and_the_estimate_no_server():
    found = OpenAIFinetuneEngine(MODEL, chats()).estimate(price=3.0)
    assert found.examples == 12
    assert found.to_dict()["cost"] == found.trained_tokens * 3.0 / 1e6


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path):
    path = tmp_path / "train.jsonl"
    chats().save_jsonl(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert estimate(path).examples == 12


def test_shared_lines_of_training_and_validation_are_told(caplog):
    with JobsServer() as server:
        engine_on(server, chats(), validation_data=chats(3)).finetune()
    assert "3 lines of validation_data are in data_path too" in caplog.text


def test_worse_answers_that_are_not_sent_are_told(caplog):
    estimate(preferences(), method="dpo")
    assert "worse" not in caplog.text
    estimate(preferences())
    assert "12 conversations of data_path have a worse answer" in caplog.text
