"""What a span tells: a retrieval, re-ranking, selection, verdict, query, or LLM's answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.tuning.collect.imports.messages import (
    Found,
    documents,
    message,
    messages,
    tools,
)
from llama_index.tuning.collect.imports.nested import asked, at, listed, loaded, said, text_of
from llama_index.tuning.collect.imports.read import Span


@dataclass(slots=True)
class Told:
    """A record without its request: kind, fields, and the texts of the nodes that it names."""

    kind: str
    body: dict[str, Any]
    texts: dict[str, str] = field(default_factory=dict)


def tell(span: Span) -> list[Told]:
    """The records that a span holds; none of one that failed, or tells nothing to learn from."""
    if span.failed:
        return []
    kind = at(span.attributes, "openinference.span.kind")
    if kind:
        told = _openinference(span, str(kind).upper())
        return [] if told is None else [told]
    events = [told for told in _llama_index(span) if told is not None]
    if events:
        return events
    told = _gen_ai(span) if at(span.attributes, "gen_ai") else _plain(span)
    return [] if told is None else [told]


def _class(name: str) -> str:
    return name.partition(".")[0]


def _method(name: str) -> str:
    return name.rpartition(".")[2]


def _retrieval(by: str, query: str | None, found: Any) -> Told | None:
    nodes, texts = documents(found)
    if query is None:
        return None
    return Told("retrieval", {"by": by, "query": query, "nodes": nodes}, texts)


def _rerank(by: str, model: Any, query: str | None, given: Any, ranked: Any) -> Told | None:
    nodes, texts = documents(given)
    after, more = documents(ranked)
    if query is None or not after:
        return None
    body = {"by": by, "model": str(model or by), "query": query, "nodes": nodes, "ranked": after}
    return Told("rerank", body, {**texts, **more})


def _exchange(
    model: Any, asked_: list[dict[str, Any]], answer: Any, offered: Any, *, prompt: Any = None
) -> Told | None:
    response = message(answer, "assistant") if answer is not None else None
    if prompt is not None:
        asked_ = [{"role": "user", "content": str(prompt)}]
    if not asked_ or response is None:
        return None
    response["role"] = "assistant"
    body: dict[str, Any] = {
        "model": str(model or "unknown"),
        "messages": asked_,
        "response": response,
    }
    if prompt is not None:
        body["completion"] = True
    if found := tools(offered):
        body["tools"] = found
    return Told("llm", body)


def _openinference(span: Span, kind: str) -> Told | None:
    """By OpenInference's conventions; names of spans are LlamaIndex's `Class.method`."""
    a, by = span.attributes, _class(span.name)
    given, came = at(a, "input.value"), at(a, "output.value")
    if kind == "RETRIEVER":
        found = at(a, "retrieval.documents")  # absent of the method that the retriever's calls
        return None if found is None else _retrieval(by, asked(given), found)
    if kind == "RERANKER":
        model, query = at(a, "reranker.model_name"), text_of(at(a, "reranker.query"))
        found = at(a, "reranker.input_documents"), at(a, "reranker.output_documents")
        return _rerank(by, model, query or asked(given), *found)
    if kind == "LLM":
        offered, model = at(a, "llm.tools"), at(a, "llm.model_name")
        if at(a, "llm.input_messages"):
            answers = listed(at(a, "llm.output_messages"))
            answer = answers[-1] if answers else came
            return _exchange(model, messages(at(a, "llm.input_messages")), answer, offered)
        prompts = listed(at(a, "llm.prompts"))
        if not prompts:
            return None
        prompt = at(prompts[-1], "prompt.text") or prompts[-1]
        return _exchange(model, [], came, offered, prompt=prompt)
    if kind == "EVALUATOR":
        return _verdict(by, loaded(given), loaded(came))
    if (tell := _METHODS.get(_method(span.name))) is not None:
        return tell(by, loaded(given), loaded(came))
    if kind in ("CHAIN", "AGENT") and span.parent is None:
        return _query(by, asked(given), said(came))
    return None


def _query(by: str, query: str | None, response: str | None) -> Told | None:
    if query is None:
        return None
    return Told("query", {"by": by, "query": query, "response": response, "nodes": []})


def _selection(by: str, given: Any, came: Any) -> Told | None:
    query = asked(at(given, "query"))
    choices = [
        {"name": choice.get("name") or choice.get("description") or "",
         "description": choice.get("description") or ""}
        for choice in map(loaded, listed(at(given, "choices")))
        if isinstance(choice, Mapping)
    ]  # fmt: skip
    picked = [pick for pick in listed(at(came, "selections")) if isinstance(pick, Mapping)]
    if query is None or not choices or not picked:
        return None
    selected = [pick.get("index") for pick in picked]
    reasons = [str(pick.get("reason") or "") for pick in picked]
    body = {"by": by, "model": by, "query": query, "choices": choices}
    return Told("selection", {**body, "selected": selected, "reasons": reasons})


def _verdict(by: str, given: Any, came: Any) -> Told | None:
    if not isinstance(came, Mapping) or not by.endswith("Evaluator"):
        return None
    given = given if isinstance(given, Mapping) else {}
    keys = ("query", "response", "contexts", "reference", "second_response")
    body = {key: came.get(key) if given.get(key) is None else given[key] for key in keys}
    verdict = {key: came.get(key) for key in ("passing", "score", "feedback", "invalid_result")}
    if verdict["score"] is None and verdict["passing"] is None:
        return None
    return Told("evaluation", {"by": by, "model": by, **body, **verdict})


# How OpenInference writes nodes that are arguments: their ids and scores, without the texts.
_NODE = re.compile(r"id_=(.+?)\), score=(-?[\d.]+(?:e-?\d+)?|None)\)>")


def _postprocessed(by: str, given: Any, came: Any) -> Told | None:
    (before, texts), (after, more) = _written(at(given, "nodes")), _written(came)
    query = asked(at(given, "query_bundle"))
    kept = {node["id"] for node in after}
    if query is None or not after or [n for n in before if n["id"] in kept] == after:
        return None  # a filter ranks nothing
    body = {"by": by, "model": by, "query": query, "nodes": before, "ranked": after}
    return Told("rerank", body, {**texts, **more})


def _written(nodes: Any) -> Found:
    if any(isinstance(loaded(node), Mapping) for node in listed(nodes)):
        return documents(nodes)
    found = (_NODE.search(str(node)) for node in listed(nodes))
    return [
        {"id": match[1], "score": None if match[2] == "None" else float(match[2])}
        for match in found
        if match is not None
    ], {}


# What LlamaIndex' own methods tell, whoever wrote their arguments and results.
_METHODS: dict[str, Callable[[str, Any, Any], Told | None]] = {
    **dict.fromkeys(("_select", "_aselect", "select", "aselect"), _selection),
    **dict.fromkeys(("evaluate", "aevaluate"), _verdict),
    **dict.fromkeys(("_postprocess_nodes", "_apostprocess_nodes"), _postprocessed),
    **dict.fromkeys(
        ("query", "aquery"), lambda by, given, came: _query(by, asked(given), said(came))
    ),
}
_TOLD_WITHIN = {"_retrieve", "_aretrieve", "predict", "apredict", "stream", "astream"}
"""Methods of LlamaIndex around, or inside, the span that tells the same."""


def _llama_index(span: Span) -> list[Told | None]:
    """Events of LlamaIndex, as `llama-index-observability-otel` writes them into its spans."""
    by, last = _class(span.name), dict(span.events)
    told: list[Told | None] = []
    for name, event in span.events:
        if name == "RetrievalEndEvent":
            told.append(_retrieval(by, asked(event.get("str_or_query_bundle")), event.get("nodes")))
        elif name == "QueryEndEvent":
            found = _query(by, asked(event.get("query")), said(event.get("response")))
            if found is not None:
                sources = at(event, "response.source_nodes")
                found.body["nodes"], found.texts = documents(sources)
            told.append(found)
        elif name == "ReRankEndEvent" and "ReRankStartEvent" in last:
            start = last["ReRankStartEvent"]
            query, model = asked(start.get("query")), start.get("model_name")
            told.append(_rerank(by, model, query, start.get("nodes"), event.get("nodes")))
        elif name == "LLMChatEndEvent" and "LLMChatStartEvent" in last:
            start = last["LLMChatStartEvent"]
            answer = at(event, "response.message")
            offered = at(start, "additional_kwargs.tools")
            asked_ = messages(start.get("messages"))
            told.append(_exchange(_model(start), asked_, answer, offered))
        elif name == "LLMCompletionEndEvent" and "LLMCompletionStartEvent" in last:
            start = last["LLMCompletionStartEvent"]
            answer = text_of(at(event, "response.text"))
            told.append(_exchange(_model(start), [], answer, None, prompt=start.get("prompt")))
    return told


def _model(start: Mapping[str, Any]) -> Any:
    names = (at(start, f"model_dict.{key}") for key in ("model_name", "model", "class_name"))
    return next((name for name in names if name and name != "unknown"), None)


def _gen_ai(span: Span) -> Told | None:
    """By OpenTelemetry's conventions for generative AI, and the older ones of OpenLLMetry."""
    a = at(span.attributes, "gen_ai")
    operation = str(at(a, "operation.name") or "")
    if at(a, "retrieval.documents") is not None or operation == "retrieval":
        query = text_of(at(a, "retrieval.query.text")) or asked(at(a, "retrieval.query"))
        return _retrieval(span.name, query, at(a, "retrieval.documents"))
    given = messages(at(a, "input.messages") or at(a, "prompt"))
    answers = listed(at(a, "output.messages") or at(a, "completion"))
    for name, event in span.events:  # older than the attributes
        if name == "gen_ai.client.inference.operation.details":
            given = given or messages(at(event, "gen_ai.input.messages"))
            answers = answers or listed(at(event, "gen_ai.output.messages"))
        elif name == "gen_ai.choice":
            answers = answers or [event]
        elif name.startswith("gen_ai.") and name.endswith(".message"):
            found = message({"role": name.split(".")[1], **event})
            given = given if found is None else [*given, found]
    rules = listed(at(a, "system_instructions"))
    if rules:
        given = [{**(message({"parts": rules}) or {}), "role": "system"}, *given]
    if operation in ("invoke_agent", "invoke_workflow", "create_agent"):
        users = [m for m in given if m["role"] == "user"]
        return _query(span.name, asked(users[-1:]), said(message(answers[0]) if answers else None))
    if operation in ("execute_tool", "embeddings"):
        return None
    model = at(a, "response.model") or at(a, "request.model")
    answer = answers[0] if answers else None
    return _exchange(model, given, answer, at(a, "tool.definitions"))


def _plain(span: Span) -> Told | None:
    """By the type, input and output that Langfuse and MLflow keep of any span."""
    plain = span.attributes.get("plain")
    if not isinstance(plain, Mapping):
        return None
    kind, given, came = str(plain.get("type")).upper(), plain.get("input"), plain.get("output")
    by, _, method = span.name.partition(".")
    if method in _TOLD_WITHIN:
        return None
    if method in _METHODS:
        return _METHODS[method](by, given, came)
    prompt = text_of(next(iter(listed(at(given, "args"))), None))  # of LlamaIndex' complete()
    kinds: dict[str, Callable[[], Told | None]] = {
        "RETRIEVER": lambda: _retrieval(span.name, asked(given), at(came, "documents") or came),
        "RERANKER": lambda: _rerank(
            span.name, None, asked(given), at(given, "documents") or at(given, "nodes"), came
        ),
    }
    for name in ("GENERATION", "LLM", "CHAT_MODEL"):
        kinds[name] = lambda: _exchange(
            plain.get("model") or at(given, "model") or at(came, "model"),
            messages(at(given, "messages") or at(given, "prompt") or given),
            _answer(came),
            at(given, "tools") or at(given, "kwargs.tools"),
            prompt=prompt,
        )
    if kind in kinds:
        return kinds[kind]()
    if span.parent is None and kind not in ("EMBEDDING", "TOOL", "EVENT", "EVALUATOR", "GUARDRAIL"):
        return _query(span.name, asked(given), said(came))
    return None


def _answer(came: Any) -> Any:
    choices = listed(at(came, "choices")) or listed(at(came, "messages"))
    if not choices and isinstance(came, list):
        choices = came
    text = text_of(at(came, "text"))  # of LlamaIndex' complete()
    return choices[-1] if choices else came if text is None else text
