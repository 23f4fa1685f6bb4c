"""From a model's name at a server to the LlamaIndex LLM that fits."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_index.tuning.errors import MissingExtraError
from llama_index.tuning.llms.hosted.client import server_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

logger = logging.getLogger(__name__)

_NO_KEY = "<missing API key>"
"""What Azure's client holds as a key if it signs in by Azure AD."""
DEFAULT_CONTEXT = 8192
"""Tokens, if a model's context window is unknown."""

_OF_OPENAI_LIKE = {"context_window", "is_chat_model", "is_function_calling_model", "tokenizer"}
"""Who passes one of these wants to tell what LlamaIndex would look up."""


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
        `AzureOpenAI` for Azure's client if it is installed and knows the base model; `OpenAI`
        if that knows the name; else, and if `model_kwargs` tell the context window or
        another of its own fields, `OpenAILike`, which takes any.

    Raises:
        MissingExtraError: the LLM's package is not installed.
        ValueError: Azure without a deployment, or no key.
        TypeError: an argument that the LLM's class does not have.
    """
    try:
        from llama_index.llms.openai import OpenAI as OpenAILLM
        from llama_index.llms.openai_like import OpenAILike
    except ImportError as exc:
        library = "llama-index-llms-openai and llama-index-llms-openai-like"
        raise MissingExtraError("get_finetuned_model()", library, "openai") from exc
    from openai import AzureOpenAI

    azure = server_of(client).kind == "azure"
    if azure and not deployment:
        raise ValueError(f"Azure serves deployments, not models. {deploy_step(model)}")
    names = [model, re.sub(r"[.:]ft-.*", "", model), base_model or ""]  # Azure's are `base.ft-id`
    windows = {name: size for name in names if (size := _context_window(name))}
    usual = bool(windows) and not _OF_OPENAI_LIKE & {*model_kwargs}
    if isinstance(client, AzureOpenAI) and usual and (kind := _azure_llm(client)):
        arguments = _azure_arguments(client, next(iter(windows)), deployment)
        return _made(kind, {**arguments, **model_kwargs})
    if "api_key" not in model_kwargs and client.api_key in ("", _NO_KEY):
        raise ValueError("the client has no fixed key: pass api_key= to get_finetuned_model()")
    name = deployment or model
    address = str(client.base_url).rstrip("/")
    if isinstance(client, AzureOpenAI):  # its OpenAI-compatible address takes any deployment
        address = f"{_endpoint(client)}/openai/v1"
    where = {"model": name, "api_base": address, "api_key": client.api_key}
    if usual and name in windows and not azure:
        return _made(OpenAILLM, {**where, **model_kwargs})
    if not windows and "context_window" not in model_kwargs:
        logger.warning(
            "the context window of %s is unknown and taken as %d tokens; context_window= of "
            "get_finetuned_model() sets it",
            name, DEFAULT_CONTEXT,
        )  # fmt: skip
    window = next(iter(windows.values()), DEFAULT_CONTEXT)
    defaults = {"context_window": window, "is_chat_model": True, "is_function_calling_model": True}
    return _made(OpenAILike, {**defaults, **where, **model_kwargs})


def deploy_step(model: str) -> str:
    """What to do on Azure after the job, in a sentence."""
    return (
        f"Deploy {model} first (it then costs by the hour until it is deleted): "
        "deploy_finetuned_model(…), or `az cognitiveservices account deployment create --name "
        "RESOURCE --resource-group GROUP --deployment-name NAME --model-format OpenAI --model-name "
        f"{model} --model-version 1 --sku-name Standard --sku-capacity 1`; then pass its name as "
        "deployment="
    )


def _context_window(model: str) -> int | None:
    """The context window in tokens, if LlamaIndex knows the model."""
    from llama_index.llms.openai.utils import openai_modelname_to_contextsize

    try:
        size: int = openai_modelname_to_contextsize(model)
    except ValueError:
        return None
    return size


def _azure_llm(client: Any) -> Any | None:
    """LlamaIndex's LLM for Azure; None if it is not installed, and a key will do without."""
    try:
        from llama_index.llms.azure_openai import AzureOpenAI
    except ImportError as exc:
        if client.api_key != _NO_KEY:
            return None
        raise MissingExtraError(
            "get_finetuned_model() with Azure AD", "llama-index-llms-azure-openai", "azure"
        ) from exc
    return AzureOpenAI


def _azure_arguments(client: Any, model: str, deployment: str | None) -> dict[str, Any]:
    token, provider = client._azure_ad_token, client._azure_ad_token_provider
    signed: dict[str, Any] = {"api_key": client.api_key}
    if token or provider:
        signed = {"use_azure_ad": True, "azure_ad_token_provider": provider or (lambda: token)}
    return {
        "model": model,
        "engine": deployment,
        "azure_endpoint": _endpoint(client),
        "api_version": client._api_version,
        **signed,
    }


def _endpoint(client: Any) -> str:
    parts = urlsplit(str(client.base_url))
    return f"{parts.scheme}://{parts.netloc}"


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
