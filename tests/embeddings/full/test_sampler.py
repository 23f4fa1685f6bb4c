import pytest

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.embeddings.full.data import pair_rows
from llama_index.tuning.embeddings.full.train import ApartBatchSampler
from llama_index.tuning.errors import DatasetError


def dataset(documents=12, each=3, extra=True):
    corpus = {f"d{i}": f"document {i}" for i in range(documents)}
    queries = {f"q{i}-{j}": f"question {j} of {i}" for i in range(documents) for j in range(each)}
    relevant = {id_: [f"d{int(id_[1:].split('-')[0])}"] for id_ in queries}
    if extra:  # the same query, two documents; and a second relevant one elsewhere
        relevant["q0-0"] = ["d0", "d1"]
    return RetrievalDataset(queries, corpus, relevant)


def sampler(rows, size, processes=1, seed=0, epoch=0):
    made = ApartBatchSampler(
        [0] * len(rows), size, shown=rows.shown, barred=rows.barred, processes=processes, seed=seed
    )
    made.set_epoch(epoch)
    return made


def rows_of(data, **arguments):
    return pair_rows(
        [data], arguments.pop("negatives", {}), arguments.pop("count", 0), all_docs=True, seed=0
    )


def test_no_batch_holds_a_document_that_is_relevant_to_another_of_its_queries():
    data = dataset()
    rows = rows_of(data)
    texts = {text: id_ for id_, text in data.queries.items()}
    documents = {text: id_ for id_, text in data.corpus.items()}
    for epoch in range(20):
        for batch in sampler(rows, 6, epoch=epoch):
            queries = [texts[rows.columns["anchor"][row]] for row in batch]
            shown = [documents[rows.columns["positive"][row]] for row in batch]
            assert len(set(queries)) == 6
            for i, query in enumerate(queries):
                others = {doc for j, doc in enumerate(shown) if j != i}
                assert not others & set(data.relevant_docs[query])


def test_hard_negatives_are_kept_from_the_queries_that_they_answer():
    data = dataset(extra=False)
    negatives = {id_: [f"d{(int(id_[1:].split('-')[0]) + 1) % 12}"] for id_ in data.queries}
    rows = rows_of(data, negatives=negatives, count=1)
    assert len(rows.columns["negative_1"]) == len(rows)
    for epoch in range(10):
        for batch in sampler(rows, 3, epoch=epoch):
            about = [rows.columns["positive"][row] for row in batch]
            shown = [rows.columns["negative_1"][row] for row in batch]
            for i, positive in enumerate(about):
                assert positive not in {n for j, n in enumerate(shown) if j != i}


def test_an_epoch_has_the_promised_length_an_order_of_its_own_and_is_repeatable():
    rows = rows_of(dataset())
    one, again, other = (list(sampler(rows, 5, epoch=e)) for e in (0, 0, 1))
    assert one == again != other
    assert len(one) == len(sampler(rows, 5)) == -(-len(rows) // 5)
    seen = [row for batch in one for row in batch]
    assert set(seen) == set(range(len(rows)))  # each, and some twice, to fill the last batches
    assert len(seen) < 1.25 * len(rows)


def test_two_processes_see_the_batches_that_one_would():
    rows = rows_of(dataset())
    one = list(sampler(rows, 6))
    two = list(sampler(rows, 3, processes=2))
    assert [a + b for a, b in zip(two[::2], two[1::2], strict=True)] == one


def test_a_batch_that_cannot_be_made_is_an_error():
    rows = rows_of(dataset(documents=1, each=8, extra=False))
    with pytest.raises(DatasetError, match="no 4 training pairs can stand in one batch"):
        list(sampler(rows, 4))


def test_rows_with_too_few_negatives_are_filled_with_others():
    data = dataset(extra=False)
    rows = rows_of(data, negatives={"q0-0": ["d5"]}, count=3)
    assert rows.columns["negative_1"][0] == "document 5"
    for row, positive in enumerate(rows.columns["positive"]):
        assert positive not in {rows.columns[f"negative_{i}"][row] for i in (1, 2, 3)}
    everything = RetrievalDataset({"q": "all?"}, {"a": "A", "b": "B"}, {"q": ["a", "b"]})
    with pytest.raises(DatasetError, match="query 'q' has no negative"):
        rows_of(everything, count=1)


@pytest.mark.parametrize("documents", [2, 4, 7])
def test_with_fewer_documents_than_a_batch_the_batches_are_smaller(documents, caplog):
    rows = rows_of(dataset(documents=documents, each=8, extra=False))
    batches = list(sampler(rows, 10))
    assert len(batches) == -(-len(rows) // 10)
    assert all(len(batch) == documents for batch in batches)
    assert caplog.text.count("batches hold about") == 1
    with pytest.raises(DatasetError, match=f"at most {documents} can; choose a smaller"):
        list(sampler(rows, 6, processes=2))
