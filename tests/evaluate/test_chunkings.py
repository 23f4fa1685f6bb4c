"""Ingestions compared by the same labels, which are tied to text."""

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode

from llama_index.tuning import RetrievalDataset, compare_chunkings, evaluate_retriever
from llama_index.tuning.errors import DatasetError
from tests.app.conftest import WordEmbedding

TOPICS = [f"topic{n}" for n in range(60)]
SENTENCES = [
    f"The {topic} costs {n} euros, is made in town{n % 7} and lasts for {n + 3} years in all."
    for n, topic in enumerate(TOPICS)
]
DOCUMENTS = [
    Document(id_=f"doc{i}", text=" ".join(SENTENCES[i * 20 : i * 20 + 20])) for i in range(3)
]
ASKED = [
    {"question": f"How long does the {topic} last?", "passage": sentence}
    for topic, sentence in zip(TOPICS, SENTENCES, strict=True)
]


def by_size(size):
    return SentenceSplitter(chunk_size=size, chunk_overlap=0)


def test_sizes_are_told_apart_by_the_same_questions():
    found = compare_chunkings(
        DOCUMENTS, [by_size(400), by_size(40)], ASKED, embed_model=WordEmbedding(dim=64)
    )
    large, small = found.chunkings
    assert (large.name, small.name) == ("SentenceSplitter 400/0", "SentenceSplitter 40/0")
    assert large.nodes < small.nodes
    assert large.words > small.words
    assert (large.gain, found.queries) == (None, 60)
    assert small.gain.mean == pytest.approx(
        small.scores.mean()["ndcg@10"] - large.scores.mean()["ndcg@10"]
    )
    shown = small.gain.low > 0
    assert found.best == (small.name if shown else large.name)
    assert f"{large.scores.mean()['ndcg@10']:.3f}" in str(found)
    assert found.to_dict()["chunkings"][1]["nodes"] == small.nodes


def test_with_whole_passages_it_says_what_evaluating_the_index_says():
    from llama_index.core import VectorStoreIndex

    model = WordEmbedding(dim=16)
    splitters = {"own": lambda _: [TextNode(text=s) for s in SENTENCES], "other": by_size(60)}
    asked = RetrievalDataset.from_table(ASKED)
    own = compare_chunkings(DOCUMENTS, splitters, asked, embed_model=model).chunkings[0]
    retriever = VectorStoreIndex(splitters["own"](None), embed_model=model).as_retriever(
        similarity_top_k=10
    )
    values = evaluate_retriever(retriever, asked).values["ndcg@10"]
    assert np.allclose(own.scores.values["ndcg@10"], values)


def test_overlapping_chunks_that_hold_a_passage_count_once():
    twice = [TextNode(text=f"{s} Copy {n}.") for s in SENTENCES for n in range(2)]
    found = compare_chunkings(
        DOCUMENTS,
        {"once": lambda _: [TextNode(text=s) for s in SENTENCES], "twice": lambda _: twice},
        ASKED,
        embed_model=WordEmbedding(dim=256),
    )
    once, double = found.chunkings
    assert double.scores.mean()["hit_rate@1"] == pytest.approx(
        once.scores.mean()["hit_rate@1"], abs=0.1
    )
    assert double.scores.values["ndcg@10"].max() == 1.0


def test_more_splitters_make_each_interval_wider():
    model = WordEmbedding(dim=32)
    pair = [by_size(200), by_size(40)]
    two = compare_chunkings(DOCUMENTS, pair, ASKED, embed_model=model)
    four = compare_chunkings(
        DOCUMENTS, [*pair, by_size(60), by_size(100)], ASKED, embed_model=model
    )
    narrow, wide = two.chunkings[1].gain, four.chunkings[1].gain
    assert wide.mean == narrow.mean
    assert wide.confidence == pytest.approx(1 - 0.1 / 3)
    assert wide.high - wide.low > narrow.high - narrow.low


def test_questions_whose_passage_one_ingestion_lacks_are_left_out_of_all():
    def lacks(documents):
        return by_size(40)([Document(text=documents[0].text)])

    found = compare_chunkings(
        DOCUMENTS, {"all": by_size(40), "first": lacks}, ASKED, embed_model=WordEmbedding()
    )
    assert (found.queries, len(found.left_out)) == (20, 40)
    assert "40 left out" in str(found)


def test_what_cannot_be_compared_is_named_before_any_text_is_embedded():
    model = WordEmbedding()
    elsewhere = [{"question": "q?", "passage": "Not one word of this is anywhere."}]
    for splitters, questions, error, words in [
        ([by_size(40)], ASKED, ValueError, "at least 2 to compare, got 1"),
        ("sizes", ASKED, TypeError, "splitters must be a list of node parsers"),
        ({"a": 40, "b": by_size(40)}, ASKED, TypeError, r"splitters\['a'\] must be a node parser"),
        ([by_size(40), by_size(40)], ASKED, ValueError, "two of one class and size"),
        ({"a": lambda _: [], "b": by_size(40)}, ASKED, DatasetError, "'a' makes 0 nodes"),
        ([by_size(40), by_size(60)], elsewhere, DatasetError, "none of 1 labelled documents"),
    ]:
        with pytest.raises(error, match=words):
            compare_chunkings(DOCUMENTS, splitters, questions, embed_model=model)
    assert not model.texts
