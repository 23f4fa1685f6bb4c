"""Tools as JSON schemas, and whether a call's arguments keep to them.

A teacher's replies to conversations: several at a time, each kept as it comes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import BaseTool, FunctionTool, ToolMetadata
from pydantic import BaseModel, ValidationError

from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking.calls import Calls
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.run import run_items
from llama_index.tuning.datasets.chat_faults import conversation_faults
from llama_index.tuning.datasets.formats.messages import tool_record
from llama_index.tuning.datasets.formats.thoughts import without_thoughts
from llama_index.tuning.errors import DatasetError, MissingExtraError, ReplyError
from llama_index.tuning.llms.tasks.knowledge import Conversation, chat_message, messages_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


AnyTool = Mapping[str, Any] | BaseTool | type[BaseModel]
"""A function schema in OpenAI's shape, a LlamaIndex tool, or a pydantic class to fill in."""


@dataclass(frozen=True)
class Offered:
    """A tool made ready: its schema, what checks arguments, and LlamaIndex's tool.

    Attributes:
        record: the schema in OpenAI's shape.
        validator: of jsonschema, for the arguments.
        model: the pydantic class of the arguments, whose own validators run too.
        tool: to hand to a function calling LLM.
    """

    record: dict[str, Any]
    validator: Any
    model: type[BaseModel] | None
    tool: BaseTool


@dataclass
class SchemaMetadata(ToolMetadata):
    """Metadata of a tool that is known by its JSON schema alone."""

    parameters: dict[str, Any] = field(default_factory=dict)

    def get_parameters_dict(self) -> dict[str, Any]:
        """The schema as it was given."""
        return self.parameters


def offered_tools(tools: Sequence[AnyTool]) -> dict[str, Offered]:
    """Tools by name.

    Raises:
        DatasetError: a tool without a sound name or JSON schema, or two of one name.
        TypeError: something else than a schema, a tool or a pydantic class.
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise TypeError(f"tools must be a list of tools, got {type(tools).__name__}")
    if not tools:
        raise DatasetError("tools must hold at least one tool, got none")
    made = [_as_tool(place, tool) for place, tool in enumerate(tools)]
    records = [record for record, _, _ in made]
    probe = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    faults = conversation_faults(probe, records, None, None)
    if faults:
        raise DatasetError("the tools have faults:", faults)
    return {
        record["function"]["name"]: Offered(
            record, _validator(record), model, tool or _schema_tool(record)
        )
        for record, model, tool in made
    }


def argument_fault(offered: Offered, arguments: Any) -> str | None:
    """The first thing wrong with a call's arguments, or None."""
    from jsonschema.exceptions import best_match

    name = offered.record["function"]["name"]
    error = best_match(offered.validator.iter_errors(arguments))
    if error is not None:
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"{name}: arguments{where}: {error.message}"
    schema = offered.validator.schema
    if "additionalProperties" not in schema and "patternProperties" not in schema:
        unknown = [key for key in arguments if key not in schema.get("properties", {})]
        if unknown:
            return f"{name}: arguments: {unknown[0]!r} is no parameter of it"
    if offered.model is not None:
        try:
            offered.model.model_validate(arguments)
        except ValidationError as exc:
            first = exc.errors()[0]
            where = "".join(f"[{part!r}]" for part in first["loc"])
            return f"{name}: arguments{where}: {first['msg']}"
    return None


def _as_tool(
    place: int, tool: Any
) -> tuple[dict[str, Any], type[BaseModel] | None, BaseTool | None]:
    if isinstance(tool, type) and issubclass(tool, BaseModel):
        made = get_function_tool(tool)
        return tool_record(made), tool, made
    if isinstance(tool, BaseTool):
        model = tool.metadata.fn_schema
        return tool_record(tool), model, tool
    if isinstance(tool, Mapping):
        return dict(tool), None, None
    raise TypeError(
        f"tools[{place}] must be a JSON schema, a LlamaIndex tool or a pydantic class, "
        f"got {type(tool).__name__}"
    )


def _validator(record: Mapping[str, Any]) -> Any:
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
    except ImportError as exc:
        raise MissingExtraError("Checking a tool call's arguments", "jsonschema", "llm") from exc

    function = record["function"]
    schema = {"type": "object", **(function.get("parameters") or {})}
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as exc:
        raise DatasetError(
            f"tool {function['name']}: parameters is no JSON schema: {exc.message}"
        ) from exc
    return kind(schema)


def _schema_tool(record: Mapping[str, Any]) -> BaseTool:
    function = record["function"]

    def unknown(**arguments: Any) -> None:
        raise NotImplementedError(f"{function['name']} is known by its schema alone")

    metadata = SchemaMetadata(
        description=function.get("description") or "",
        name=function["name"],
        parameters=dict(function.get("parameters") or {"type": "object", "properties": {}}),
    )
    return FunctionTool(fn=unknown, metadata=metadata)


@own_work
def teacher_replies(
    teacher: LLM,
    conversations: Sequence[Conversation],
    *,
    task: str,
    settings: Mapping[str, Any],
    output_path: PathLike | None,
    run: RunOptions,
) -> list[tuple[str | None, str]]:
    """(reply, "") of each conversation, or (None, why there is none).

    A conversation that occurs twice is asked once.

    Args:
        teacher: any LLM.
        conversations: what it is asked.
        task: what the run's file is for.
        settings: of each call; other settings, and other messages, are asked anew.
        output_path: of the result; the run file lies beside it.
        run: how the teacher is asked.
    """
    asked = [messages_of(conversation) for conversation in conversations]
    keys = [json.dumps([messages, dict(settings)], default=repr) for messages in asked]
    messages = {key: [chat_message(m) for m in each] for key, each in zip(keys, asked, strict=True)}

    async def reply(calls: Calls, key: str) -> str:
        async def request() -> str:
            calls.spend()
            response = await calls.in_time(teacher.achat(messages[key], **settings))
            said = without_thoughts(response.message.content or "")
            if not said.strip():
                raise ReplyError("the teacher's reply is empty")
            return said

        text: str = await calls.finish("reply", _id(key), key, request)
        return text

    outcomes = run_items(
        teacher,
        list(messages),
        reply,
        id_of=_id,
        header={"task": task},
        output_path=output_path,
        description="Asking the teacher",
        run=run,
    )
    failed = {f.id: f"the teacher failed: {f.error}: {f.message}" for f in outcomes.failures}
    left_out = dict.fromkeys(outcomes.not_asked, "max_calls left it out: the teacher was not asked")
    reasons = failed | left_out
    return [(outcomes.results.get(_id(key)), reasons.get(_id(key), "")) for key in keys]


def _id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]
