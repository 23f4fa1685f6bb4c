"""A streamed answer belongs to the request that asked, wherever its stream is read."""

import asyncio
import threading

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning.collect import FinetuningRecorder
from llama_index.tuning.collect.log import read_log


@pytest.fixture
def engine():
    documents = [Document(text="The fee is 5 euros."), Document(text="Cards are free.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(4))
    return index.as_query_engine(llm=MockLLM(max_tokens=3), streaming=True)


def read_here(response):
    return "".join(response.response_gen)


def read_in_a_thread(response):
    found = []
    thread = threading.Thread(target=lambda: found.append("".join(response.response_gen)))
    thread.start()
    thread.join()
    return found[0]


def read_by_itself(response):
    return str(response)


def kinds(recorder):
    recorder.flush()
    return [(row["kind"], row["trace"]) for row in read_log(recorder.path) if row["kind"] != "node"]


@pytest.mark.parametrize("read", [read_here, read_in_a_thread, read_by_itself])
def test_a_stream_read_anywhere_is_part_of_its_request(recorder, engine, read):
    response = engine.query("How much?")
    trace = recorder.last_trace_id()
    other = VectorStoreIndex.from_documents([Document(text="x")], embed_model=MockEmbedding(4))
    other.as_retriever().retrieve("meanwhile")
    text = read(response)
    recorder.feedback(trace, 1.0, answer="5 euros")
    traffic = recorder.traffic()
    mine = [record for record in traffic.records if record.trace == trace]
    assert [record.kind for record in mine] == ["retrieval", "query", "llm"]
    assert mine[1].data["response"] == text != ""
    assert (traffic.stats()["requests"], traffic.stats()["liked"]) == (2, 1)
    assert len(traffic.preference_dataset()) == 1
    assert traffic.judgment_dataset().judgments[0].response == text


async def test_an_async_stream_read_in_another_task_is_part_of_its_request(recorder, engine):
    async def read(response):
        return "".join([chunk async for chunk in response.async_response_gen()])

    responses = [await engine.aquery(f"q{n}") for n in range(5)]
    texts = await asyncio.gather(*(asyncio.create_task(read(r)) for r in responses))
    found = kinds(recorder)
    assert all(texts)
    assert len({trace for _, trace in found}) == 5
    assert [kind for kind, _ in found].count("llm") == 5


def test_a_stream_that_is_never_read_or_given_up_leaves_one_request(recorder, engine):
    unread = engine.query("never read")
    half = engine.query("half read")
    next(half.response_gen)
    half.response_gen.close()
    del unread
    stats = recorder.traffic().stats()
    assert (stats["requests"], stats["records"]) == (2, {"retrieval": 2, "query": 2})
    assert not recorder._span_tap.spans.open


def test_a_stream_of_a_chosen_trace_keeps_it_when_read_outside(recorder, engine):
    with recorder.trace("ticket"):
        response = engine.query("How much?")
    read_here(response)
    assert {trace for _, trace in kinds(recorder)} == {"ticket"}


def test_streams_within_streams_are_one_request(recorder, engine):
    outer = RetrieverQueryEngine.from_args(
        engine.retriever, llm=MockLLM(max_tokens=3), streaming=True
    )
    outer._query = lambda bundle: engine.query(bundle)
    read_here(outer.query("How much?"))
    found = kinds(recorder)
    assert len({trace for _, trace in found}) == 1
    assert [kind for kind, _ in found].count("llm") == 1


def test_a_synthesizers_own_stream_is_one_request(recorder):
    synthesizer = get_response_synthesizer(llm=MockLLM(max_tokens=3), streaming=True)
    nodes = [NodeWithScore(node=TextNode(text="5 euros"), score=1.0)]
    with recorder.trace("t"):
        response = synthesizer.synthesize("How much?", nodes)
    read_here(response)
    assert kinds(recorder) == [("llm", "t")]


def test_sampling_takes_streamed_requests_whole(tmp_path, engine):
    with FinetuningRecorder(tmp_path / "a.jsonl", sample=0.5) as recorder:
        for n in range(40):
            with recorder.trace(f"r{n}"):
                response = engine.query("q")
            read_here(response)
    counts = {}
    for kind, trace in kinds(recorder):
        counts.setdefault(trace, []).append(kind)
    assert 8 < len(counts) < 32
    assert {tuple(found) for found in counts.values()} == {
        ("retrieval", "query", "llm", "answer"),
    }


def test_two_recorders_and_a_broken_stream_do_not_fail_the_app(tmp_path, recorder, engine):
    class Breaks(MockLLM):
        def stream_complete(self, prompt, formatted=False, **kwargs):
            raise RuntimeError("no credit")

    with FinetuningRecorder(tmp_path / "second.jsonl") as second:
        read_here(engine.query("How much?"))
        for one in (recorder, second):
            assert one.traffic().stats()["requests"] == 1
        engine._response_synthesizer._llm = Breaks()
        response = engine.query("Breaks")
        with pytest.raises(RuntimeError, match="no credit"):
            read_here(response)
    assert second.failures == 0


@pytest.fixture
def chat_engine():
    index = VectorStoreIndex.from_documents([Document(text="x")], embed_model=MockEmbedding(4))
    return index.as_chat_engine(chat_mode="context", llm=MockLLM(max_tokens=3))


def test_a_chat_that_streams_in_a_thread_of_its_own_is_the_last_request(recorder, chat_engine):
    for question in ("How much?", "And today?"):
        text = "".join(chat_engine.stream_chat(question).response_gen)
        recorder.feedback(recorder.last_trace_id(), 1.0)
        assert text
    stats = recorder.traffic().stats()
    assert (stats["requests"], stats["liked"]) == (2, 2)


async def test_an_async_chat_that_streams_is_the_last_request(recorder, chat_engine):
    response = await chat_engine.astream_chat("How much?")
    assert [piece async for piece in response.async_response_gen()]
    recorder.feedback(recorder.last_trace_id(), 1.0)
    stats = recorder.traffic().stats()
    assert (stats["requests"], stats["liked"]) == (1, 1)
