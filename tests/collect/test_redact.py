import pytest

from llama_index.tuning.collect import mask_secrets
from llama_index.tuning.collect.redact import redacted

SECRETS = [
    "sk-proj-abcdefghijklmnop1234",
    "ghp_abcdefghijklmnopqrst1234",
    "hf_abcdefghijklmnopqrstuvwx",
    "xoxb-1234567890-abcdef",
    "AKIAABCDEFGHIJKLMNOP",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_keys_are_masked_wherever_they_stand(secret):
    assert mask_secrets(f"Use {secret}, please") == "Use [API KEY], please"


def test_a_named_key_keeps_its_name():
    masked = mask_secrets("Authorization: Bearer abcdef123456ghij\nAPI_KEY = 'zyx9876543210abc'")
    assert masked == "Authorization: Bearer [API KEY]\nAPI_KEY = '[API KEY]'"


@pytest.mark.parametrize("address", ["ann@example.com", "a.b+c@mail.example.co.uk", "ö@müller.de"])
def test_addresses_are_masked(address):
    assert mask_secrets(f"Write to {address}!") == "Write to [EMAIL]!"


@pytest.mark.parametrize(
    "text",
    ["The key question is the monkey's.", "risk-free", "a_b gh hf_", "@home", "api key: see below"],
)
def test_ordinary_words_stay(text):
    assert mask_secrets(text) == text


def test_every_text_in_a_record_is_masked_and_keys_and_numbers_stay():
    record = {"a@b.de": ["x@y.de", {"n": 1, "none": None}], "t": ("z@y.de",), "id": "i@y.de"}
    assert redacted(record, mask_secrets) == {
        "a@b.de": ["[EMAIL]", {"n": 1, "none": None}],
        "t": ["[EMAIL]"],
        "id": "i@y.de",
    }
