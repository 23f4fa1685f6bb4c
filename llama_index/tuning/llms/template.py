"""How a model's tokenizer writes conversations: one way for training and for serving."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from llama_index.tuning.datasets._chat_formats import trl_message
from llama_index.tuning.datasets._chat_validation import is_whole
from llama_index.tuning.errors import DatasetError, TemplateError

Message = dict[str, Any]
Tool = Mapping[str, Any]

_PROBE = "probe_tool_7d3"
_THOUGHTS = ("reasoning_content", "thinking")


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: a tokenizer of transformers with a chat template.
        name: the model's name, for error messages.

    Raises:
        TemplateError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, name: str = "the model") -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise TemplateError(
                f"{name} has no chat template: it is a base model, not a chat model; set "
                "tokenizer.chat_template, save the tokenizer beside the model, and try again"
            )
        self.tokenizer, self.name = tokenizer, name

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, answer: bool = False
    ) -> str:
        """The text of a conversation.

        Args:
            messages: in OpenAI's shape.
            tools: function schemas in OpenAI's shape.
            answer: open the assistant's turn at the end, for the model to go on.
        """
        from jinja2 import TemplateError as JinjaError

        if tools and not self.supports_tools:
            raise TemplateError(
                f"the chat template of {self.name} knows no tools: it would leave them out; "
                "take a model whose template has tools"
            )
        written = [self._message(place, message) for place, message in enumerate(messages)]
        try:
            return self._apply(written, tools, answer)
        except JinjaError as exc:
            raise TemplateError(
                f"the chat template of {self.name} refuses the conversation: {exc}"
            ) from exc

    def ids(self, text: str) -> list[int]:
        """Tokens of a rendered text: the template writes BOS itself where the model wants one."""
        if not is_whole(text):
            raise ValueError("the text holds half a character (a lone surrogate): it has no tokens")
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def supports_tools(self) -> bool:
        """Whether the template writes both tools and the calls of them."""
        return self._writes_tools and self._writes_calls

    @cached_property
    def thoughts_key(self) -> str | None:
        """The message key under which the template takes thoughts, if it takes any."""
        template = self._source
        return next((key for key in _THOUGHTS if f".{key}" in template), None)

    @property
    def _source(self) -> str:
        template = self.tokenizer.chat_template
        return template if isinstance(template, str) else json.dumps(template)

    @cached_property
    def _writes_tools(self) -> bool:
        tool = {
            "type": "function",
            "function": {
                "name": _PROBE,
                "description": "A probe.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
        return _PROBE in self._probe([{"role": "user", "content": "q"}], [tool])

    @cached_property
    def _writes_calls(self) -> bool:
        function = {"name": _PROBE, "arguments": {}}
        call = {"id": "call00000", "type": "function", "function": function}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        return _PROBE in self._probe([{"role": "user", "content": "q"}, said], [])

    def _probe(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        from jinja2 import TemplateError as JinjaError

        try:
            return self._apply(messages, tools, False)
        except (JinjaError, TypeError):  # a template that cannot hold it
            return ""

    def _apply(self, messages: Sequence[Message], tools: Sequence[Tool], answer: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            list(messages),
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=answer,
        )
        return text

    def _message(self, place: int, message: Message) -> Message:
        if message.get("tool_calls") and not self._writes_calls:
            raise TemplateError(
                f"messages[{place}].tool_calls: the chat template of {self.name} does not write "
                "calls; take a model whose template has tools"
            )
        written = trl_message(message)
        if not isinstance(written["content"], str):
            kinds = sorted({part["type"] for part in written["content"]} - {"text"})
            raise DatasetError(
                f"messages[{place}].content holds {', '.join(kinds)}; {self.name} reads text alone"
            )
        if message.get("thinking") and self.thoughts_key:
            written[self.thoughts_key] = message["thinking"]
        return written
