import pytest

from llama_index.tuning.datasets.chat import ChatDataset, ChatExample
from llama_index.tuning.llms.hosted_estimate import estimate_job
from llama_index.tuning.llms.hosted_file import TrainingFile, training_file

from .hosted_parts import MODEL, chats, engine_on, preferences

FEE = {"type": "function", "function": {"name": "fee", "parameters": {"type": "object"}}}


def words(text):
    return text.split()


def file_of(data, method="supervised"):
    return training_file(data, method, min_examples=1, validate=True, name="data")


def test_a_conversation_is_counted_as_openai_counts_it():
    # Per message 3 and its role, texts 5 and 2, and 3 for the answer.
    found = estimate_job(file_of(chats(1)), {"n_epochs": 2}, price=5.0, tokenizer=words)
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
    one = estimate_job(file_of(ChatDataset([ChatExample(messages)])), {}, tokenizer=words)
    two = estimate_job(file_of(ChatDataset([ChatExample(messages, [FEE])])), {}, tokenizer=words)
    assert one.tokens == 4 * 4 + 3 + 1 + 3 + 1 + 1
    assert two.tokens == one.tokens + 8  # the schema's words
    pair = estimate_job(file_of(preferences(1), "dpo"), {}, tokenizer=words)
    assert (pair.examples, pair.tokens, pair.longest) == (1, 18 + 18, 18)


@pytest.mark.parametrize(
    ("examples", "epochs"), [(10, 10), (3, 25), (34, 3), (5_000, 3), (10_000, 2), (30_000, 1)]
)
def test_epochs_left_to_the_server_are_assumed(examples, epochs):
    row = b'{"messages": []}\n'
    found = estimate_job(TrainingFile(row * examples, "x"), {}, tokenizer=words)
    assert (found.epochs, found.epochs_assumed) == (epochs, True)


def test_images_are_told_as_not_counted():
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "A card."}]
    found = estimate_job(file_of(ChatDataset([ChatExample(messages)])), {}, tokenizer=words)
    assert found.images == 1
    assert "1 images are not counted" in str(found)


def test_the_default_tokenizer_needs_no_network_and_the_estimate_no_server():
    engine = engine_on_nothing(price=3.0)
    found = engine.estimate()
    assert found.tokenizer == "LlamaIndex's default (cl100k)"
    assert found.examples == 12
    assert found.to_dict()["cost"] == found.trained_tokens * 3.0 / 1e6


def engine_on_nothing(**options):
    from llama_index.tuning import OpenAIFinetuneEngine

    return OpenAIFinetuneEngine(MODEL, chats(), **options)


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path):
    path = tmp_path / "train.jsonl"
    chats().save_jsonl(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert estimate_job(file_of(path), {}, tokenizer=words).examples == 12


def test_shared_lines_of_training_and_validation_are_told(caplog):
    from tests.jobs_server import JobsServer

    with JobsServer() as server:
        engine_on(server, chats(), validation_data=chats(3)).finetune()
    assert "3 lines of validation_data are in data_path too" in caplog.text
