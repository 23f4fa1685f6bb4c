"""A tuned model as LlamaIndex's LLM: chats, streams, calls tools, and stops where it should."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from llama_index.tuning._checks import check_counts, plain_arguments
from llama_index.tuning._running import ThreadLock
from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.llms.serving.generation import (
    Generated,
    ReplyReader,
    completion_of,
    generate,
    generation_settings,
    in_thread,
    streamed,
    tool_selections,
)
from llama_index.tuning.llms.serving.loading import check_vocabulary, context_length, end_tokens
from llama_index.tuning.llms.serving.prompts import (
    Prompt,
    PromptWriter,
    chat_prompt,
    completion_prompt,
    room_for_reply,
    tool_records,
)
from llama_index.tuning.llms.serving.replies import parser_of
from llama_index.tuning.llms.serving.saved import LoadedModel, load_llm
from llama_index.tuning.llms.serving.template import ChatTemplate, check_template_arguments
from llama_index.tuning.llms.serving.tool_parsers import ToolParser

try:
    from llama_index.llms.huggingface import HuggingFaceLLM
except ImportError:

    class HuggingFaceLLM(FunctionCallingLLM):  # type: ignore[no-redef]
        """Lets the class below be named, listed and documented without its extra."""

        def __init__(self, *_: Any, **__: Any) -> None:
            raise MissingExtraError("TunedHuggingFaceLLM", "llama-index-llms-huggingface", "llm")


if TYPE_CHECKING:
    import os

    from llama_index.core.tools.types import BaseTool


_BUSY: weakref.WeakKeyDictionary[Any, ThreadLock] = weakref.WeakKeyDictionary()
"""One generation at a time for each model; beside the LLM, so that it can be copied and pickled."""


class TunedHuggingFaceLLM(HuggingFaceLLM, FunctionCallingLLM):  # type: ignore[misc,unused-ignore]
    """A local chat model, tuned or not, that LlamaIndex can chat, stream and call tools with.

    Prompts are written by the model's chat template with the very tokens that it was tuned on.
    Decoding is greedy unless a call, or `generate_kwargs`, says otherwise: `temperature`,
    `max_tokens`, `top_p`, `top_k`, `stop`, `seed`, and every argument of `generate()`.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer, with a chat template.
        model_name: the folder or name that it came from.
        max_new_tokens: longest reply, in tokens.
        context_window: tokens of prompt and reply; None: the model's own limit.
        system_prompt: put before every conversation that has no system message.
        generate_kwargs: defaults of every call.
        tool_parser: how the model writes tool calls; None: the parser that understands what its
            chat template writes.
        template_arguments: what the chat template is called with, such as
            `{"enable_thinking": False}`; `load` takes those of the training.
    """

    _template: ChatTemplate = PrivateAttr()
    _parser: ToolParser | None = PrivateAttr()
    _end_ids: list[int] = PrivateAttr()

    @plain_arguments
    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        model_name: str,
        max_new_tokens: int = 256,
        context_window: int | None = None,
        system_prompt: str = "",
        generate_kwargs: dict[str, Any] | None = None,
        tool_parser: ToolParser | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(tool_parser, ToolParser | None):
            raise TypeError(f"tool_parser must be a ToolParser, got {tool_parser!r}")
        check_counts(max_new_tokens=max_new_tokens)
        if context_window is not None:
            check_counts(context_window=context_window)
        check_template_arguments(template_arguments)
        template = ChatTemplate(tokenizer, model_name, template_arguments)
        check_vocabulary(tokenizer, model, model_name)
        limit = context_length(model)
        # The parent compares the two names, which differ if an adapter was loaded.
        tokenizer.name_or_path = model.name_or_path
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            model_name=model_name,
            tokenizer_name=model_name,
            max_new_tokens=max_new_tokens,
            context_window=limit if context_window is None else min(context_window, limit),
            system_prompt=system_prompt,
            generate_kwargs=generate_kwargs or {},
            is_chat_model=True,
            # A bound method, the parent's default, would hold the LLM within its own repr.
            messages_to_prompt=PromptWriter(template, system_prompt),
            **kwargs,
        )
        generation_settings(self.generate_kwargs, {})  # a wrong one is named at once
        self._template, self._parser = template, tool_parser or parser_of(template)
        self._end_ids = end_tokens(tokenizer, model)

    @classmethod
    @plain_arguments
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        base_model: str | os.PathLike[str] | None = None,
        merged: bool = False,
        device: str | None = None,
        quantize: str | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> TunedHuggingFaceLLM:
        """The LLM of a folder that the engine saved.

        Args:
            path: the folder.
            base_model: where the model below the adapter is now, if it was moved.
            merged: take the merged weights, which must have been saved.
            device: `"cpu"`, `"cuda"`, …; None: a GPU if there is one.
            quantize: `"4bit"` loads the weights in NF4.
            trust_remote_code: run code that the model brings along.
            **kwargs: arguments of the class, such as `max_new_tokens`.

        Raises:
            ArtifactError: the folder is no saved LLM, or is damaged.
            BaseModelError: the base model is not there, or is not the one tuned.
        """
        loaded = load_llm(
            path,
            base_model=base_model,
            merged=merged,
            device=device,
            quantize=quantize,
            trust_remote_code=trust_remote_code,
        )
        return cls.of(loaded, **kwargs)

    @classmethod
    def of(cls, loaded: LoadedModel, **kwargs: Any) -> TunedHuggingFaceLLM:
        """The LLM of a model that is loaded."""
        kwargs.setdefault("template_arguments", loaded.template_arguments)
        return cls(loaded.model, loaded.tokenizer, model_name=loaded.name, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """Its name in events and dictionaries."""
        return "TunedHuggingFaceLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """Limits and abilities; tools can be called if the template knows them."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self.max_new_tokens,
            model_name=self.model_name,
            is_chat_model=True,
            is_function_calling_model=self._template.supports_tools and self._parser is not None,
        )

    @property
    def model(self) -> Any:
        """The model of transformers, or of PEFT."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._tokenizer

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """A reply; `tools=` and `tool_choice=` as `chat_with_tools` gives them."""
        return self._chat(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """A reply as it is written; tool calls come with the last piece."""
        return self._streamed(self._prepared(messages, kwargs))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """A reply, made in a thread: the event loop goes on."""
        return await asyncio.to_thread(self._chat, messages, kwargs)

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """A reply as it is written, made in a thread."""
        return in_thread(self._streamed(self._prepared(messages, kwargs)))

    def chat_batch(
        self,
        conversations: Sequence[Sequence[ChatMessage]],
        *,
        batch_size: int = 16,
        **kwargs: Any,
    ) -> list[ChatResponse]:
        """Replies to many conversations, several at a time: for measuring, many times faster.

        Args:
            conversations: the messages of each.
            batch_size: conversations at a time.
            **kwargs: as for `chat`.
        """
        check_counts(batch_size=batch_size)
        prepared = [self._prepared(messages, kwargs) for messages in conversations]
        order = sorted(range(len(prepared)), key=lambda place: len(prepared[place].text))
        responses: dict[int, ChatResponse] = {}
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            settings = prepared[places[0]].settings
            replies = self._generate([prepared[place].text for place in places], settings)
            for place, reply in zip(places, replies, strict=True):
                responses[place] = self._reader.response(prepared[place], reply)
        return [responses[place] for place in range(len(prepared))]

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a question, which is put to the model as a user's only message.

        Args:
            prompt: the question, or with `formatted` a text that the template has written.
            formatted: the prompt is to be taken as it stands.
            **kwargs: settings of the call.
        """
        return self._complete(prompt, formatted, kwargs)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """The answer as it is written."""
        ready = completion_prompt(self._writer, prompt, formatted, kwargs)
        return (completion_of(response) for response in self._streamed(ready))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """The answer, made in a thread: the event loop goes on."""
        return await asyncio.to_thread(self._complete, prompt, formatted, kwargs)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """The answer as it is written, made in a thread."""
        ready = completion_prompt(self._writer, prompt, formatted, kwargs)
        return in_thread(completion_of(response) for response in self._streamed(ready))

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of a reply."""
        return tool_selections(response, required=error_on_no_tool_call)

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            if isinstance(user_msg, str):
                user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
            messages.append(user_msg)
        return {
            "messages": messages,
            "tools": tool_records(tools),
            "tool_choice": tool_choice or ("required" if tool_required else "auto"),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    @property
    def _writer(self) -> PromptWriter:
        return PromptWriter(self._template, self.system_prompt)

    @property
    def _reader(self) -> ReplyReader:
        return ReplyReader(self._template, self._parser)

    def _prepared(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Prompt:
        return chat_prompt(self._writer, self._parser, messages, kwargs)

    def _chat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        prompt = self._prepared(messages, kwargs)
        return self._reader.response(prompt, self._reply(prompt))

    def _complete(self, text: str, formatted: bool, kwargs: dict[str, Any]) -> CompletionResponse:
        prompt = completion_prompt(self._writer, text, formatted, kwargs)
        return completion_of(self._reader.response(prompt, self._reply(prompt)))

    def _streamed(self, prompt: Prompt) -> ChatResponseGen:
        return streamed(partial(self._reply, prompt), prompt, self._reader, self._end_ids)

    def _reply(self, prompt: Prompt, **streaming: Any) -> Generated:
        return self._generate([prompt.text], prompt.settings, **streaming)[0]

    def _generate(
        self, texts: Sequence[str], call: dict[str, Any], **streaming: Any
    ) -> list[Generated]:
        defaults = {"max_new_tokens": self.max_new_tokens, **self.generate_kwargs}
        settings, stop, seed = generation_settings(defaults, call)
        prompts = [self._encode(text) for text in texts]
        room = self._room(prompts)
        settings["max_new_tokens"] = min(settings["max_new_tokens"], room)
        with _BUSY.setdefault(self._model, ThreadLock()):
            found = generate(
                self._model,
                self._tokenizer,
                prompts,
                self._end_ids,
                settings,
                stop=stop,
                seed=seed,
                **streaming,
            )
        for place, reply in enumerate(found):  # cut short where the longest prompt ran out of room
            if len(reply.ids) == room and not reply.stopped and room < self._room([prompts[place]]):
                found[place] = self._generate([texts[place]], call)[0]
        return found

    def _room(self, prompts: Sequence[Sequence[int]]) -> int:
        return room_for_reply(prompts, self.context_window, self.model_name)

    def _encode(self, text: str) -> list[int]:
        """Tokens of a prompt; BOS once, whether template or tokenizer writes it."""
        ids = self._template.ids(text)
        bos = self._tokenizer.bos_token_id
        begun = list(self._tokenizer("")["input_ids"])[:1]
        return [bos, *ids] if bos is not None and begun == [bos] and ids[:1] != [bos] else ids
