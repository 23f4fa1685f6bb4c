import asyncio
import json
import os
import signal

import pytest
from llama_index.core import Document, MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.evaluation import CorrectnessEvaluator, FaithfulnessEvaluator
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockLLM
from llama_index.core.postprocessor import LLMRerank, SimilarityPostprocessor
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool
from pydantic import BaseModel

from llama_index.tuning.collect import FinetuningRecorder
from llama_index.tuning.collect.log import Batch, TrafficLog, read_log


def rows(recorder, kind=None):
    recorder.flush()
    found = [row for row in read_log(recorder.path) if row["kind"] != "node"]
    return [row for row in found if kind in (None, row["kind"])]


def index_of(*texts):
    documents = [Document(text=text) for text in texts]
    return VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(4))


def fee(account: str) -> str:
    """The monthly fee."""
    return f"{account}: 5 euros"


def calls_then_answers(messages, **kwargs):
    if any(message.role.value == "tool" for message in messages):
        return ChatMessage(role="assistant", content="5 euros.")
    call = {"tool_call_id": "c1", "tool_name": "fee", "tool_kwargs": {"account": "größer"}}
    return ChatMessage(role="assistant", blocks=[{"block_type": "tool_call", **call}])


def test_a_completion_is_recorded_as_the_llm_received_it(recorder, scripted):
    llm = scripted("5 euros.")
    prompt = 'Wie hoch ist die "Gebühr"?\n\t日本 \u2028 end '
    llm.complete(prompt)
    [row] = rows(recorder)
    assert row["messages"] == [{"role": "user", "content": llm.prompts[0]}]
    assert row["messages"][0]["content"] == prompt
    assert row["response"] == {"role": "assistant", "content": "5 euros."}
    assert (row["kind"], row["model"], row["completion"]) == ("llm", "scripted", True)


@pytest.mark.parametrize("call", ["chat", "stream_chat", "complete", "stream_complete"])
async def test_every_way_to_call_an_llm_is_one_exchange(recorder, call):
    llm = MockLLM(max_tokens=3)
    given = [ChatMessage(content="hi")] if "chat" in call else "hi"
    result = getattr(llm, call)(given)
    if "stream" in call:
        last = list(result)[-1]
    again = await getattr(llm, f"a{call}")(given)
    if "stream" in call:
        chunks = [chunk async for chunk in again]
        assert rows(recorder)[0]["response"]["content"] == (
            last.message.content if "chat" in call else last.text
        )
        assert chunks
    assert [row["kind"] for row in rows(recorder)] == ["llm", "llm"]


async def test_streams_that_are_read_in_turns_do_not_mix(recorder):
    llm = MockLLM(max_tokens=4)
    streams = [await llm.astream_chat([ChatMessage(content=f"q{n}")]) for n in range(5)]
    for _ in range(4):
        for stream in streams:
            await anext(stream)
    for stream in streams:
        assert [chunk async for chunk in stream] == []
    assert sorted(row["messages"][0]["content"] for row in rows(recorder)) == [
        "q0", "q1", "q2", "q3", "q4",
    ]  # fmt: skip


def test_an_abandoned_stream_and_a_failing_call_leave_nothing_behind(recorder, scripted):
    stream = MockLLM(max_tokens=4).stream_complete("half read")
    next(stream)
    stream.close()
    llm = scripted(RuntimeError("no credit"), "fine")
    with pytest.raises(RuntimeError, match="no credit"):
        llm.complete("first")
    llm.complete("second")
    assert [row["messages"][0]["content"] for row in rows(recorder)] == ["second"]
    assert not recorder._span_tap.spans.open


def test_messages_are_kept_as_they_were_when_the_call_began(recorder):
    class Appending(MockLLM):
        def complete(self, prompt, formatted=False, **kwargs):
            messages[0].blocks[0].text = "changed"
            return super().complete(prompt)

    messages = [ChatMessage(content="asked")]
    Appending().chat(messages)
    assert rows(recorder)[0]["messages"][0]["content"] == "asked"


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agents_turns_share_a_trace_and_hold_tools_and_calls(
    recorder, function_llm, streaming
):
    agent = FunctionAgent(
        tools=[FunctionTool.from_defaults(fee)],
        llm=function_llm(calls_then_answers),
        streaming=streaming,
    )
    with recorder.trace("ticket"):
        await agent.run("How much?")
    first, second = rows(recorder, "llm")
    assert first["trace"] == second["trace"] == "ticket"
    assert first["tools"][0]["function"]["name"] == "fee"
    assert "account" in first["tools"][0]["function"]["parameters"]["properties"]
    [call] = first["response"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"account": "größer"}
    assert second["messages"][-1] == {
        "role": "tool", "content": "größer: 5 euros", "tool_call_id": "c1",
    }  # fmt: skip
    assert second["messages"][:-1] == [*first["messages"], first["response"]]


def test_a_structured_prediction_is_what_the_real_llm_was_asked(recorder, function_llm):
    class Fee(BaseModel):
        euros: int

    def respond(messages, **kwargs):
        call = {"tool_call_id": "c", "tool_name": "Fee", "tool_kwargs": {"euros": 5}}
        return ChatMessage(role="assistant", blocks=[{"block_type": "tool_call", **call}])

    llm = function_llm(respond)
    assert llm.structured_predict(Fee, PromptTemplate("Fee of {a}?"), a="basic").euros == 5
    llm.as_structured_llm(Fee).chat([ChatMessage(content="Fee?")])
    first, second = rows(recorder, "llm")
    assert first["messages"][-1]["content"] == "Fee of basic?"
    assert second["tools"][0]["function"]["name"] == "Fee"


def test_a_query_is_one_trace_and_a_passage_is_written_once(recorder, scripted):
    engine = index_of("The fee is 5 euros.", "Cards are free.").as_query_engine(llm=scripted())
    engine.query("How much?")
    trace = recorder.last_trace_id()
    engine.query("And now?")
    assert [row["kind"] for row in rows(recorder)] == ["retrieval", "llm", "query"] * 2
    assert {row["trace"] for row in rows(recorder)[:3]} == {trace}
    retrieval, _, query = rows(recorder)[:3]
    assert retrieval["nodes"] == query["nodes"]
    assert query["response"] == "An answer."
    assert sum(row["kind"] == "node" for row in read_log(recorder.path)) == 2


def test_a_routers_selection_holds_choices_result_and_teacher(recorder, scripted):
    llm = scripted('[{"choice": 2, "reason": "cards"}]', "By app.", name="teacher")
    tools = [
        QueryEngineTool.from_defaults(
            index_of(name).as_query_engine(llm=llm), name=name, description=f"About {name}"
        )
        for name in ("fees", "cards")
    ]
    router = RouterQueryEngine(LLMSingleSelector.from_defaults(llm=llm), tools, llm=llm)
    router.query("Is my card blocked?")
    [row] = rows(recorder, "selection")
    assert row["query"] == "Is my card blocked?"
    assert row["choices"][1] == {"name": "cards", "description": "About cards"}
    assert (row["selected"], row["reasons"]) == ([1], ["cards"])
    assert (row["model"], row["by"]) == ("teacher", "LLMSingleSelector")
    assert len({row["trace"] for row in rows(recorder)}) == 1
    assert [row["within"] for row in rows(recorder, "llm")] == ["selection", None]


def test_a_rerankers_scores_are_recorded_and_a_filters_are_not(recorder, scripted):
    nodes = [NodeWithScore(node=TextNode(id_=id_, text=id_), score=0.5) for id_ in "abc"]
    reranker = LLMRerank(llm=scripted("Doc: 3, Relevance: 9\nDoc: 1, Relevance: 4"), top_n=2)
    reranker.postprocess_nodes(nodes, QueryBundle("q"))
    SimilarityPostprocessor(similarity_cutoff=0.4).postprocess_nodes(nodes, QueryBundle("q"))
    [row] = rows(recorder, "rerank")
    assert [node["id"] for node in row["nodes"]] == ["a", "b", "c"]
    assert row["ranked"] == [{"id": "c", "score": 9.0}, {"id": "a", "score": 4.0}]
    assert (row["query"], row["by"], row["model"]) == ("q", "LLMRerank", "scripted")


async def test_a_watched_judges_verdict_is_recorded_once_with_its_own_llm(recorder, scripted):
    judge = CorrectnessEvaluator(llm=scripted("4.5\nGood.", name="big"))
    assert recorder.watch(recorder.watch(judge)) is judge
    given = {"query": "Fee?", "response": "5", "reference": "5 euros"}
    judge.evaluate(**given)
    await judge.aevaluate(**given)
    found = rows(recorder, "evaluation")
    assert len(found) == 2
    for row in found:
        assert (row["score"], row["passing"], row["reference"]) == (4.5, True, "5 euros")
        assert (row["by"], row["model"], row["feedback"]) == (
            "CorrectnessEvaluator",
            "big",
            "Good.",
        )


async def test_a_watched_rerankers_own_async_method_is_recorded(recorder, scripted):
    reranker = LLMRerank(llm=scripted("Doc: 2, Relevance: 9"), top_n=1)
    assert recorder.watch(reranker) is reranker
    given = [NodeWithScore(node=TextNode(id_=id_, text=id_), score=0.5) for id_ in "ab"]
    await reranker.apostprocess_nodes(given, QueryBundle("q"))
    reranker.postprocess_nodes(given, QueryBundle("q"))
    assert [row["ranked"] for row in rows(recorder, "rerank")] == [[{"id": "b", "score": 9.0}]] * 2
    assert reranker.model_dump()["top_n"] == 1
    with pytest.raises(TypeError, match="must be an evaluator or a node postprocessor, got str"):
        recorder.watch("judge")


def test_a_faithfulness_judges_own_queries_are_marked_as_its_own(recorder, scripted):
    judge = recorder.watch(FaithfulnessEvaluator(llm=scripted("YES")))
    judge.evaluate(query="q", response="r", contexts=["c"])
    assert {row["within"] for row in rows(recorder) if row["kind"] in ("retrieval", "llm")} == {
        "evaluation"
    }
    assert rows(recorder, "evaluation")[0]["contexts"] == ["c"]


def test_trace_ids_may_be_chosen_or_tagged(recorder, scripted):
    llm = scripted()
    with recorder.trace("ticket-7") as trace:
        llm.complete("a")
        llm.complete("b")
    with instrument_tags({"trace_id": "tagged"}):
        llm.complete("c")
    with recorder.trace() as new:
        llm.complete("d")
    assert trace == "ticket-7"
    assert [row["trace"] for row in rows(recorder)] == ["ticket-7", "ticket-7", "tagged", new]


async def test_concurrent_tasks_keep_their_requests_apart(recorder, scripted):
    engine = index_of("a", "b").as_query_engine(llm=scripted())

    async def ask(n):
        await asyncio.sleep(0)
        await engine.aquery(f"question-{n}")
        return recorder.last_trace_id()

    traces = await asyncio.gather(*(ask(n) for n in range(20)))
    assert len(set(traces)) == 20
    for n, trace in enumerate(traces):
        mine = [row for row in rows(recorder) if row["trace"] == trace]
        assert [row["kind"] for row in mine] == ["retrieval", "llm", "query"]
        assert all(f"question-{n}" in json.dumps(row) for row in mine)


def test_sampling_takes_requests_whole_and_alike_everywhere(tmp_path, scripted):
    engine = index_of("a").as_query_engine(llm=scripted())
    with FinetuningRecorder(tmp_path / "a.jsonl", sample=0.5) as recorder:
        for n in range(40):
            with recorder.trace(f"r{n}"):
                engine.query("q")
            recorder.feedback(f"r{n}", 1)
    counts = {}
    for row in rows(recorder):
        counts[row["trace"]] = counts.get(row["trace"], 0) + 1
    assert 8 < len(counts) < 32
    assert set(counts.values()) == {4}
    other = FinetuningRecorder(tmp_path / "b.jsonl", sample=0.5)
    assert all(other._sink.samples(trace) for trace in counts)


def test_secrets_are_masked_in_messages_answers_and_passages(recorder, scripted):
    engine = index_of("Mail ann@example.com").as_query_engine(llm=scripted("sk-abcdefghijklmnop12"))
    engine.query("I am bob@example.com")
    recorder.flush()
    text = recorder.path.read_text()
    assert "example.com" not in text
    assert "sk-abc" not in text
    assert text.count("[EMAIL]") > 2


def test_a_failing_hook_never_fails_the_app_and_writes_nothing(tmp_path, scripted, caplog):
    def hook(text):
        raise KeyError("hook")

    with FinetuningRecorder(tmp_path / "a.jsonl", redact=hook) as recorder:
        for _ in range(3):
            assert scripted().complete("q").text == "An answer."
    assert recorder.failures == 3
    assert caplog.text.count("could not be written") == 1
    assert recorder.path.read_bytes() == b""


def test_without_a_hook_texts_are_written_as_they_are(tmp_path, scripted):
    with FinetuningRecorder(tmp_path / "a.jsonl", redact=None) as recorder:
        scripted().complete("ann@example.com")
    assert rows(recorder)[0]["messages"][0]["content"] == "ann@example.com"


def test_nothing_is_recorded_before_attaching_and_after_detaching(tmp_path, scripted):
    recorder = FinetuningRecorder(tmp_path / "a.jsonl")
    root = get_dispatcher()
    before = len(root.event_handlers), len(root.span_handlers)
    scripted().complete("before")
    recorder.attach()
    recorder.attach()
    scripted().complete("during")
    recorder.detach()
    scripted().complete("after")
    assert [row["messages"][0]["content"] for row in rows(recorder)] == ["during"]
    assert (len(root.event_handlers), len(root.span_handlers)) == before


def test_attached_in_the_middle_of_a_stream_the_rest_does_no_harm(tmp_path):
    stream = MockLLM(max_tokens=3).stream_complete("q")
    next(stream)
    with FinetuningRecorder(tmp_path / "a.jsonl") as recorder:
        assert len(list(stream)) == 2
    assert recorder.failures == 0


def test_arguments_are_checked(tmp_path, recorder):
    with pytest.raises(ValueError, match="sample must be a number from 0 to 1, got 2"):
        FinetuningRecorder(tmp_path / "a.jsonl", sample=2)
    with pytest.raises(ValueError, match=r"path must be a file, but .* is a folder"):
        FinetuningRecorder(tmp_path)
    with pytest.raises(ValueError, match="score must be a finite number, got nan"):
        recorder.feedback("t", float("nan"))


def test_a_request_is_one_line_of_the_log_when_it_ends(recorder, scripted):
    engine = index_of("Fee: 5 euros").as_query_engine(llm=scripted("5 euros."))
    engine.query("Fee?")
    header, node, request = map(json.loads, recorder.path.read_text().splitlines())
    assert (header["kind"], node["kind"]) == ("header", "node")
    assert [record["kind"] for record in request] == ["retrieval", "llm", "query"]


def test_a_request_that_failed_keeps_what_it_did_until_then(recorder, scripted):
    engine = index_of("Fee: 5 euros").as_query_engine(llm=scripted(RuntimeError("no credit")))
    with pytest.raises(RuntimeError):
        engine.query("Fee?")
    last = json.loads(recorder.path.read_text().splitlines()[-1])
    assert [record["kind"] for record in last] == ["retrieval"]


def test_a_request_that_takes_long_is_written_as_it_goes(tmp_path, scripted):
    seen = []

    class Looks(scripted):
        def complete(self, prompt, formatted=False, **kwargs):
            seen.append(path.read_text().count('"kind":"retrieval"'))
            return super().complete(prompt, formatted, **kwargs)

    path = tmp_path / "a.jsonl"
    for seconds in (60, 1e-9):
        with FinetuningRecorder(path, flush_seconds=seconds):
            index_of("Fee: 5 euros").as_query_engine(llm=Looks()).query("Fee?")
    assert seen == [0, 2]


def test_a_flush_in_the_middle_of_a_request_writes_what_is_there(recorder, scripted):
    class Flushes(scripted):
        def complete(self, prompt, formatted=False, **kwargs):
            recorder.flush()
            assert '"kind":"retrieval"' in recorder.path.read_text()
            return super().complete(prompt, formatted, **kwargs)

    index_of("Fee: 5 euros").as_query_engine(llm=Flushes()).query("Fee?")
    assert [row["kind"] for row in rows(recorder)] == ["retrieval", "llm", "query"]


def test_a_child_forked_while_another_thread_records_does_not_hang(tmp_path):
    with FinetuningRecorder(tmp_path / "a.jsonl") as recorder:
        with recorder._events._lock, recorder._sink._lock:  # as another thread would hold them
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                try:
                    MockLLM().complete("from the child")
                    recorder.flush()
                finally:
                    os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0  # not killed by the alarm
        assert recorder.traffic().stats()["records"] == {"llm": 1}


@pytest.mark.parametrize("trace_id", ["", 7, b"a"])
def test_a_trace_id_that_is_no_text_is_named(tmp_path, trace_id):
    recorder = FinetuningRecorder(tmp_path / "a.jsonl")
    message = "trace_id must be a text that is not empty, got"
    with pytest.raises(ValueError, match=message), recorder.trace(trace_id):
        pass
    with pytest.raises(ValueError, match=message):
        recorder.feedback(trace_id, 1.0)


@pytest.mark.parametrize("score", ["good", None, float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_named(tmp_path, score):
    with pytest.raises(ValueError, match=f"score must be a (finite )?number, got {score!r}"):
        FinetuningRecorder(tmp_path / "a.jsonl").feedback("t", score)


def test_half_a_surrogate_pair_in_a_trace_id_does_not_fail_the_app(tmp_path):
    recorder = FinetuningRecorder(tmp_path / "a.jsonl", sample=0.5)
    with recorder, recorder.trace("\ud83d"):
        assert MockLLM().complete("Hello").text == "Hello"
    assert recorder.failures == 0


def test_an_event_of_a_class_that_is_no_retriever_belongs_to_the_request_around_it(recorder):
    from llama_index.core.instrumentation import DispatcherSpanMixin
    from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent

    dispatcher = get_dispatcher(__name__)

    class Odd(DispatcherSpanMixin):
        @dispatcher.span
        def find(self, query):
            node = NodeWithScore(node=TextNode(id_="n", text="5 euros"), score=1.0)
            dispatcher.event(RetrievalEndEvent(str_or_query_bundle=query, nodes=[node]))

    odd = Odd()
    with recorder.trace("request"):
        MockLLM().complete("before")

        @dispatcher.span
        def outer():
            odd.find("Fee?")

        outer()
    [row] = rows(recorder, "retrieval")
    assert (row["trace"], row["query"]) == ("request", "Fee?")
    assert row["span"].startswith("Odd.find-")
    assert recorder.failures == 0
    assert not recorder._span_tap.spans.open  # nothing is left behind


def test_a_record_that_holds_itself_is_counted_and_not_written(tmp_path, caplog):
    circle: dict = {"kind": "x"}
    circle["self"] = circle
    log = TrafficLog(tmp_path / "a.jsonl")
    batch = Batch()
    log.append(circle, (), batch)
    log.end(batch)
    log.append({"kind": "y"})
    log.close()
    assert log.lost == 1
    assert [row["kind"] for row in read_log(log.path)] == ["y"]


def test_spans_that_never_end_are_let_go_of_the_oldest_first(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_index.tuning.collect.spans._MAX_OPEN", 3)
    spans = FinetuningRecorder(tmp_path / "a.jsonl")._span_tap.spans
    for n in range(9):
        spans.enter(f"Bot.stream-{n:036}", {}, None, None, None)
    assert [int(id_[-36:]) for id_ in spans.open] == [6, 7, 8]
