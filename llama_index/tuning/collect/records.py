"""LlamaIndex objects as plain data: what is written to the log.

Messages and tools take the shape of OpenAI's chat format, which every writer starts from; a
model's thinking is kept beside them under `thinking`.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import BaseTool

from llama_index.tuning.collect.log import Attachment

if TYPE_CHECKING:
    from llama_index.core.evaluation import EvaluationResult
    from llama_index.core.schema import BaseNode
    from llama_index.core.tools import ToolMetadata

_ROLES = {"chatbot": "assistant", "model": "assistant", "function": "tool"}
_OPTIONS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "tool_choice",
    "response_format", "reasoning_effort",
)  # fmt: skip
_schemas: weakref.WeakKeyDictionary[BaseTool, dict[str, Any]] = weakref.WeakKeyDictionary()


def message_record(message: ChatMessage) -> dict[str, Any]:
    """A chat message: role, content, and whatever of tool calls, ids and thinking it has."""
    role = message.role.value
    record: dict[str, Any] = {"role": _ROLES.get(role, role)}
    extra = message.additional_kwargs
    calls = [_block_call(block) for block in message.blocks if isinstance(block, ToolCallBlock)]
    if not calls and extra.get("tool_calls"):
        calls = [_kwargs_call(call) for call in extra["tool_calls"]]
    record["content"] = _content(message.blocks, empty=None if calls else "")
    if calls:
        record["tool_calls"] = calls
    thinking = [b.content for b in message.blocks if isinstance(b, ThinkingBlock) and b.content]
    if thinking:
        record["thinking"] = "\n".join(thinking)
    for key in ("tool_call_id", "name"):
        if isinstance(extra.get(key), str):
            record[key] = extra[key]
    return record


def _content(blocks: Sequence[ContentBlock], *, empty: str | None) -> Any:
    shown = [b for b in blocks if not isinstance(b, ToolCallBlock | ThinkingBlock)]
    if not shown:
        return empty
    if len(shown) == 1 and isinstance(shown[0], TextBlock):
        text = shown[0].text
        return None if empty is None and not text else text
    return [_part(block) for block in shown]


def _part(block: ContentBlock) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if isinstance(block, ImageBlock):
        image = {"url": str(block.url) if block.url else _data_url(block)}
        return {
            "type": "image_url",
            "image_url": {**image, "detail": block.detail} if block.detail else image,
        }
    return {"type": block.block_type}


def _data_url(block: ImageBlock) -> str:
    encoded = block.resolve_image(as_base64=True).read().decode("ascii")
    return f"data:{block.image_mimetype};base64,{encoded}"


def _block_call(block: ToolCallBlock) -> dict[str, Any]:
    return _call(block.tool_call_id, block.tool_name, block.tool_kwargs)


def _kwargs_call(call: Any) -> dict[str, Any]:
    # OpenAI's own objects or dictionaries, or a ToolSelection.
    if isinstance(call, dict):
        function = call.get("function", call)
        return _call(call.get("id"), function.get("name"), function.get("arguments"))
    if hasattr(call, "function"):
        return _call(call.id, call.function.name, call.function.arguments)
    return _call(call.tool_id, call.tool_name, call.tool_kwargs)


def _call(id_: str | None, name: Any, arguments: Any) -> dict[str, Any]:
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {}, ensure_ascii=False, default=str)
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool_record(tool: Any) -> Any:
    """A tool as OpenAI's function schema; what is a dictionary already stays as it is."""
    if not isinstance(tool, BaseTool):
        return tool
    if tool not in _schemas:
        _schemas[tool] = tool.metadata.to_openai_tool()
    return _schemas[tool]


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
