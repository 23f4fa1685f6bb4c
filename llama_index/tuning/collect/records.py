"""LlamaIndex objects as plain data: what is written to the log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from llama_index.tuning.collect.log import Attachment
from llama_index.tuning.datasets.formats.messages import tool_record

if TYPE_CHECKING:
    from llama_index.core.evaluation import EvaluationResult
    from llama_index.core.schema import BaseNode
    from llama_index.core.tools import ToolMetadata

_OPTIONS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "tool_choice",
    "response_format", "reasoning_effort",
)  # fmt: skip


def call_record(kwargs: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Of an LLM call's arguments: the model, its tools and the options that shape an answer."""
    record: dict[str, Any] = {"model": model_name(model)}
    if kwargs.get("tools"):
        record["tools"] = [tool_record(tool) for tool in kwargs["tools"]]
    if isinstance(kwargs.get("parallel_tool_calls"), bool):
        record["parallel_tool_calls"] = kwargs["parallel_tool_calls"]
    options = {key: kwargs[key] for key in _OPTIONS if kwargs.get(key) is not None}
    if options:
        record["options"] = options
    return record


def model_name(model: dict[str, Any]) -> str:
    """The name of a model; its class where it has none."""
    for key in ("model_name", "model"):
        if model.get(key) and model[key] != "unknown":
            return str(model[key])
    return str(model.get("class_name", "unknown"))


def query_text(query: Any) -> str:
    """The text of a query, given as text or bundle."""
    return query.query_str if isinstance(query, QueryBundle) else str(query)


def scored(nodes: Sequence[NodeWithScore]) -> list[dict[str, Any]]:
    """Node ids with their scores, in order; the texts are written apart, once."""
    return [
        {"id": item.node.node_id, "score": None if item.score is None else float(item.score)}
        for item in nodes
    ]


def node_attachments(
    nodes: Sequence[NodeWithScore | BaseNode], mode: MetadataMode = MetadataMode.EMBED
) -> list[Attachment]:
    """The nodes' texts, as an index embeds them; made only where they were not written yet."""
    return [
        (
            node.node_id,
            node.text if isinstance(node, TextNode) else node.get_content(),
            partial(_node_record, node, mode),
        )
        for node in (item.node if isinstance(item, NodeWithScore) else item for item in nodes)
    ]


def _node_record(node: BaseNode, mode: MetadataMode) -> dict[str, Any]:
    return {"kind": "node", "id": node.node_id, "text": node.get_content(mode)}


def choice_record(choice: ToolMetadata) -> dict[str, Any]:
    """A router's choice; one without a name goes by its description."""
    return {"name": choice.name or choice.description, "description": choice.description}


def evaluation_record(result: EvaluationResult, asked: dict[str, Any]) -> dict[str, Any]:
    """A judge's verdict with what it judged: the result's own fields, else the arguments."""
    record = {
        key: getattr(result, key, None) if asked.get(key) is None else asked[key]
        for key in ("query", "response", "contexts", "reference", "second_response")
    }
    if record["contexts"] is not None:
        record["contexts"] = [str(text) for text in record["contexts"]]
    verdict = ("passing", "score", "feedback", "pairwise_source", "invalid_result")
    return {**record, **{key: getattr(result, key) for key in verdict}}
