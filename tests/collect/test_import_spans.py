"""Traces of other tools: real spans of OpenInference and MLflow, the others by documentation."""

import contextlib
import json
import random
from pathlib import Path

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool

from llama_index.tuning.collect import Traffic
from llama_index.tuning.errors import DatasetError

from .conftest import ScriptedLLM

WORDS = ("one", "two", "three")
TOOL = {"type": "function", "function": {"name": "f", "description": "Do.", "parameters": {}}}


def index():
    nodes = [TextNode(id_=f"n{i}", text=f"Text {word}") for i, word in enumerate(WORDS)]
    return VectorStoreIndex(nodes, embed_model=MockEmbedding(4))


def run_the_app():
    """A retriever, a query engine with a re-ranker, a router, a stream, and a chat with tools."""
    found = index()
    found.as_retriever(similarity_top_k=2).retrieve("plain")
    reranker = LLMRerank(llm=ScriptedLLM("Doc: 2, Relevance: 9", name="ranker"), top_n=1)
    found.as_query_engine(
        llm=ScriptedLLM("The answer", name="answers"),
        similarity_top_k=3,
        node_postprocessors=[reranker],
    ).query("ranked")
    tools = [
        QueryEngineTool.from_defaults(
            found.as_query_engine(llm=ScriptedLLM(name[0].upper())),
            name=name,
            description=f"About {name}",
        )
        for name in ("cards", "loans")
    ]
    RouterQueryEngine(
        selector=LLMSingleSelector.from_defaults(
            llm=ScriptedLLM('[{"choice": 2, "reason": "x"}]', name="router")
        ),
        query_engine_tools=tools,
        llm=ScriptedLLM("s"),
    ).query("which loan?")
    stream = found.as_query_engine(llm=ScriptedLLM(name="streams"), streaming=True)
    "".join(stream.query("streamed").response_gen)
    call = {"block_type": "tool_call", "tool_call_id": "c1", "tool_name": "f", "tool_kwargs": {}}
    MockFunctionCallingLLM(
        response_generator=lambda messages, **_: ChatMessage(role="assistant", content="done")
    ).chat(
        [
            ChatMessage(role="system", content="Rules."),
            ChatMessage(content="q"),
            ChatMessage(role="assistant", blocks=[call]),
            ChatMessage(role="tool", content="1", additional_kwargs={"tool_call_id": "c1"}),
        ],
        tools=[TOOL],
    )


@pytest.fixture(scope="module")
def openinference():
    """What OpenInference's instrumentation wrote of the app: finished spans of the SDK."""
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        run_the_app()
    finally:
        instrumentor.uninstrument()
    return list(exporter.get_finished_spans())


def otlp(spans):
    """As OTLP's file exporter writes them."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return MessageToDict(encode_spans(spans))


def test_openinference_gives_what_the_recorder_gives(openinference):
    traffic = Traffic.from_spans(openinference)
    kinds = traffic.stats()["records"]
    assert {kind: kinds[kind] for kind in ("retrieval", "rerank", "selection")} == {
        "retrieval": 4,
        "rerank": 1,
        "selection": 1,
    }
    assert traffic.texts["n1"] == "Text two"
    assert not traffic.left_out
    retrieval = traffic.retrieval_dataset()
    assert {"plain", "ranked", "which loan?", "streamed"} == set(retrieval.queries.values())
    [routed] = traffic.routing_dataset().examples
    assert routed.query == "which loan?"
    [ranked] = traffic.relevance_dataset().lists
    assert [c.node_id for c in ranked.candidates if c.score > 0] == ["n1"]
    chats = {e.messages[-1]["content"]: e for e in traffic.chat_dataset().examples}
    assert {"The answer", "L", "done"} <= set(chats)
    assert [m["role"] for m in chats["done"].messages] == [
        "system", "user", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert chats["done"].tools == [TOOL]
    assert chats["done"].messages[2]["tool_calls"][0]["function"]["name"] == "f"


@pytest.mark.parametrize("form", ["json lines", "console", "otlp", "otlp lines", "parquet"])
def test_every_file_of_the_same_spans_says_the_same(openinference, tmp_path, form):
    expected = Traffic.from_spans(openinference)
    path = tmp_path / ("spans.parquet" if form == "parquet" else "spans.json")
    shuffled = random.Random(0).sample(openinference, len(openinference))
    if form == "json lines":
        path.write_text("\n".join(span.to_json(indent=None) for span in shuffled))
    elif form == "console":
        path.write_text("\n".join(span.to_json() for span in shuffled))
    elif form == "otlp":
        path.write_text(json.dumps(otlp(shuffled), indent=2))
    elif form == "otlp lines":
        path.write_text("\n".join(json.dumps(otlp([span])) for span in shuffled))
    else:
        phoenix_frame(shuffled).to_parquet(path)
    found = Traffic.from_spans(path)
    assert found.stats()["records"] == expected.stats()["records"]
    assert found.texts == expected.texts
    asked = sorted(found.retrieval_dataset().queries.values())
    assert asked == sorted(expected.retrieval_dataset().queries.values())
    assert len(found.chat_dataset()) == len(expected.chat_dataset())


def phoenix_frame(spans):
    """As Phoenix's `get_spans_dataframe` lays them out."""
    pandas = pytest.importorskip("pandas")
    rows = []
    for span in (json.loads(span.to_json()) for span in spans):
        head = {
            "name": span["name"],
            "span_kind": span["attributes"].pop("openinference.span.kind"),
            "parent_id": span["parent_id"],
            "start_time": span["start_time"],
            "end_time": span["end_time"],
            "status_code": span["status"]["status_code"],
            "context.span_id": span["context"]["span_id"],
            "context.trace_id": span["context"]["trace_id"],
        }
        rows.append(head | {f"attributes.{k}": v for k, v in span["attributes"].items()})
    return pandas.DataFrame(rows)


def test_annotations_of_people_are_feedback_and_those_of_models_are_verdicts(openinference):
    spans = [json.loads(span.to_json()) for span in openinference]
    query = next(
        s
        for s in spans
        if s["name"].endswith(".query") and s["attributes"].get("input.value") == "ranked"
    )
    found = next(
        s
        for s in spans
        if s["context"]["trace_id"] == query["context"]["trace_id"]
        and s["name"].endswith(".retrieve")
    )
    span_id, retriever = (s["context"]["span_id"].removeprefix("0x") for s in (query, found))
    human = {"annotator_kind": "HUMAN", "name": "thumbs"}
    notes = [
        {**human, "span_id": span_id, "result": {"label": "thumbs-up", "explanation": "So."}},
        {**human, "span_id": retriever, "document_position": 2, "result": {"score": 1}},
        {"annotator_kind": "LLM", "name": "judge", "span_id": span_id, "result": {"score": 0.25}},
        {**human, "span_id": "gone", "result": {"score": 1}},
    ]
    traffic = Traffic.from_spans([*notes, *spans])
    trace = query["context"]["trace_id"].removeprefix("0x")
    said = traffic.last_feedback(trace)
    assert (said["score"], said["comment"]) == (1.0, "So.")
    assert said["relevant"] == [found["attributes"]["retrieval.documents.2.document.id"]]
    judgments = traffic.judgment_dataset().judgments
    assert {(j.source, j.score) for j in judgments} == {("human", 1.0), ("judge", 0.25)}
    assert {j.query for j in judgments} == {"ranked"}
    assert traffic.left_out["span of an annotation whose span is not there"] == 1


def test_broken_spans_cost_no_other(openinference, tmp_path):
    lines = [span.to_json(indent=None) for span in openinference]
    no_id = json.loads(lines[0]) | {"context": {}}
    no_time = json.loads(lines[0]) | {"start_time": "noon", "end_time": None}
    bad = ['{"torn', "[1, null]", json.dumps(no_id), json.dumps(no_time)]
    bad.append(json.dumps({"trace_id": "t", "span_id": "s", "end_time": 1, "attributes": [{}, 3]}))
    path = tmp_path / "spans.jsonl"
    path.write_text("\n".join([bad[0], *lines, *bad[1:]]))
    traffic = Traffic.from_spans(path)
    assert traffic.stats()["records"] == Traffic.from_spans(openinference).stats()["records"]
    assert sum(traffic.left_out.values()) == 6
    assert "span on a line that is no JSON" in traffic.left_out


JUNK = (None, 7, float("nan"), True, "", "[1, {", "[[1], 2]", [], [None, 3], {"0": 1}, [{"a": [1]}])


def test_fields_of_any_kind_raise_nothing(openinference):
    draw = random.Random(0)
    spans = [json.loads(span.to_json()) for span in openinference]
    chats = 0
    for _ in range(20):
        broken = json.loads(json.dumps(spans))
        for span in broken:
            for key in draw.sample(list(span["attributes"]), min(2, len(span["attributes"]))):
                span["attributes"][key] = draw.choice(JUNK)
            if draw.random() < 0.2:
                span[draw.choice(list(span))] = draw.choice(JUNK)
        traffic = Traffic.from_spans(broken)
        assert traffic.records
        chats += len(traffic.chat_dataset())
        with contextlib.suppress(DatasetError):  # nothing sound may be left of so few
            traffic.retrieval_dataset()
    assert chats > 20


@pytest.mark.parametrize("text", ["", "no json", "{}", "[]", '{"a": 1}'])
def test_a_file_without_spans_is_an_error(tmp_path, text):
    path = tmp_path / "spans.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"spans\.json"):
        Traffic.from_spans(path)


def event_span(name, *events, **head):
    return {
        "name": name,
        "context": {"trace_id": "0xt", "span_id": head.pop("id", "0xs")},
        "parent_id": None,
        "end_time": "2026-05-01T10:00:00Z",
        "attributes": {},
        "events": [{"name": n, "attributes": a} for n, a in events],
    }


def test_llama_index_events():
    """As `llama-index-observability-otel` 0.7 flattens them: lists of objects become JSON."""
    nodes = json.dumps(
        [{"node": {"id_": "d", "text_resource": {"text": "Text."}, "metadata": {}}, "score": 0.5}]
    )
    blocks = json.dumps([{"block_type": "text", "text": "Hello."}])
    retrieval = {
        "str_or_query_bundle.query_str": "fee?",
        "str_or_query_bundle.embedding": [0.1, 0.2],
        "nodes": nodes,
    }
    start = {
        "messages": json.dumps(
            [{"role": "user", "blocks": [{"block_type": "text", "text": "Hi"}]}]
        ),
        "model_dict.model_name": "small",
    }
    end = {"response.message.role": "assistant", "response.message.blocks": blocks}
    query = {"query": "fee?", "response.response": "5 euros", "response.source_nodes": nodes}
    traffic = Traffic.from_spans(
        [
            event_span("VectorIndexRetriever.retrieve", ("RetrievalEndEvent", retrieval)),
            event_span("LLM.chat", ("LLMChatStartEvent", start), ("LLMChatEndEvent", end), id="l"),
            event_span("RetrieverQueryEngine.query", ("QueryEndEvent", query), id="q"),
        ]
    )
    assert traffic.stats()["records"] == {"llm": 1, "retrieval": 1, "query": 1}
    assert traffic.stats()["models"] == {"small": 1}
    assert list(traffic.retrieval_dataset().corpus.values()) == ["Text."]
    [example] = traffic.chat_dataset().examples
    assert [m["content"] for m in example.messages] == ["Hi", "Hello."]


def test_genai_attributes():
    given = [
        {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "f",
                                         "arguments": {"x": 1}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "Rain"}]},
    ]  # fmt: skip
    came = [{"role": "assistant", "parts": [{"type": "text", "content": "Rain."}]}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.input.messages": json.dumps(given),
        "gen_ai.output.messages": json.dumps(came),
        "gen_ai.tool.definitions": json.dumps([{**TOOL["function"], "type": "function"}]),
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Rules."}]),
    }
    span = {"trace_id": "t", "span_id": "s", "end_time": 1.0, "attributes": attributes}
    [example] = Traffic.from_spans([span]).chat_dataset().examples
    roles = [m["role"] for m in example.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert example.messages[3]["tool_call_id"] == "c"
    assert example.tools == [TOOL]


def test_mlflow_gives_what_the_recorder_gives():
    """What MLflow 3.17 kept of `run_the_app`, and people's assessments; without spans that tell
    nothing. Its own trace of a stream ends before the stream is read, and has no query."""
    traffic = Traffic.from_spans(Path(__file__).with_name("mlflow_3_17.jsonl"))
    kinds = traffic.stats()["records"]
    assert kinds == {
        "llm": 6, "retrieval": 4, "rerank": 1, "selection": 1, "query": 3, "feedback": 2,
    }  # fmt: skip
    assert not traffic.left_out
    assert traffic.texts == {"n0": "Text one", "n1": "Text two", "n2": "Text three"}
    assert {"ranker", "answers", "router", "streams"} <= set(traffic.stats()["models"])
    asked = traffic.retrieval_dataset().queries.values()
    assert {"plain", "ranked", "which loan?", "streamed"} == set(asked)
    [routed] = traffic.routing_dataset().examples
    assert (routed.query, routed.choices) == ("which loan?", ("loans",))
    [ranked] = traffic.relevance_dataset().lists
    assert [c.node_id for c in ranked.candidates if c.score > 0] == ["n1"]
    assert {c.retrieval_score for c in ranked.candidates} == {1.0}
    [judgment] = traffic.judgment_dataset().judgments
    assert (judgment.response, judgment.passing, judgment.reference) == (
        "The answer", True, "5 euros",
    )  # fmt: skip
    chats = {e.messages[-1]["content"]: e for e in traffic.chat_dataset().examples}
    assert [m["role"] for m in chats["done"].messages] == [
        "system", "user", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert chats["done"].tools == [TOOL]


def test_langfuse_and_mlflow_by_their_documentation():
    page = {
        "id": "t",
        "observations": [
            {"id": "r", "traceId": "t", "type": "RETRIEVER", "name": "find", "input": "fee?",
             "parentObservationId": "q", "endTime": "2026-05-01T10:00:00.000Z",
             "output": [{"id": "d", "content": "Text.", "score": 0.5}]},
            {"id": "q", "traceId": "t", "type": "AGENT", "name": "ask", "input": {"query": "fee?"},
             "endTime": "2026-05-01T10:00:01.000Z", "output": "5 euros"},
            {"id": "g", "traceId": "t", "type": "GENERATION", "name": "llm", "model": "small",
             "endTime": "2026-05-01T10:00:00.500Z", "parentObservationId": "q",
             "input": [{"role": "user", "content": "fee?"}],
             "output": {"role": "assistant", "content": "5 euros"}},
        ],
        "scores": [{"id": "s", "traceId": "t", "name": "thumbs", "value": 0, "dataType": "BOOLEAN",
                    "source": "ANNOTATION", "timestamp": "2026-05-01T10:01:00Z"}],
    }  # fmt: skip
    langfuse = Traffic.from_spans(page)
    document = {"page_content": "Text.", "metadata": {"doc_uri": "d"}, "id": None}
    head = {"trace_id": "t", "start_time_unix_nano": 1, "end_time_unix_nano": 2 * 10**18}
    spans = [
        {**head, "span_id": "q", "parent_span_id": None, "name": "ask", "attributes": {
            "mlflow.spanType": '"CHAIN"', "mlflow.spanInputs": '{"query": "fee?"}',
            "mlflow.spanOutputs": '"5 euros"'}},
        {**head, "span_id": "r", "parent_span_id": "q", "name": "find", "attributes": {
            "mlflow.spanType": '"RETRIEVER"', "mlflow.spanInputs": '{"query": "fee?"}',
            "mlflow.spanOutputs": json.dumps([document])}},
        {**head, "span_id": "g", "parent_span_id": "q", "name": "llm", "attributes": {
            "mlflow.spanType": '"CHAT_MODEL"',
            "mlflow.spanInputs": '{"messages": [{"role": "user", "content": "fee?"}]}',
            "mlflow.spanOutputs": '{"choices": [{"message": {"role": "assistant", '
                                  '"content": "5 euros"}}]}'}},
    ]  # fmt: skip
    thumbs = {"assessment_name": "thumbs", "trace_id": "t", "feedback": {"value": False},
              "source": {"source_type": "HUMAN", "source_id": "ann"}}  # fmt: skip
    mlflow = Traffic.from_spans(
        {"info": {"trace_id": "t", "assessments": [thumbs]}, "data": {"spans": spans}}
    )
    for traffic in (langfuse, mlflow):
        assert traffic.stats()["records"] == {"llm": 1, "retrieval": 1, "query": 1, "feedback": 1}
        assert traffic.texts == {"d": "Text."}
        [judgment] = traffic.judgment_dataset().judgments
        assert (judgment.response, judgment.passing) == ("5 euros", False)
        assert judgment.contexts == ["Text."]
        [example] = traffic.chat_dataset().examples
        assert [m["content"] for m in example.messages] == ["fee?", "5 euros"]
