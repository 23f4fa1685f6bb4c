"""Documents that occur twice: any copy answers as well as another, everywhere."""

from __future__ import annotations

import logging

import pytest
from llama_index.core.schema import TextNode

from llama_index.tuning import (
    LightRerankerFinetuneEngine,
    RetrievalDataset,
    evaluate_retriever,
    generate_qa_embedding_pairs,
)
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.embeddings.adapter.measure import positive_rows
from tests.generate.scripted import ScriptedLLM
from tests.rerankers.conftest import NoisyRetriever, shop


@pytest.fixture
def twice():
    """Each document under two ids, of which the labels name the second."""
    once = shop(n=20)
    corpus = once.corpus | {f"copy-{id_}": f"  {text}" for id_, text in once.corpus.items()}
    relevant = {id_: [f"copy-{docs[0]}"] for id_, docs in once.relevant_docs.items()}
    return once, RetrievalDataset(once.queries, corpus, relevant)


def test_whichever_copy_is_found_counts(twice, caplog):
    once, both = twice
    retriever = NoisyRetriever(once)
    wanted = evaluate_retriever(retriever, once)
    with caplog.at_level(logging.WARNING):
        found = evaluate_retriever(retriever, both)
    assert found.mean() == wanted.mean()
    assert "20 texts of the corpus occur more than once, under 40 ids" in caplog.text


def test_a_copy_counts_once_and_takes_up_room():
    data = RetrievalDataset(
        {"q": "Fee?"}, {"a": "5 euros", "b": "Free", "c": "5  euros"}, {"q": ["c"]}
    )

    class Both(NoisyRetriever):
        def __init__(self, ids):
            super().__init__(data)
            self.ids = ids

        def _retrieve(self, query_bundle):
            nodes = {item.node.node_id: item for item in super()._retrieve(query_bundle)}
            return [nodes[id_] for id_ in self.ids]

    scores = evaluate_retriever(Both("acb"), data, ks=[1, 3]).mean()
    assert (scores["hit_rate@1"], scores["recall@3"], scores["ndcg@3"]) == (1, 1, 1)
    assert scores["precision@3"] == pytest.approx(1 / 3)
    late = evaluate_retriever(Both("bca"), data, ks=[3]).mean()
    assert late["mrr@3"] == 0.5


def test_a_copy_of_an_answer_is_no_negative(twice):
    once, both = twice
    lists = RelevanceDataset.from_retriever(both, NoisyRetriever(both, found=1.0)).lists
    for item in lists:
        texts = {c.text.strip() for c in item.candidates if c.score}
        assert len(texts) == 1
        assert all(c.score == (c.text.strip() in texts) for c in item.candidates)
    assert not any(item.missed for item in lists)
    assert [len(rows) for rows in positive_rows(both)] == [2] * len(both)
    assert [len(rows) for rows in positive_rows(once)] == [1] * len(once)


def test_a_report_says_how_many_occur_twice(twice):
    _, both = twice
    report = LightRerankerFinetuneEngine(both, NoisyRetriever(both)).finetune()
    assert any(note.startswith("20 texts of the corpus occur more") for note in report.notes)


def test_contradictory_labels_of_one_text_are_made_one():
    row = {"d1": 1.0, "d2": 0.0, "d3": 0.0}
    corpus = {"d1": "the fee rules", "d2": "the  fee rules", "d3": "other"}
    queries = {f"q{i}": f"fee {i}" for i in range(12)}
    data = RelevanceDataset.from_labels(queries, corpus, dict.fromkeys(queries, row))
    report = LightRerankerFinetuneEngine(data).finetune()
    assert report.slices["against no re-ranker"]["hit_rate@1"].base == 1


def test_a_text_is_asked_about_once():
    texts = {"a": "x y", "b": "z", "c": "x  y"}
    llm = ScriptedLLM(answer=lambda prompt: "1. What is it about?")
    nodes = [TextNode(id_=id_, text=text) for id_, text in texts.items()]
    dataset = generate_qa_embedding_pairs(nodes, llm, num_questions_per_chunk=1)
    assert len(llm.prompts) == 2
    assert {frozenset(docs) for docs in dataset.relevant_docs.values()} == {frozenset("abc")}
