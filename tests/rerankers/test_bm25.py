import copy
import pickle
import threading

import numpy as np
import pytest

from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.text.words import Analyzer

TEXTS = {
    "a": "the cat sat on the mat",
    "b": "a dog and a cat",
    "c": "fees and refunds of fees",
    "d": "dogs bark at night while every cat sleeps on its mat",
}


def built(texts=TEXTS, parts=1):
    index = BM25Index(Analyzer("english"))
    ids = list(texts)
    for part in np.array_split(ids, parts):
        index.add({id_: texts[id_] for id_ in part.tolist()})
    return index


def test_scores_agree_with_bm25s():
    import bm25s

    index = built(parts=3)
    analyzer = index.analyzer
    reference = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    reference.index([analyzer.words(text) for text in TEXTS.values()], show_progress=False)
    for query in ("cat on a mat", "refunded fees", "night"):
        expected = reference.get_scores(sorted(set(analyzer.query(query))))
        np.testing.assert_allclose(index.scores(query), expected, atol=1e-5)


def test_inserting_one_by_one_equals_building_at_once():
    assert built(parts=4).search("cat mat", 3) == built().search("cat mat", 3)


def test_deleting_equals_never_having_added():
    index = built()
    index.delete(["b", "unknown"])
    rest = built({id_: text for id_, text in TEXTS.items() if id_ != "b"})
    assert dict(index.search("cat and dog", 5)) == pytest.approx(
        dict(rest.search("cat and dog", 5))
    )
    assert "b" not in index
    assert len(index) == 3


def test_deleting_most_of_it_and_adding_again():
    index = built()
    index.delete(["a", "b", "c"])
    index.add({"a": TEXTS["a"], "c": TEXTS["c"], "b": TEXTS["b"]})
    assert dict(index.search("cat", 5)) == pytest.approx(dict(built().search("cat", 5)))


def test_adding_a_known_id_replaces_it():
    index = built()
    index.add({"a": "refunds only"})
    assert [id_ for id_, _ in index.search("mat", 5)] == ["d"]
    assert index.search("refund", 1)[0][0] == "a"


def test_nothing_is_found_for_unknown_words_or_in_an_empty_index():
    assert built().search("zebra ???", 3) == []
    assert BM25Index(Analyzer()).search("cat", 3) == []


def test_it_comes_back_from_its_arrays():
    index = built(parts=2)
    index.delete(["c"])
    arrays = index.to_arrays()
    again = BM25Index.from_arrays(index.analyzer, index.ids, arrays)
    assert again.search("cat mat", 3) == index.search("cat mat", 3)


def test_damaged_arrays_are_refused():
    index = built()
    arrays = index.to_arrays()
    with pytest.raises(ArtifactError, match="'codes' is missing"):
        BM25Index.from_arrays(index.analyzer, index.ids, {})
    with pytest.raises(ArtifactError, match="do not fit each other"):
        BM25Index.from_arrays(index.analyzer, index.ids[1:], arrays)
    far = {**arrays, "rows": arrays["rows"] + 100}
    with pytest.raises(ArtifactError, match="do not fit each other"):
        BM25Index.from_arrays(index.analyzer, index.ids, far)
    floats = {**arrays, "rows": arrays["rows"].astype(np.float32)}
    negative = {**arrays, "lengths": -arrays["lengths"]}
    for wrong in (floats, negative):
        with pytest.raises(ArtifactError, match="do not fit each other"):
            BM25Index.from_arrays(index.analyzer, index.ids, wrong)


@pytest.fixture
def busy():
    """An index that another thread adds to and deletes from."""
    index = BM25Index(Analyzer("none"))
    index.add({f"d{i}": f"w{i % 50} x" for i in range(1_000)})
    stop = threading.Event()

    def write():
        rng = np.random.default_rng(0)
        while not stop.is_set():
            index.add({f"d{i}": f"w{i % 50} x" for i in rng.integers(3_000, size=200).tolist()})
            index.delete([f"d{i}" for i in rng.integers(3_000, size=250).tolist()])

    thread = threading.Thread(target=write)
    thread.start()
    yield index
    stop.set()
    thread.join()


def saved(index):
    ids, arrays = index.parts()
    return BM25Index.from_arrays(index.analyzer, ids, arrays)


@pytest.mark.parametrize(
    "copied", [saved, copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))]
)
def test_a_copy_is_of_one_moment_while_others_write(busy, copied):
    for _ in range(30):
        other = copied(busy)
        assert {id_ for id_, _ in other.search("x", 5_000)} == set(other.ids)


def test_a_text_that_is_none_does_not_cost_the_old_one():
    index = built()
    with pytest.raises(AttributeError):
        index.add({"c": None})
    assert index.search("refund", 1)[0][0] == "c"


def test_one_id_is_not_a_list_of_ids():
    with pytest.raises(TypeError, match="doc_ids must be a list of ids, got 'abc'"):
        built().delete("abc")


@pytest.mark.parametrize("k", [0, -1, 2.0, "3", None, True])
def test_k_starts_at_one(k):
    with pytest.raises(ValueError, match="k must be a whole number >= 1, got"):
        built().search("cat", k)
    assert len(built().search("cat", np.int64(2))) == 2
