"""Labels whose nodes got new ids: evaluation knows them by their texts."""

import logging

import pytest
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import RetrievalDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.evaluate import aevaluate_retriever, evaluate_retriever

TEXTS = {
    f"d{n}": f"Card {name} costs {n + 3} euros a month and is sent within {n + 2} working days."
    for n, name in enumerate(("Blue", "Green", "Red", "Gold"))
}
DATASET = RetrievalDataset(
    {f"q{n}": f"What of card {n}?" for n in range(4)},
    TEXTS,
    {f"q{n}": [f"d{n}"] for n in range(4)},
)


class Best(BaseRetriever):
    """Finds first what it shall: the n-th node for the n-th question, then the next one."""

    def __init__(self, nodes):
        self.nodes = nodes
        super().__init__()

    def _retrieve(self, query_bundle):
        n = int(query_bundle.query_str[-2])
        return [NodeWithScore(node=self.nodes[(n + i) % 4], score=1.0) for i in range(2)]


def nodes(known=0, change=lambda text: text):
    return [
        TextNode(id_=id_ if n < known else f"new-{n}", text=change(text))
        for n, (id_, text) in enumerate(TEXTS.items())
    ]


@pytest.mark.parametrize("known", [0, 2, 3, 4])
def test_new_ids_cost_nothing_and_are_said(known, caplog):
    with caplog.at_level(logging.WARNING):
        scores = evaluate_retriever(Best(nodes(known)), DATASET, ks=[1, 2])
    assert scores.mean()["mrr@2"] == scores.mean()["recall@1"] == 1.0
    said = f"{4 - known} of 4 labelled documents of dataset have other ids"
    assert (said in caplog.text) == (known < 4)


async def test_longer_nodes_and_the_async_way():
    longer = Best(nodes(2, lambda text: f"Prices. {text} Ask us."))
    sync = evaluate_retriever(longer, DATASET, ks=[1])
    concurrent = await aevaluate_retriever(longer, DATASET, ks=[1])
    assert sync.mean() == concurrent.mean()
    assert sync.mean()["recall@1"] == 1.0


def test_texts_that_are_merely_similar_count_only_where_no_id_is_known():
    tail = " It comes with a letter that explains how to set the code and how to block the card."
    long = RetrievalDataset(
        DATASET.queries, {id_: text + tail for id_, text in TEXTS.items()}, DATASET.relevant_docs
    )
    changed = nodes(0, lambda text: (text + tail).replace("letter", "note"))
    assert evaluate_retriever(Best(changed), long, ks=[1]).mean()["recall@1"] == 1.0
    some = [*nodes(2, lambda text: text + tail)[:2], *changed[2:]]
    assert evaluate_retriever(Best(some), long, ks=[1]).mean()["recall@1"] == 0.5


def test_texts_of_something_else_are_an_error():
    with pytest.raises(DatasetError, match="not those of the dataset"):
        evaluate_retriever(Best(nodes(0, lambda text: "Another text.")), DATASET)
