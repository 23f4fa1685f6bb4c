"""Two threads that build transformers models at once would spoil each other's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llama_index.tuning.embeddings.full.model import load_model
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.hf.cross_encoders import load_cross_encoder
from tests.tiny_bert import save_tiny_bert


def cross_encoder():
    return load_cross_encoder("model", device="cpu", trust_remote_code=False)


def embedding_model():
    with pytest.raises(ArtifactError):  # the stand-in cannot encode
        load_model("model", "cpu", trust_remote_code=False)


@pytest.mark.parametrize("load", [cross_encoder, embedding_model])
def test_models_are_built_one_after_the_other(load, monkeypatch):
    building, most = threading.Semaphore(2), []

    class Slow:
        def __init__(self, *args, **kwargs):
            assert building.acquire(blocking=False)
            most.append(building._value)
            time.sleep(0.02)
            building.release()

    import sentence_transformers

    for name in ("CrossEncoder", "SentenceTransformer"):
        monkeypatch.setattr(sentence_transformers, name, Slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load(), range(4)))
    assert most == [1, 1, 1, 1]


def test_a_cross_encoder_with_other_outputs_is_named(tmp_path):
    from transformers import BertForSequenceClassification

    folder = save_tiny_bert(tmp_path / "model", ["a fee"])
    BertForSequenceClassification.from_pretrained(
        folder, num_labels=3, ignore_mismatched_sizes=True
    ).save_pretrained(folder)
    with pytest.raises(ArtifactError, match="is a classifier of 3 outputs"):
        load_cross_encoder(folder, device="cpu", trust_remote_code=False)
