"""What users say of a request, and what becomes of it."""

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from llama_index.tuning.collect import FinetuningRecorder, Only
from llama_index.tuning.errors import DatasetError

NODES = [
    TextNode(id_=f"n{n}", text=f"Text {n}", metadata={"file_path": f"/home/ann/{n}.txt"})
    for n in range(4)
]


@pytest.fixture
def ask(recorder):
    retriever = VectorStoreIndex(NODES[:3], embed_model=MockEmbedding(4)).as_retriever(
        similarity_top_k=2
    )

    def ask(*queries):
        with recorder.trace() as trace:
            found = [[item.node.node_id for item in retriever.retrieve(q)] for q in queries]
        return trace, found

    return ask


def relevant(dataset):
    return {dataset.queries[id_]: ids for id_, ids in dataset.relevant_docs.items()}


@pytest.mark.parametrize("wrap", [lambda node: node, lambda node: NodeWithScore(node=node)])
def test_a_node_that_no_request_found_is_the_label(recorder, ask, wrap):
    trace, [found] = ask("q")
    recorder.feedback(trace, relevant=[wrap(NODES[3])])
    assert "n3" not in found
    assert relevant(recorder.retrieval_dataset()) == {"q": ["n3"]}
    other, [found] = ask("r")
    recorder.feedback(other, 1.0, relevant=[found[1], NODES[3]])
    assert relevant(recorder.retrieval_dataset()) == {"q": ["n3"], "r": [found[1], "n3"]}
    [item] = recorder.relevance_dataset(source="users", where=Only(min_feedback=1)).lists
    assert item.missed == {"n3": 1.0}


def test_every_such_feedback_counts(recorder, ask):
    for n in range(60):
        trace, _ = ask(f"q{n}")
        recorder.feedback(trace, 1.0, relevant=[NODES[3]])
    assert len(recorder.retrieval_dataset()) == 60


def test_an_id_alone_of_a_node_nobody_found_is_named_until_its_text_is_given(recorder, ask, caplog):
    trace, _ = ask("q")
    recorder.feedback(trace, relevant=["n3"])
    traffic = recorder.traffic()
    with pytest.raises(DatasetError, match="naming a node whose text is not there"):
        traffic.retrieval_dataset()
    traffic.add_nodes(NODES)
    assert relevant(traffic.retrieval_dataset()) == {"q": ["n3"]}
    with pytest.raises(TypeError, match=r"nodes\[0\] must be a node, got str"):
        traffic.add_nodes(["n3"])


def test_of_several_queries_the_users_own_gets_the_missed_node(recorder, ask, scripted):
    trace, _ = ask("one part", "other part")
    recorder.feedback(trace, relevant=[NODES[3]])
    traffic = recorder.traffic()
    with pytest.raises(DatasetError, match="of which there were several"):
        traffic.retrieval_dataset()
    engine = VectorStoreIndex(NODES[:2], embed_model=MockEmbedding(4)).as_query_engine(
        llm=scripted()
    )
    with recorder.trace() as trace:
        engine.query("the whole")
        engine.retriever.retrieve("one part")
    recorder.feedback(trace, relevant=[NODES[3]])
    assert "n3" in relevant(recorder.retrieval_dataset())["the whole"]
    assert list(relevant(recorder.retrieval_dataset())) == ["the whole"]


def test_feedback_on_a_request_that_is_not_there_is_not_liked(recorder, ask):
    ask("q")
    recorder.feedback("nonsense", 1.0)
    stats = recorder.traffic().stats()
    assert (stats["liked"], stats["unmatched_feedback"]) == (0, 1)


@pytest.mark.parametrize(
    "said",
    [{"choice": "a"}, {"answer": "x"}, {"relevant": []}, {"irrelevant": ["n"]}, {"comment": "c"}],
)
def test_feedback_may_come_without_a_score(recorder, ask, said):
    trace, _ = ask("q")
    recorder.feedback(trace, **said)
    traffic = recorder.traffic()
    assert traffic.records[0].feedback is None
    assert traffic.stats()["liked"] == 0
    for name, value in said.items():
        assert traffic.last_feedback(trace)[name] == value


def test_feedback_without_a_score_adds_and_one_with_a_score_replaces(recorder, ask):
    trace, _ = ask("q")
    recorder.feedback(trace, -1, comment="wrong")
    recorder.feedback(trace, choice="cards")
    last = recorder.traffic().last_feedback(trace)
    assert (last["score"], last["choice"], last["comment"]) == (-1, "cards", "wrong")
    recorder.feedback(trace, 1)
    assert recorder.traffic().last_feedback(trace)["choice"] is None


def test_feedback_that_says_nothing_is_refused(recorder):
    with pytest.raises(ValueError, match="score must be a number, got None, and nothing else"):
        recorder.feedback("t")


def test_texts_are_written_with_the_metadata_that_is_asked_for(tmp_path):
    index = VectorStoreIndex(NODES[:1], embed_model=MockEmbedding(4))
    texts = {}
    for mode in (MetadataMode.EMBED, MetadataMode.NONE):
        path = tmp_path / f"{mode.value}.jsonl"
        with FinetuningRecorder(path, metadata_mode=mode) as recorder:
            index.as_retriever().retrieve("q")
            recorder.feedback("t", relevant=[NODES[3]])
        texts[mode] = recorder.traffic().texts
    assert texts[MetadataMode.EMBED]["n0"] == "file_path: /home/ann/0.txt\n\nText 0"
    assert texts[MetadataMode.NONE] == {"n0": "Text 0", "n3": "Text 3"}
    with pytest.raises(ValueError, match="metadata_mode must be one of: all, embed, llm, none"):
        FinetuningRecorder(tmp_path / "a.jsonl", metadata_mode="nothing")


def test_what_a_user_disliked_teaches_no_passage_unless_the_right_one_is_named(recorder, ask):
    for query, score, named in [("a", 1, None), ("b", -1, None), ("c", -1, [NODES[3]])]:
        trace, _ = ask(query)
        recorder.feedback(trace, score, relevant=named)
    traffic = recorder.traffic()
    found = relevant(traffic.retrieval_dataset())
    assert set(found) == {"a", "c"}
    assert found["c"] == ["n3"]
    assert sum(traffic.left_out.values()) == 1
