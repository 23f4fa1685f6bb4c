import asyncio

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from llama_index.tuning.errors import VectorError
from llama_index.tuning.vectors.embedder import Embedder, document_vectors
from llama_index.tuning.vectors.identity import vector_space
from tests.conftest import TableEmbedding

CORPUS = {f"d{i}": f"text {i}" for i in range(25)}


def expected(model):
    return np.array([model.vector(text) for text in CORPUS.values()], dtype=np.float32)


class Prompted(TableEmbedding):
    """A model that treats queries otherwise than texts, as bge and e5 do."""

    def _get_query_embedding(self, query):
        self.note([query])
        return self.vector(f"query: {query}")


def test_each_distinct_text_is_embedded_once_in_full_batches_longest_first():
    model = TableEmbedding(embed_batch_size=10)
    matrix = Embedder(model).documents([*CORPUS.values(), *CORPUS.values()])
    assert np.array_equal(matrix, np.concatenate([expected(model)] * 2))
    assert [len(call) for call in model.calls] == [10, 10, 5]
    assert len(model.calls[0][0]) >= len(model.calls[-1][-1])


def test_queries_go_in_batches_where_the_model_treats_them_as_texts():
    model = TableEmbedding(embed_batch_size=50)
    matrix = Embedder(model).queries(list(CORPUS.values()))
    assert np.array_equal(matrix, expected(model))
    assert [len(call) for call in model.calls] == [1, 1, 25]  # two to see how, then the batch


def test_queries_keep_the_models_query_instruction():
    model = Prompted()
    matrix = Embedder(model).queries(["a?", "b?", "c?", "d?", "e?", "f?"])
    assert matrix[0].tolist() == pytest.approx(model.vector("query: a?"))
    assert matrix[5].tolist() == pytest.approx(model.vector("query: f?"))


def test_a_second_run_with_a_cache_embeds_nothing(tmp_path):
    cache = tmp_path / "deep" / "vectors.sqlite"
    first = Embedder(TableEmbedding(), cache=cache).documents(list(CORPUS.values()))
    model = TableEmbedding()
    second = Embedder(model, cache=cache).documents([*CORPUS.values(), "one more"])
    assert model.calls == [["one more"]]
    assert np.array_equal(first, second[:-1])


def test_the_cache_keeps_models_and_queries_apart_but_not_call_settings(tmp_path):
    one = vector_space(TableEmbedding())
    assert one != vector_space(TableEmbedding(model_name="other"))
    assert one != vector_space(Prompted())
    assert one == vector_space(TableEmbedding(embed_batch_size=99, num_workers=4))
    cache = tmp_path / "v.sqlite"
    Embedder(Prompted(), cache=cache).documents(["same text"])
    model = Prompted()
    Embedder(model, cache=cache).queries(["same text"])
    assert model.calls == [["same text"]]


def test_a_run_that_dies_keeps_what_it_had_embedded(tmp_path, monkeypatch):
    texts = [f"text {i:03}" for i in range(100)]
    answer = TableEmbedding._get_text_embeddings

    def die_at_the_21st(model, batch):
        if len(model.calls) == 20:
            raise ConnectionError("gone")
        return answer(model, batch)

    monkeypatch.setattr(TableEmbedding, "_get_text_embeddings", die_at_the_21st)
    with pytest.raises(ConnectionError):
        Embedder(TableEmbedding(embed_batch_size=2), cache=tmp_path / "v").documents(texts)
    monkeypatch.setattr(TableEmbedding, "_get_text_embeddings", answer)
    model = TableEmbedding(embed_batch_size=2)
    Embedder(model, cache=tmp_path / "v").documents(texts)
    assert len(model.calls) == 50 - 20  # each batch that was answered was on disk


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look at" * 50)
    with pytest.raises(VectorError, match=r"vector_cache: .*notes.txt is not a vector cache"):
        Embedder(TableEmbedding(), cache=tmp_path / "notes.txt").documents(["a"])


async def test_workers_overlap_and_it_runs_inside_an_event_loop():
    running = most = 0

    class Slow(TableEmbedding):
        async def _aget_text_embeddings(self, texts):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.005)
            running -= 1
            return self._get_text_embeddings(texts)

    model = Slow(embed_batch_size=2)
    matrix = Embedder(model, num_workers=3).documents(list(CORPUS.values()))
    assert np.array_equal(matrix, expected(model))
    assert most == 3


@pytest.mark.parametrize("store", ["dictionary", "array", "file", "index", "vector store"])
def test_vectors_come_from_where_they_are_already(tmp_path, store):
    model = TableEmbedding()
    matrix = expected(model)
    nodes = [
        TextNode(id_=id_, text=text, embedding=model.vector(text)) for id_, text in CORPUS.items()
    ]
    index = VectorStoreIndex(nodes, embed_model=model)
    np.save(tmp_path / "v.npy", matrix)
    source = {
        "dictionary": dict(zip(CORPUS, matrix.tolist(), strict=True)),
        "array": matrix,
        "file": tmp_path / "v.npy",
        "index": index,
        "vector store": index.vector_store,
    }[store]
    found = document_vectors(CORPUS, source, Embedder(model))
    np.testing.assert_allclose(found, matrix, atol=1e-6)
    assert model.calls == []


def test_only_what_is_missing_is_embedded():
    model = TableEmbedding()
    matrix = expected(model)
    known = dict(list(zip(CORPUS, matrix.tolist(), strict=True))[:-2])
    assert np.allclose(document_vectors(CORPUS, known, Embedder(model)), matrix)
    assert sorted(model.calls[0]) == ["text 23", "text 24"]


BAD = np.ones((25, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (BAD[:3], r"one row for each of the 25 documents in the corpus' order, got \(3, 3\)"),
        (BAD[0], "must have shape"),
        (BAD.astype(int), "must hold floating-point numbers, got int64"),
        (BAD * np.nan, "row 0 of the vectors holds NaN"),
        (BAD * 0, "row 0 of the vectors is all zeros"),
        ({"d1": [1.0, np.inf]}, r"vectors\['d1'\] holds NaN or infinite"),
        ({"d1": "text"}, r"vectors\['d1'\] must be a list of numbers"),
        ({"d1": [[1.0]]}, r"vectors\['d1'\] must be a list of numbers, got shape"),
        ({id_: [1.0] * (2 + (id_ == "d3")) for id_ in CORPUS}, r"several dimensions: \[2, 3\]"),
    ],
)
def test_bad_stored_vectors_are_named_before_any_embedding(source, words):
    model = TableEmbedding()
    with pytest.raises(VectorError, match=words):
        document_vectors(CORPUS, source, Embedder(model))
    assert model.calls == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([[1.0, float("nan")]], "the embedding of 'a' holds NaN"),
        ([[0.0, 0.0]], "the embedding of 'a' is all zeros"),
        ([], "gave 0 vectors for 1 texts"),
    ],
)
def test_a_models_bad_answer_names_the_text(answer, words):
    class Broken(TableEmbedding):
        def _get_text_embeddings(self, texts):
            return answer

    with pytest.raises(VectorError, match=words):
        Embedder(Broken()).documents(["a"])
