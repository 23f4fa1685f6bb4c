"""From a model's name at a server to the LlamaIndex LLM that fits."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.llms.hosted_client import server_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

logger = logging.getLogger(__name__)

_OF_OPENAI_LIKE = {"context_window", "is_chat_model", "is_function_calling_model", "tokenizer"}
"""Who passes one of these wants to tell what LlamaIndex would look up."""
DEFAULT_CONTEXT = 8192
"""Tokens, where a model's context window is unknown."""


def hosted_llm(
    client: OpenAI,
    model: str,
    *,
    base_model: str | None = None,
    deployment: str | None = None,
    **model_kwargs: Any,
) -> LLM:
    """An LLM that asks `model` at the client's server, with the client's key.

    Args:
        client: the server.
        model: a tuned model's name, or any other.
        base_model: what it was tuned from; tells the context window of an unknown name.
        deployment: Azure's name for the running model, which is asked instead of `model`.
        **model_kwargs: arguments of the LLM's class, before ours.

    Returns:
        `AzureOpenAI` for Azure's client where it is installed and knows the base model; `OpenAI`
        where that knows the name; else, and where `model_kwargs` tell the context window or
        another of its own fields, `OpenAILike`, which takes any.

    Raises:
        MissingExtraError: llama-index-llms-openai-like is not installed.
        ValueError: Azure without a deployment, or no key.
        TypeError: an argument that the LLM's class does not have.
    """
    try:
        from llama_index.llms.openai import OpenAI as OpenAILLM
    except ImportError as exc:
        raise MissingExtraError(
            "get_finetuned_model()", "llama-index-llms-openai", "openai"
        ) from exc
    from openai import AzureOpenAI

    names = [name for name in (model, _untuned(model), base_model) if name]
    if isinstance(client, AzureOpenAI):
        return _azure(client, names, deployment, model_kwargs)
    name = deployment or model
    where = {"api_base": str(client.base_url).rstrip("/"), **_key(client, model_kwargs)}
    told = _OF_OPENAI_LIKE & {*model_kwargs}
    if context_window(name) and not told and server_of(client).kind != "azure":
        return _made(OpenAILLM, {"model": name, **where, **model_kwargs})
    return _like(name, names, {**where, **model_kwargs})


def context_window(model: str) -> int | None:
    """The context window in tokens, where LlamaIndex knows the model."""
    from llama_index.llms.openai.utils import openai_modelname_to_contextsize

    try:
        size: int = openai_modelname_to_contextsize(model)
    except ValueError:
        return None
    return size


def _like(name: str, names: list[str], arguments: dict[str, Any]) -> LLM:
    try:
        from llama_index.llms.openai_like import OpenAILike
    except ImportError as exc:
        raise MissingExtraError(
            "get_finetuned_model()", "llama-index-llms-openai-like", "openai"
        ) from exc
    if "context_window" not in arguments:
        known = [size for size in map(context_window, names) if size is not None]
        if not known:
            logger.warning(
                "the context window of %s is unknown and taken as %d tokens; context_window= of "
                "get_finetuned_model() sets it",
                name, DEFAULT_CONTEXT,
            )  # fmt: skip
        arguments["context_window"] = known[0] if known else DEFAULT_CONTEXT
    defaults = {"model": name, "is_chat_model": True, "is_function_calling_model": True}
    return _made(OpenAILike, {**defaults, **arguments})


def _made(kind: Any, arguments: dict[str, Any]) -> LLM:
    """An LLM; LlamaIndex's own classes drop an argument that they do not know in silence."""
    known = {*kind.model_fields, *inspect.signature(kind.__init__).parameters}
    for name in arguments:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{kind.__name__} has no argument {name!r}{hint}")
    llm: LLM = kind(**arguments)
    return llm


def _azure(
    client: Any, names: list[str], deployment: str | None, model_kwargs: dict[str, Any]
) -> LLM:
    if not deployment:
        raise ValueError(f"Azure serves deployments, not models. {deploy_step(names[0])}")
    endpoint = _endpoint(client)
    known = next((name for name in names if context_window(name) is not None), None)
    azure: Any = None
    try:
        from llama_index.llms.azure_openai import AzureOpenAI as azure  # noqa: N813
    except ImportError as exc:
        if client._azure_ad_token or client._azure_ad_token_provider:
            raise MissingExtraError(
                "get_finetuned_model() with Azure AD", "llama-index-llms-azure-openai", "azure"
            ) from exc
    if azure is None or known is None or _OF_OPENAI_LIKE & {*model_kwargs}:
        # Azure's own OpenAI-compatible address takes any name.
        where = {"api_base": f"{endpoint}/openai/v1", **_key(client, model_kwargs)}
        return _like(deployment, names, {**where, **model_kwargs})
    provider = client._azure_ad_token_provider
    if provider is None and client._azure_ad_token:
        token = client._azure_ad_token
        provider = lambda: token  # noqa: E731
    entra = {"use_azure_ad": True, "azure_ad_token_provider": provider} if provider else {}
    arguments = {
        "model": known,
        "engine": deployment,
        "azure_endpoint": endpoint,
        "api_version": client._api_version,
        **(entra or _key(client, model_kwargs)),
    }
    return _made(azure, {**arguments, **model_kwargs})


def deploy_step(model: str) -> str:
    """What to do on Azure after the job, in a sentence."""
    return (
        f"Deploy {model} first (it then costs by the hour until it is deleted): "
        "deploy_finetuned_model(…), or `az cognitiveservices account deployment create --name "
        "RESOURCE --resource-group GROUP --deployment-name NAME --model-format OpenAI --model-name "
        f"{model} --model-version 1 --sku-name Standard --sku-capacity 1`; then pass its name as "
        "deployment="
    )


def _endpoint(client: Any) -> str:
    parts = urlsplit(str(client.base_url))
    return f"{parts.scheme}://{parts.netloc}"


def _key(client: Any, model_kwargs: dict[str, Any]) -> dict[str, str]:
    """The client's key; never the environment's, which may be another server's."""
    if "api_key" in model_kwargs:
        return {}
    if not client.api_key:
        raise ValueError("the client has no fixed key: pass api_key= to get_finetuned_model()")
    return {"api_key": client.api_key}


def _untuned(model: str) -> str | None:
    """`gpt-4.1-mini-2025-04-14.ft-abc` (Azure's form) without its end."""
    match = re.match(r"(.+?)[.:]ft-", model)
    return match.group(1) if match else None
