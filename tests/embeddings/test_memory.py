import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from llama_index.tuning.vectors.embedder import Embedder, RememberingEmbedder
from tests.conftest import TableEmbedding


def asked(model):
    return [text for call in model.calls for text in call]


def test_a_text_is_embedded_once_and_the_vectors_are_the_models():
    model = TableEmbedding()
    embedder = RememberingEmbedder(model)
    first = embedder.documents(["a", "b", "a"])
    again = embedder.documents(["b", "c"])
    assert sorted(asked(model)) == ["a", "b", "c"]
    plain = Embedder(TableEmbedding())
    assert np.array_equal(first, plain.documents(["a", "b", "a"]))
    assert np.array_equal(again, plain.documents(["b", "c"]))


def test_queries_and_other_texts_are_kept_apart():
    model = TableEmbedding()
    embedder = RememberingEmbedder(model)
    embedder.documents(["a"])
    embedder.queries(["a"])
    embedder.queries(["a"])
    assert asked(model) == ["a", "a"]


def test_the_least_recently_used_is_forgotten():
    model = TableEmbedding()
    embedder = RememberingEmbedder(model, size=2)
    for text in "abaca":  # c drives out b, for a was used since
        embedder.documents([text])
    embedder.documents(["b"])
    assert asked(model) == ["a", "b", "c", "b"]
    assert embedder.documents(list("abcde")).shape == (5, 8)  # more than it can remember


def test_what_was_given_out_can_be_changed():
    embedder = RememberingEmbedder(TableEmbedding())
    embedder.documents(["a"])[:] = 0
    assert embedder.documents(["a"]).any()


def test_threads_share_it():
    embedder = RememberingEmbedder(TableEmbedding(), size=3)
    texts = [list("abcdef")[start : start + 2] for start in range(5)] * 40
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(embedder.documents, texts))
    wanted = Embedder(TableEmbedding())
    for given, vectors in zip(texts, found, strict=True):
        assert vectors == pytest.approx(wanted.documents(given))


def test_a_copy_works():
    model = TableEmbedding()
    embedder = copy.deepcopy(RememberingEmbedder(model, size=7))
    assert embedder.size == 7
    assert embedder.documents(["a"]).shape == (1, 8)
