from datetime import datetime, timedelta

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.evaluation import CorrectnessEvaluator
from llama_index.core.llms import ChatMessage
from llama_index.core.objects import ObjectIndex
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool, ToolMetadata

from llama_index.tuning import TunedRetriever
from llama_index.tuning.collect import FinetuningRecorder, Only, Record, Traffic
from llama_index.tuning.collect.to_datasets import _scores
from llama_index.tuning.errors import DatasetError


def nodes(*ids):
    return [NodeWithScore(node=TextNode(id_=id_, text=f"Text {id_}"), score=0.5) for id_ in ids]


def asked(dataset):
    return [example.messages[0]["content"] for example in dataset.examples]


def test_filters_take_feedback_scores_time_and_model(recorder, scripted):
    for n, (name, score) in enumerate([("big", 1), ("small", 1), ("big", -1), ("big", None)]):
        with recorder.trace(f"t{n}"):
            scripted(name=name).complete(f"q{n}")
        if score is not None:
            recorder.feedback(f"t{n}", score)
    assert asked(recorder.chat_dataset(teacher="big")) == ["q0", "q2", "q3"]
    assert asked(recorder.chat_dataset(where=Only(min_feedback=1))) == ["q0", "q1"]
    assert asked(recorder.chat_dataset(where=Only(max_feedback=0))) == ["q2"]
    assert asked(recorder.chat_dataset(where=Only(model="small"))) == ["q1"]
    assert asked(recorder.chat_dataset(where=lambda r: r.trace == "t3")) == ["q3"]
    now = datetime.now()
    assert asked(recorder.chat_dataset(where=Only(since=now + timedelta(hours=1)))) == []
    assert len(recorder.chat_dataset(where=Only(until=now + timedelta(hours=1)))) == 4


def test_a_judges_score_counts_for_the_whole_request(recorder, scripted):
    for score in (5.0, 2.0):
        with recorder.trace(f"s{score}"):
            scripted().complete(f"scored {score}")
            judge = recorder.watch(
                CorrectnessEvaluator(llm=scripted(f"{score}\nSo.", name="judge"))
            )
            judge.evaluate(query="q", response="r", reference="x")
    good = recorder.chat_dataset(where=Only(min_score=4), teacher="scripted")
    assert asked(good) == ["scored 5.0"]


def test_the_last_feedback_counts(recorder, scripted):
    scripted().complete("q")
    recorder.feedback(recorder.last_trace_id(), -1)
    recorder.feedback(recorder.last_trace_id(), 1, comment="after all")
    assert len(recorder.chat_dataset(where=Only(min_feedback=1))) == 1
    assert recorder.traffic().stats()["liked"] == 1


def test_a_conversation_is_one_line_and_unwanted_turns_have_no_weight(recorder, function_llm):
    llm = function_llm(
        lambda messages, **_: ChatMessage(role="assistant", content=f"a{len(messages)}")
    )
    first = [ChatMessage(content="q1")]
    second = [*first, ChatMessage(role="assistant", content="a1"), ChatMessage(content="q2")]
    with recorder.trace("one"):
        llm.chat(first)
    with recorder.trace("two"):
        llm.chat(second)
    [example] = recorder.chat_dataset().examples
    assert [m.get("weight") for m in example.messages] == [None, 1, None, None]
    [example] = recorder.chat_dataset(where=lambda r: r.trace == "two").examples
    assert [m.get("weight") for m in example.messages] == [None, 0, None, None]
    assert len(recorder.chat_dataset(where=lambda r: r.trace == "one")) == 1


def test_an_exchange_that_cannot_be_learnt_is_left_out_and_logged(recorder, scripted, caplog):
    scripted("").complete("no answer")
    scripted("yes").complete("answer")
    assert asked(recorder.chat_dataset()) == ["answer"]
    assert "1 exchanges are left out" in caplog.text


def test_two_recorders_on_one_log_make_one_example(recorder, scripted):
    """As a cell of a notebook does that is run again."""
    with FinetuningRecorder(recorder.path):
        scripted().complete("same")
        scripted().complete("same")
    assert asked(recorder.chat_dataset()) == ["same", "same"]
    assert recorder.traffic().stats()["records"] == {"llm": 2}


def test_tool_calls_without_ids_get_them(recorder, function_llm):
    call = {"block_type": "tool_call", "tool_call_id": None, "tool_name": "f", "tool_kwargs": {}}
    llm = function_llm(lambda messages, **_: ChatMessage(role="assistant", content="done"))
    llm.chat(
        [
            ChatMessage(content="q"),
            ChatMessage(role="assistant", blocks=[call, call]),
            ChatMessage(role="tool", content="1"),
            ChatMessage(role="tool", content="2"),
        ]
    )
    [example] = recorder.chat_dataset().examples
    assert [c["id"] for c in example.messages[1]["tool_calls"]] == ["call_0", "call_1"]
    assert [m.get("tool_call_id") for m in example.messages[2:4]] == ["call_0", "call_1"]


def test_a_correction_is_of_the_answer_and_not_of_a_judges_verdict(recorder, scripted):
    judge = recorder.watch(CorrectnessEvaluator(llm=scripted("4.0\nSo.", name="judge")))
    with recorder.trace() as trace:
        answer = scripted("Six.").complete("How much?").text
        judge.evaluate(query="How much?", response=answer)
    recorder.feedback(trace, answer="Five.")
    [pair] = recorder.preference_dataset().examples
    assert [m["content"] for m in (*pair.messages, pair.rejected)] == ["How much?", "Five.", "Six."]


def test_preferences_come_from_corrections_and_from_scores_of_one_prompt(recorder, scripted):
    for answer, score in (("good", 1), ("bad", -1), ("soso", 0)):
        with recorder.trace(answer):
            scripted(answer).complete("same question")
        recorder.feedback(answer, score)
    with recorder.trace("corrected"):
        scripted("wrong").complete("other question")
    recorder.feedback("corrected", -1, answer="right")
    pairs = [
        (e.messages[0]["content"], e.messages[-1]["content"], e.rejected["content"])
        for e in recorder.preference_dataset().examples
    ]
    assert pairs == [("other question", "right", "wrong"), ("same question", "good", "bad")]


def test_a_judges_score_is_not_set_against_a_users(recorder, scripted):
    """Scores of 1 to 5, as `CorrectnessEvaluator` gives them, would beat every thumb up."""
    judge = recorder.watch(CorrectnessEvaluator(llm=scripted("2.0\npoor")))
    for answer, score in (("liked", 1), ("poor", None), ("disliked", -1)):
        with recorder.trace(answer):
            scripted(answer).complete("same question")
            if score is None:
                judge.evaluate(query="same question", response=answer)
        if score is not None:
            recorder.feedback(answer, score)
    [example] = recorder.preference_dataset(teacher="scripted").examples
    assert (example.messages[-1]["content"], example.rejected["content"]) == ("liked", "disliked")


def test_the_tools_that_an_agent_was_shown_are_no_passages(recorder, scripted):
    tools = [FunctionTool.from_defaults(lambda: "", name=name) for name in ("pay", "refund")]
    shown = ObjectIndex.from_objects(tools, embed_model=MockEmbedding(4)).as_retriever()
    index = VectorStoreIndex.from_documents([Document(text="one")], embed_model=MockEmbedding(4))
    with recorder.trace():
        assert shown.retrieve("Pay Ann, and which fee is due?")
        index.as_retriever().retrieve("Which fee?")
    dataset = recorder.retrieval_dataset()
    assert list(dataset.queries.values()) == ["Which fee?"]
    assert list(dataset.corpus.values()) == ["one"]


def test_retrieval_follows_the_reranker_before_the_answer_before_the_retriever(recorder, scripted):
    documents = [Document(text=text) for text in ("one", "two", "three")]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(4))
    index.as_retriever(similarity_top_k=2).retrieve("plain")
    reranker = LLMRerank(llm=scripted("Doc: 2, Relevance: 9", name="ranker"), top_n=1)
    index.as_query_engine(llm=scripted(), similarity_top_k=3, node_postprocessors=[reranker]).query(
        "ranked"
    )
    dataset = recorder.retrieval_dataset()
    assert sorted(dataset.queries.values()) == ["plain", "ranked"]
    assert len(dataset.corpus) == 3
    taught = recorder.retrieval_dataset(teacher="ranker")
    [[id_]] = taught.relevant_docs.values()
    retrieved = recorder.traffic().select("retrieval", lambda r: r.data["query"] == "ranked")
    assert id_ == next(retrieved).data["nodes"][1]["id"]


def test_a_judges_own_retrieval_is_no_users(recorder, scripted):
    from llama_index.core.evaluation import FaithfulnessEvaluator

    recorder.watch(FaithfulnessEvaluator(llm=scripted("YES"))).evaluate(
        query="q", response="r", contexts=["c"]
    )
    with pytest.raises(DatasetError, match="no retrieval dataset can be made"):
        recorder.retrieval_dataset()


def test_routing_follows_users_corrections(recorder, scripted):
    choices = [ToolMetadata(name=n, description=f"About {n}") for n in ("fees", "cards")]
    selector = LLMSingleSelector.from_defaults(llm=scripted('[{"choice": 1, "reason": "r"}]'))
    ratings = {
        "unrated": {},
        "right": {"score": 1},
        "wrong": {"score": -1},
        "corrected": {"score": -1, "choice": "cards"},
    }
    for name, given in ratings.items():
        with recorder.trace(name):
            selector.select(choices, name)
        if given:
            recorder.feedback(name, **given)
    found = {e.query: e.choices for e in recorder.routing_dataset().examples}
    assert found == {"unrated": ("fees",), "right": ("fees",), "corrected": ("cards",)}
    assert recorder.routing_dataset().choices == {"fees": "About fees", "cards": "About cards"}


def test_relevance_scores_what_the_reranker_left_out_lowest(recorder, scripted):
    llm = scripted("Doc: 3, Relevance: 9\nDoc: 1, Relevance: 4")
    LLMRerank(llm=llm, top_n=2).postprocess_nodes(nodes("a", "b", "c"), QueryBundle("q"))
    [item] = recorder.relevance_dataset(teacher="scripted").lists
    assert {c.node_id: c.score for c in item.candidates} == {"a": 4.0, "b": 0.0, "c": 9.0}
    assert item.candidates[0].text == "Text a"


def test_the_nodes_that_users_opened_are_the_relevant_ones(recorder):
    documents = [Document(text=f"Text {name}", id_=name) for name in "abcd"]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(4))
    retriever = index.as_retriever(similarity_top_k=3)
    for query in ("opened", "judged", "useless", "unrated"):
        with recorder.trace(query):
            found = [item.node.node_id for item in retriever.retrieve(query)]
    recorder.feedback("opened", 1, relevant=[found[2], "elsewhere"])
    recorder.feedback("judged", 1, relevant=(found[1],), irrelevant=[found[0]])
    recorder.feedback("useless", -1, relevant=[])
    one, other = recorder.relevance_dataset(source="users").lists
    assert [(c.node_id, c.score) for c in one.candidates] == [
        *((found[0], 0.0), (found[1], 0.0), (found[2], 1.0))
    ]
    assert all(c.retrieval_score is not None for c in one.candidates)
    assert {c.node_id: c.score for c in other.candidates} == {found[0]: 0.0, found[1]: 1.0}
    retrieval = recorder.retrieval_dataset()
    relevant = {retrieval.queries[id_]: ids for id_, ids in retrieval.relevant_docs.items()}
    assert relevant == {"opened": [found[2]], "judged": [found[1]], "unrated": [found[0]]}
    assert len(recorder.relevance_dataset(source="users", where=Only(min_feedback=1))) == 2


def test_what_a_retriever_around_the_retriever_added_may_be_opened_too(recorder):
    documents = [Document(text=f"Text {name}", id_=name) for name in "abcd"]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(4))
    inner = index.as_retriever(similarity_top_k=3)
    with recorder.trace("t"):
        shown = TunedRetriever(inner, docstore=index.docstore, reranker=None).retrieve("text d")
    near = [item.node.node_id for item in inner.retrieve("text d")]
    [added] = {item.node.node_id for item in shown} - set(near)
    recorder.feedback("t", 1, relevant=[added])
    [item] = recorder.relevance_dataset(source="users").lists
    assert [c.node_id for c in item.candidates] == [*near, added]
    assert item.candidates[-1].retrieval_score is None
    assert [c.score for c in item.candidates] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"relevant": "a"}, TypeError, "relevant must be a list of nodes or their ids, got 'a'"),
        ({"irrelevant": [3]}, ValueError, "irrelevant must hold nodes or their ids, got 3"),
    ],
)
def test_feedback_on_nodes_names_their_ids(recorder, given, error, message):
    with pytest.raises(error, match=message):
        recorder.feedback("t", 1, **given)


def test_a_source_of_relevance_must_fit(recorder):
    recorder.feedback("t", 1)
    with pytest.raises(ValueError, match="unknown source 'me'; choose one of: rerankers, users"):
        recorder.relevance_dataset(source="me")
    with pytest.raises(ValueError, match="teacher= names a re-ranker"):
        recorder.relevance_dataset(source="users", teacher="x")
    with pytest.raises(DatasetError, match=r"no feedback\(relevant=…\) on a retrieval"):
        recorder.relevance_dataset(source="users")


def reranking(given, ranked):
    """What the recorder keeps of a re-ranking, from scores by id."""
    body = {
        "nodes": [{"id": id_, "score": score} for id_, score in given.items()],
        "ranked": [{"id": id_, "score": score} for id_, score in ranked],
    }
    return Record("rerank", "t", 0.0, "m", "by", None, None, body)


def test_relevance_of_negative_scores_is_raised_to_zero():
    given = {"a": 0.5, "b": 0.4}
    assert _scores(reranking(given, [("a", -1.0), ("b", -3.0)])) == {"a": 2.0, "b": 0.0}
    assert _scores(reranking(given, [("a", -1.0), ("b", None)])) == {"a": 1.0, "b": 0.5}


def test_a_reranker_that_leaves_the_scores_as_they_were_is_known_by_its_order():
    given = {"a": 0.5, "b": 0.4}
    assert _scores(reranking(given, [("b", 0.4), ("a", 0.5)])) == {"b": 1.0, "a": 0.5}
    assert _scores(reranking(given, [("b", 0.5), ("a", 0.4)])) == {"b": 0.5, "a": 0.4}


def test_a_passage_named_twice_keeps_its_better_place():
    assert _scores(reranking({}, [("a", 9.0), ("b", 5.0), ("a", 1.0)])) == {"a": 9.0, "b": 5.0}


def test_judgments_of_judges_and_of_people_say_who_gave_them(recorder, scripted):
    documents = [Document(text="The fee is 5 euros.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(4))
    index.as_query_engine(llm=scripted("5 euros.")).query("Fee?")
    recorder.feedback(recorder.last_trace_id(), 1, comment="quick", answer="5 € a month")
    judge = recorder.watch(CorrectnessEvaluator(llm=scripted("2\nNo.", name="big")))
    judge.evaluate(query="Fee?", response="6", reference="5")
    machine, person = recorder.judgment_dataset().judgments
    assert (machine.source, machine.judge, machine.score) == ("big", "CorrectnessEvaluator", 2.0)
    assert (person.source, person.passing, person.feedback) == ("human", True, "quick")
    assert (person.contexts, person.reference) == (["The fee is 5 euros."], "5 € a month")
    assert len(recorder.judgment_dataset(teacher="big")) == 1


@pytest.mark.parametrize("view", ["retrieval", "routing", "relevance", "judgment"])
def test_an_empty_view_says_what_was_missing(recorder, scripted, view):
    scripted().complete("q")
    with pytest.raises(DatasetError, match=rf"no {view} dataset can be made: [^=]+$"):
        getattr(recorder, f"{view}_dataset")()
    with pytest.raises(DatasetError, match="that where= and teacher= let through"):
        getattr(recorder, f"{view}_dataset")(teacher="big")


def test_stats_count_what_is_there(tmp_path, scripted):
    with FinetuningRecorder(tmp_path / "a.jsonl"):
        scripted(name="big").complete("q")
    stats = Traffic.load(tmp_path / "a.jsonl").stats()
    assert (stats["requests"], stats["records"], stats["models"]) == (1, {"llm": 1}, {"big": 1})
    assert stats["first"] == stats["last"]


def test_top_n_must_be_positive(recorder, scripted):
    scripted().complete("q")
    with pytest.raises(ValueError, match="top_n must be a whole number >= 1, got 0"):
        recorder.retrieval_dataset(top_n=0)
