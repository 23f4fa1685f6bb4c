"""LLMs by name, for the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_index.tuning.errors import MissingExtraError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

HELP = "Model name at OpenAI, or at the server of --api-base; the key is read from OPENAI_API_KEY."


def language_model(name: str, api_base: str | None, *, temperature: float = 0.7) -> LLM:
    """The LLM that `--llm` and `--api-base` name; retries are left to the caller."""
    try:
        from llama_index.llms.openai_like import OpenAILike
    except ImportError as exc:
        raise MissingExtraError("--llm", "llama-index-llms-openai-like", "openai") from exc
    key = os.environ.get("OPENAI_API_KEY")
    if api_base is None and not key:
        raise ValueError("--llm needs OPENAI_API_KEY in the environment, or --api-base")
    return OpenAILike(
        model=name,
        api_base=api_base or "https://api.openai.com/v1",
        api_key=key or "none",
        is_chat_model=True,
        max_retries=0,
        timeout=120.0,
        temperature=temperature,
    )
