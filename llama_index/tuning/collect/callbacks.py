"""The old package's handlers, for apps on LlamaIndex's legacy callbacks."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload

from llama_index.tuning._files import PathLike
from llama_index.tuning._running import ThreadLock
from llama_index.tuning.collect.records import call_record
from llama_index.tuning.datasets.chat import ChatDataset
from llama_index.tuning.datasets.formats.messages import message_record
from llama_index.tuning.datasets.records import ChatExample
from llama_index.tuning.errors import DatasetError

_ENOUGH = 10
_begun: ContextVar[tuple[str, ...]] = ContextVar("begun_llm_events", default=())


@dataclass
class _Call:
    messages: list[ChatMessage]
    settings: dict[str, Any]
    inside: list[str] = field(default_factory=list)
    response: ChatMessage | None = None
    ended: bool = False


class BaseFinetuningHandler(BaseCallbackHandler):
    """Collects LLM exchanges through a callback manager; a subclass writes them to a file.

    For new code `FinetuningRecorder` is the better choice: it needs no callback manager and
    writes as it goes.

    Example:
        >>> class ShareGPTHandler(BaseFinetuningHandler):
        ...     def save_finetuning_events(self, path):
        ...         self.get_dataset().save_jsonl(path, format="sharegpt", min_examples=1)
    """

    def __init__(self) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self._calls: dict[str, _Call] = {}
        self._lock = ThreadLock()

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """Note an LLM call's messages, as they are now."""
        if event_type != CBEventType.LLM or not payload:
            return event_id
        if EventPayload.MESSAGES in payload:
            messages = [message.model_copy(deep=True) for message in payload[EventPayload.MESSAGES]]
        elif EventPayload.PROMPT in payload:
            messages = [
                ChatMessage(role=MessageRole.USER, content=str(payload[EventPayload.PROMPT]))
            ]
        else:
            return event_id
        settings = call_record(
            payload.get(EventPayload.ADDITIONAL_KWARGS) or {},
            payload.get(EventPayload.SERIALIZED) or {},
        )
        with self._lock:
            begun = [id_ for id_ in _begun.get() if id_ in self._calls]
            running = [id_ for id_ in begun if not self._calls[id_].ended]
            if running:
                self._calls[running[-1]].inside.append(event_id)
            self._calls[event_id] = _Call(messages, settings)
        _begun.set((*running, event_id))
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        """Note the answer; a call that failed is forgotten."""
        if event_type != CBEventType.LLM:
            return
        with self._lock:
            call = self._calls.get(event_id)
            if call is None:
                return
            call.response, call.ended = _answer(payload or {}), True
            if call.response is None:
                del self._calls[event_id]
                return
            # chat() answered through complete() ends with the same answer twice: keep the outer.
            for id_ in call.inside:
                inner = self._calls.get(id_)
                if inner and inner.response and inner.response.content == call.response.content:
                    del self._calls[id_]

    def get_finetuning_events(self) -> dict[str, dict[str, Any]]:
        """Event id → its `messages` and the `response`, as chat messages."""
        with self._lock:
            return {
                id_: {"messages": list(call.messages), "response": call.response}
                for id_, call in self._calls.items()
                if call.ended
            }

    def get_dataset(self) -> ChatDataset:
        """The exchanges as a `ChatDataset`; what cannot be trained on is left out and logged.

        Raises:
            DatasetError: nothing was collected, or nothing that can be trained on.
        """
        from llama_index.tuning.collect.to_chats import sound

        with self._lock:
            calls = [call for call in self._calls.values() if call.response is not None]
        if not calls:
            raise DatasetError(
                "no LLM exchange was collected: is this handler in the callback manager of the LLM "
                "(Settings.callback_manager, set before the LLM is made)?"
            )
        examples = [_example(call) for call in calls]
        return ChatDataset(sound(examples) or examples)

    @abstractmethod
    def save_finetuning_events(self, path: PathLike) -> None:
        """Write the exchanges to a file."""

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing: exchanges are collected, not traces."""

    def end_trace(
        self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None
    ) -> None:
        """Nothing: exchanges are collected, not traces."""


class OpenAIFineTuningHandler(BaseFinetuningHandler):
    """Collects LLM exchanges through a callback manager, and writes OpenAI's training format.

    For new code `FinetuningRecorder` is the better choice: it needs no callback manager and
    writes as it goes.

    Example:
        >>> from llama_index.core.callbacks import CallbackManager
        >>> from llama_index.core.llms import MockLLM
        >>> handler = OpenAIFineTuningHandler()
        >>> llm = MockLLM(callback_manager=CallbackManager([handler]))
        >>> answer = llm.complete("What is the fee?")
        >>> [event] = handler.get_finetuning_events().values()
        >>> event["messages"][0].content
        'What is the fee?'
    """

    def save_finetuning_events(self, path: PathLike, *, min_examples: int = 1) -> None:
        """Write OpenAI's training format, checked line by line; warns of fewer than 10 examples.

        Args:
            path: the file, JSON Lines.
            min_examples: fewer are an error.

        Raises:
            DatasetError: nothing was collected, too little, or a line is faulty.
        """
        dataset = self.get_dataset()
        dataset.save_jsonl(path, format="openai", min_examples=min_examples)
        if len(dataset) < _ENOUGH:
            warnings.warn(
                f"{path} has {len(dataset)} examples; OpenAI asks for at least {_ENOUGH}",
                stacklevel=2,
            )


class MistralAIFineTuningHandler(OpenAIFineTuningHandler):
    """The old package's name: the lines of Mistral's format are OpenAI's.

    Mistral tunes no models by API any more; `HuggingFaceFinetuneEngine` tunes its open ones on
    the file.
    """


def _answer(payload: dict[str, Any]) -> ChatMessage | None:
    answer = payload.get(EventPayload.RESPONSE) or payload.get(EventPayload.COMPLETION)
    if answer is None:
        return None
    if isinstance(answer, str):
        return ChatMessage(role=MessageRole.ASSISTANT, content=answer)
    if hasattr(answer, "message"):
        message: ChatMessage = answer.message
        return message
    return ChatMessage(role=MessageRole.ASSISTANT, content=answer.text)


def _example(call: _Call) -> ChatExample:
    from llama_index.tuning.collect.to_chats import filled

    messages = [message_record(message) for message in call.messages]
    if call.response is not None:
        messages.append(message_record(call.response))
    return ChatExample(
        filled(messages), call.settings.get("tools", []), call.settings.get("parallel_tool_calls")
    )
