"""From messages and tools to the text that a model reads, as its template writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from llama_index.tuning.datasets.formats.messages import message_record, tool_record
from llama_index.tuning.llms.serving.template import ChatTemplate
from llama_index.tuning.llms.serving.tool_parsers import ToolParser


@dataclass(frozen=True)
class Prompt:
    """A call made ready.

    Attributes:
        text: what the model reads, as its template writes it.
        settings: the call's settings of generation.
        tools: the tools that are offered.
        opening: what the reply begins with; already part of `text`.
        first_call_only: whether a second tool call is to be left out.
    """

    text: str
    settings: dict[str, Any]
    tools: Sequence[dict[str, Any]] = ()
    opening: str = ""
    first_call_only: bool = False


@dataclass(frozen=True, repr=False)
class PromptWriter:
    """From messages, and tools, to the text that the model reads; a class, to be pickled.

    Attributes:
        template: the model's.
        system_prompt: put before every conversation that has no system message.
    """

    template: ChatTemplate
    system_prompt: str

    def __call__(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        """The text of a conversation, open for the reply."""
        if not messages:
            raise ValueError("messages must hold at least one message, got none")
        for message in messages:
            if not isinstance(message, ChatMessage):
                raise TypeError(f"messages must hold ChatMessages, got {type(message).__name__}")
        records = [message_record(message) for message in messages]
        if self.system_prompt and records[0]["role"] != "system":
            records.insert(0, {"role": "system", "content": self.system_prompt})
        return self.template.render(records, tools, answer=True)


def chat_prompt(
    write: PromptWriter,
    parser: ToolParser | None,
    messages: Sequence[ChatMessage],
    call: dict[str, Any],
) -> Prompt:
    """A chat made ready.

    Args:
        write: the model's way with messages.
        parser: the model's way with tool calls; None: it has none.
        messages: the conversation.
        call: the call's arguments: `tools`, `tool_choice`, `parallel_tool_calls` and settings.
    """
    settings = dict(call)
    tools = tool_records(settings.pop("tools", None) or [])
    choice = settings.pop("tool_choice", None) or "auto"
    single = settings.pop("parallel_tool_calls", None) is False
    if choice == "none":
        tools = []
    opening = _opening(choice, tools, parser)
    return Prompt(write(messages, tools) + opening, settings, tools, opening, single)


def completion_prompt(
    write: PromptWriter, text: str, formatted: bool, settings: dict[str, Any]
) -> Prompt:
    """A question made ready: a user's only message, or, `formatted`, taken as it stands."""
    if not formatted:
        text = write([ChatMessage(role=MessageRole.USER, content=text)])
    return Prompt(text, settings)


def tool_records(tools: Any) -> list[dict[str, Any]]:
    """The tools' schemas in OpenAI's shape.

    Raises:
        TypeError: what is neither a tool nor such a schema.
    """
    records: list[dict[str, Any]] = [tool_record(tool) for tool in tools]
    for record in records:
        if not isinstance(record, Mapping) or not isinstance(record.get("function"), Mapping):
            raise TypeError(
                f"tools must hold tools or their schemas in OpenAI's shape, got {record!r}"
            )
    return records


def room_for_reply(prompts: Sequence[Sequence[int]], window: int, name: str) -> int:
    """Tokens that a reply may have.

    Args:
        prompts: tokens of each prompt.
        window: tokens of prompt and reply that the model can attend to.
        name: the model's, for error messages.

    Raises:
        ValueError: a prompt is empty, or fills the window.
    """
    if not all(prompts):
        raise ValueError("the prompt is empty: there is nothing to go on from")
    longest = max(map(len, prompts))
    if longest >= window:
        raise ValueError(
            f"the prompt has {longest} tokens, and the context window of {name} {window}: there "
            "is no room for a reply"
        )
    return window - longest


def _opening(choice: Any, tools: Sequence[dict[str, Any]], parser: ToolParser | None) -> str:
    """What a reply begins with that must call a tool."""
    if choice in ("auto", "none"):
        return ""
    if not tools:
        raise ValueError(f"tool_choice is {choice!r}, and there are no tools")
    named = choice.get("function", choice).get("name") if isinstance(choice, dict) else None
    if named is None and isinstance(choice, str) and choice not in ("required", "any"):
        named = choice
    names = [tool["function"]["name"] for tool in tools]
    if named is not None and named not in names:
        raise ValueError(f"tool_choice names {named!r}; the tools are: {', '.join(names)}")
    only = named or (names[0] if len(names) == 1 else None)
    return (parser.opening(only) if parser else None) or ""
