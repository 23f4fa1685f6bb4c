import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning.errors import DatasetError
from llama_index.tuning.evaluate import (
    aevaluate_retriever,
    evaluate_retriever,
    evaluate_vectors,
    score_rankings,
)


class Scripted(BaseRetriever):
    def __init__(self, answers):
        self.answers = answers
        super().__init__()

    def _retrieve(self, query_bundle):
        ids = self.answers[query_bundle.query_str]
        return [NodeWithScore(node=TextNode(id_=id_, text=id_), score=1.0) for id_ in ids]


ANSWERS = {
    "reset password": ["d2", "d1", "d1"],
    "refund fees": [],
    "close account": ["d3", "d2", "d1"],
}


def test_any_retriever_is_scored_and_a_repeated_node_counts_once(tiny_dataset):
    scores = evaluate_retriever(Scripted(ANSWERS), tiny_dataset, ks=[2])
    assert scores.query_ids == ["q1", "q2", "q3"]
    assert scores.values["hit_rate@2"].tolist() == [1.0, 0.0, 1.0]
    assert scores.values["recall@2"].tolist() == [1.0, 0.0, 0.5]


async def test_async_gives_the_same(tiny_dataset):
    sync = evaluate_retriever(Scripted(ANSWERS), tiny_dataset)
    concurrent = await aevaluate_retriever(Scripted(ANSWERS), tiny_dataset, num_workers=2)
    assert {k: v.tolist() for k, v in sync.values.items()} == {
        k: v.tolist() for k, v in concurrent.values.items()
    }
    with pytest.raises(ValueError, match="num_workers must be a whole number >= 1, got 0"):
        await aevaluate_retriever(Scripted(ANSWERS), tiny_dataset, num_workers=0)


def test_nodes_may_be_known_by_another_key(tiny_dataset):
    scores = evaluate_retriever(
        Scripted({text: ["D1"] for text in ANSWERS}),
        tiny_dataset,
        ks=[1],
        node_key=lambda found: found.node.node_id.lower(),
    )
    assert scores.values["hit_rate@1"].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("wrong", ["index", "ids", "ks"])
async def test_what_cannot_be_measured_is_named(tiny_dataset, wrong):
    index = VectorStoreIndex(tiny_dataset.to_nodes(), embed_model=MockEmbedding(embed_dim=4))
    retriever, ks, error, words = {
        "index": (index, [1], TypeError, r"got VectorStoreIndex; pass index\.as_retriever"),
        "ids": (
            Scripted({text: ["chunk-1"] for text in ANSWERS}),
            [1],
            DatasetError,
            "it found 1, such as 'chunk-1', .* but 'd1'.*node_key=",
        ),
        "ks": (Scripted(ANSWERS), 10, TypeError, r"ks must be a list of cut-offs, such as"),
    }[wrong]
    with pytest.raises(error, match=words):
        evaluate_retriever(retriever, tiny_dataset, ks=ks)
    with pytest.raises(error, match=words):
        await aevaluate_retriever(retriever, tiny_dataset, ks=ks)


def test_vectors_and_an_index_over_them_agree(rotated):
    dataset, model = rotated
    index = VectorStoreIndex(dataset.to_nodes(), embed_model=model)
    by_index = evaluate_retriever(index.as_retriever(similarity_top_k=10), dataset)
    ids = list(dataset.corpus)
    by_vectors = evaluate_vectors(
        np.array([model.vector(t) for t in dataset.queries.values()]),
        np.array([model.vector(t) for t in dataset.corpus.values()]),
        [np.array([ids.index(d) for d in docs]) for docs in dataset.relevant_docs.values()],
    )
    assert by_vectors.mean() == pytest.approx(by_index.mean())


def test_ties_score_as_the_reference_does_with_the_same_order():
    queries = np.ones((1, 2), dtype=np.float32)
    documents = np.ones((5, 2), dtype=np.float32)
    scores = evaluate_vectors(queries, documents, [np.array([2])], ks=[3])
    expected = score_rankings(["0"], [[0, 1, 2]], [[2]], [3])
    assert scores.mean() == expected.mean()


def test_mock_embedding_needs_no_special_case(tiny_dataset):
    index = VectorStoreIndex(tiny_dataset.to_nodes(), embed_model=MockEmbedding(embed_dim=4))
    scores = evaluate_retriever(index.as_retriever(similarity_top_k=3), tiny_dataset, ks=[3])
    assert scores.mean()["hit_rate@3"] == 1.0


def test_cut_offs_beyond_what_the_retriever_gives_are_said(tiny_dataset, caplog):
    nodes = [TextNode(id_=id_, text=text) for id_, text in tiny_dataset.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    evaluate_retriever(index.as_retriever(similarity_top_k=1), tiny_dataset, ks=[1, 2])
    assert "found at most 1 nodes" in caplog.text
    assert "figures @2" in caplog.text
    caplog.clear()
    evaluate_retriever(index.as_retriever(similarity_top_k=len(nodes)), tiny_dataset, ks=[1, 50])
    assert "at most" not in caplog.text  # there is no more to find
