"""The old package's two helpers for training files."""

from __future__ import annotations

import json
import os
from typing import Any

from llama_index.tuning._files import read_json_lines, write_text_atomic
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.errors import DatasetError

Row = dict[str, Any]


def validate_json(data_path: str | os.PathLike[str]) -> None:
    """Check every line of a chat training file; the engines do so by themselves.

    `OpenAIFinetuneEngine.estimate()` counts tokens and cost.

    Args:
        data_path: a JSON Lines file in OpenAI's format, tools and preferences included.

    Raises:
        DatasetError: naming each faulty line and field.
    """
    ChatDataset.from_jsonl(data_path)


def reformat_jsonl(input_file: str | os.PathLike[str]) -> None:
    """Rewrite a chat training file in place, as it is written today.

    OpenAI's fields of 2023, `functions` and `function_call`, become `tools` and `tool_calls`, and
    messages of the role `function` results of these calls.

    Args:
        input_file: a JSON Lines file in OpenAI's format.

    Raises:
        DatasetError: a line is no object with messages; the file stays as it was.
    """
    lines = []
    for number, row in read_json_lines(input_file):
        try:
            lines.append(json.dumps(_today(row), ensure_ascii=False))
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise DatasetError(
                f"{input_file} not rewritten: line {number} does not hold OpenAI's fields ({exc})"
            ) from exc
    write_text_atomic(input_file, "".join(f"{line}\n" for line in lines))


def _today(row: Row) -> Row:
    row = dict(row)
    called = ""
    messages = []
    for place, message in enumerate(row["messages"]):
        message = dict(message)
        if call := message.pop("function_call", None):
            called = f"call_{place}"
            message["tool_calls"] = [{"id": called, "type": "function", "function": call}]
            message["content"] = message.get("content") or None
        if message["role"] == "function":
            message = {"role": "tool", "tool_call_id": called, "content": message["content"]}
        messages.append(message)
    row["messages"] = messages
    if functions := row.pop("functions", None):
        row["tools"] = [{"type": "function", "function": function} for function in functions]
    return row
