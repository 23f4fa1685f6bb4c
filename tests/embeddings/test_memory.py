import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.memory import LatestVectors
from tests.conftest import TableEmbedding


def asked(model):
    return [text for call in model.calls for text in call]


def test_a_text_is_embedded_once_and_the_vectors_are_the_models():
    model = TableEmbedding()
    embedder = Embedder(model, known=LatestVectors())
    first = embedder.documents(["a", "b", "a"])
    again = embedder.documents(["b", "c"])
    assert sorted(asked(model)) == ["a", "b", "c"]
    plain = Embedder(TableEmbedding())
    assert np.array_equal(first, plain.documents(["a", "b", "a"]))
    assert np.array_equal(again, plain.documents(["b", "c"]))


def test_queries_and_other_texts_are_kept_apart():
    model = TableEmbedding()
    embedder = Embedder(model, known=LatestVectors())
    embedder.documents(["a"])
    embedder.queries(["a"])
    embedder.queries(["a"])
    assert asked(model) == ["a", "a"]


def test_the_least_recently_used_is_forgotten():
    model = TableEmbedding()
    embedder = Embedder(model, known=LatestVectors(2))
    for text in "abaca":  # c drives out b, for a was used since
        embedder.documents([text])
    embedder.documents(["b"])
    assert asked(model) == ["a", "b", "c", "b"]
    assert embedder.documents(list("abcde")).shape == (5, 8)  # more than it can remember


def test_what_was_given_out_can_be_changed():
    embedder = Embedder(TableEmbedding(), known=LatestVectors())
    embedder.documents(["a"])[:] = 0
    assert embedder.documents(["a"]).any()


def test_threads_share_it():
    embedder = Embedder(TableEmbedding(), known=LatestVectors(3))
    texts = [list("abcdef")[start : start + 2] for start in range(5)] * 40
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(embedder.documents, texts))
    wanted = Embedder(TableEmbedding())
    for given, vectors in zip(texts, found, strict=True):
        assert vectors == pytest.approx(wanted.documents(given))


def test_a_copy_works():
    model = TableEmbedding()
    embedder = copy.deepcopy(Embedder(model, known=LatestVectors(7)))
    assert embedder.known.size == 7
    assert embedder.documents(["a"]).shape == (1, 8)


def test_embedders_that_share_a_dictionary_embed_a_text_once():
    model, known = TableEmbedding(), {}
    first = Embedder(model, known=known).documents(["a", "b"])
    again = Embedder(model, known=known)
    assert np.array_equal(again.documents(["b", "a"]), first[::-1])
    again.queries(["a"])
    assert sorted(asked(model)) == ["a", "a", "b"]


def test_without_a_model_known_vectors_are_given_and_others_named():
    known = {("text", "a"): np.ones(3, np.float32)}
    embedder = Embedder(None, known=known)
    assert embedder.documents(["a", "a"]).shape == (2, 3)
    with pytest.raises(ValueError, match="1 documents have no vector; pass an embed_model"):
        embedder.documents(["a", "b"])
    with pytest.raises(ValueError, match="1 queries have no vector; pass an embed_model"):
        embedder.queries(["a"])
