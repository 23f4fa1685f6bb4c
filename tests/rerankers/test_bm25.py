import numpy as np
import pytest

from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.rerankers.bm25 import BM25Index
from llama_index.tuning.rerankers.words import Analyzer

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
