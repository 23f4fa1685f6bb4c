"""How a model's tokenizer writes conversations: one way for training and for serving."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.tuning._running import cached_property
from llama_index.tuning.datasets.checks import is_utf8
from llama_index.tuning.datasets.formats.chat import trl_message
from llama_index.tuning.errors import DatasetError, TemplateError

Message = dict[str, Any]
Tool = Mapping[str, Any]

_PROBE = "probe_tool_7d3"
_QUESTION, _ANSWER = "Probe question 5f1?", "Probe answer 2c8."
_THOUGHTS = ("reasoning_content", "thinking")
_OWN = ("messages", "tools", "tokenize", "add_generation_prompt", "conversation", "chat_template")
_OPENED = re.compile(r"<think>\s*\Z")
_CLOSED = "\n</think>\n\n"


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: a tokenizer of transformers with a chat template.
        name: the model's name, for error messages.
        arguments: what the template is called with beside the conversation, such as
            `{"enable_thinking": False}`.

    Raises:
        TemplateError: the tokenizer has no chat template.
        ValueError: an argument that the template does not read.
    """

    def __init__(
        self,
        tokenizer: Any,
        name: str = "the model",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise TemplateError(
                f"{name} has no chat template: it is a base model, not a chat model; set "
                "tokenizer.chat_template, save the tokenizer beside the model, and try again"
            )
        self.tokenizer, self.name = tokenizer, name
        self._roles: dict[tuple[str, bool], bool] = {}
        self.arguments = dict(arguments or {})
        unread = [key for key in self.arguments if key in _OWN or not self.reads(key)]
        if unread:
            raise ValueError(
                f"template_arguments: the chat template of {name} does not read {unread[0]!r}"
            )

    def reads(self, argument: str) -> bool:
        """Whether the template has a variable of that name."""
        return re.search(rf"\b{re.escape(argument)}\b", self._source) is not None

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
            text = self._apply(written, tools, answer)
        except (JinjaError, TypeError) as exc:  # a template that needs tools, say
            raise TemplateError(
                f"the chat template of {self.name} refuses the conversation: {exc}"
            ) from exc
        closed = answer and self._opens_thoughts and _OPENED.search(text)
        return text.rstrip() + _CLOSED if closed else text

    def turn(
        self, before: Sequence[Message], message: Message, tools: Sequence[Tool] = ()
    ) -> tuple[str, str]:
        """(the prompt, what follows it in the template's words) of an assistant's message.

        Raises:
            TemplateError: the model would learn another prompt than it is served.
        """
        prompt = self.render(before, tools, answer=True)
        whole = self.render([*before, message], tools)
        if whole.startswith(prompt):
            return prompt, whole[len(prompt) :]
        if prompt.endswith("<think>" + _CLOSED) and self._opens_thoughts:
            bare = prompt.removesuffix("<think>" + _CLOSED)
            if whole.startswith(bare):
                return prompt, whole[len(bare) :]
        raise TemplateError(
            "the tokens of the prompt are no prefix of those with the answer, so the model "
            f"would learn another prompt than it is served; the chat template of {self.name} "
            "opens an answer differently from how it writes one: set a tokenizer.chat_template "
            "that opens it alike, or template_arguments= under which this one does"
        )

    def ids(self, text: str) -> list[int]:
        """Tokens of a rendered text: the template writes BOS itself if the model wants one."""
        if not is_utf8(text):
            raise ValueError("the text holds half a character (a lone surrogate): it has no tokens")
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def supports_tools(self) -> bool:
        """Whether the template writes both tools and the calls of them."""
        return self._writes_tools and self._writes_calls

    @cached_property
    def answer_prefix(self) -> str:
        """What each answer begins with: an empty thought, or the name of a channel."""
        learnt = self._probed_answer
        return learnt[: learnt.find(_ANSWER)] if _ANSWER in learnt else ""

    def written_call(
        self, name: str, arguments: Mapping[str, Any], tool: Tool, text: str = ""
    ) -> str | None:
        """What the model has to write to call a tool; None if the template does not say."""
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": "call00000", "type": "function", "function": function}
        said = {"role": "assistant", "content": text, "tool_calls": [call]}
        if not self.supports_tools:
            return None
        try:
            return self.turn([{"role": "user", "content": _QUESTION}], said, [tool])[1]
        except TemplateError:
            return None

    def plain(self, text: str) -> str:
        """The text without the tokenizer's special tokens."""
        return self._special.sub("", text) if self._special else text

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        special = {token.content for token in added if token.special}
        words = sorted(special, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, words))) if words else None

    @cached_property
    def _probed_answer(self) -> str:
        asked = {"role": "user", "content": _QUESTION}
        try:
            return self.turn([asked], {"role": "assistant", "content": _ANSWER})[1]
        except TemplateError:
            return ""

    @cached_property
    def _opens_thoughts(self) -> bool:
        """Whether the template opens a thought that its answers do not have; it is closed then."""
        asked = {"role": "user", "content": self._content(_QUESTION)}
        said = {"role": "assistant", "content": self._content(_ANSWER)}
        prompt, whole = self._probe([asked], [], True), self._probe([asked, said], [])
        opened = _OPENED.search(prompt)
        return (
            opened is not None
            and not whole.startswith(prompt)
            and whole.startswith(prompt[: opened.start()])
            and "<think>" not in whole[opened.start() :]
        )

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template reads contents as lists of parts only, as vision models' do."""

        def shown(content: Any) -> bool:
            return _QUESTION in self._probe([{"role": "user", "content": content}], [])

        return not shown(_QUESTION) and shown([{"type": "text", "text": _QUESTION}])

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self._takes_parts else text

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

    def _writes_role(self, role: str, later: bool) -> bool:
        """Whether a first or later message of that role is written, and not left out."""
        if (role, later) not in self._roles:
            said = {"role": role, "content": self._content(_ANSWER)}
            asked = {"role": "user", "content": self._content(_QUESTION)}
            reply = {"role": "assistant", "content": self._content(_QUESTION)}
            messages = [asked, reply, said, asked] if later else [said, asked]
            written = self._probe(messages, [])  # empty: it refuses, and says why itself
            self._roles[role, later] = not written or _ANSWER in written
        return self._roles[role, later]

    def _probe(
        self, messages: Sequence[Message], tools: Sequence[Tool], answer: bool = False
    ) -> str:
        from jinja2 import TemplateError as JinjaError

        try:
            return self._apply(messages, tools, answer)
        except (JinjaError, TypeError):  # a template that cannot hold it
            return ""

    def _apply(self, messages: Sequence[Message], tools: Sequence[Tool], answer: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            list(messages),
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=answer,
            **self.arguments,
        )
        return text

    def _message(self, place: int, message: Message) -> Message:
        if message.get("tool_calls") and not self._writes_calls:
            raise TemplateError(
                f"messages[{place}].tool_calls: the chat template of {self.name} does not write "
                "calls; take a model whose template has tools"
            )
        role, later = message["role"], place > 0
        if role in ("system", "developer") and not self._writes_role(role, later):
            where = " after the first message" if later else ""
            raise TemplateError(
                f"messages[{place}]: the chat template of {self.name} has no place for a message "
                f"of the role {role!r}{where}; put its text into the user's message"
            )
        written = trl_message(message)
        if not isinstance(written["content"], str):
            kinds = sorted({part["type"] for part in written["content"]} - {"text"})
            raise DatasetError(
                f"messages[{place}].content holds {', '.join(kinds)}; {self.name} reads text alone"
            )
        if message.get("thinking") and self.thoughts_key:
            written[self.thoughts_key] = message["thinking"]
        written["content"] = self._content(written["content"])
        return written


def check_template_arguments(given: Any) -> None:
    """They can be handed to a chat template, and kept as JSON.

    Raises:
        TypeError: they cannot.
    """
    if given is None:
        return
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise TypeError(f"template_arguments must be names and values, got {given!r}")
    try:
        json.dumps(dict(given), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"template_arguments must be plain data, got {given!r}") from exc
