"""LlamaIndex's messages and tools as plain data, in the shape of OpenAI's chat format.

Every writer of training files starts from this shape; a model's thinking is kept beside it, under
`thinking`.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import BaseTool

_ROLES = {"chatbot": "assistant", "model": "assistant", "function": "tool"}


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
        _schemas[tool] = tool.metadata.to_openai_tool(skip_length_check=True)
    return _schemas[tool]
