"""Which server takes the job: its client, its dialect, and when it closes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from llama_index.tuning.errors import HostedEndedError

if TYPE_CHECKING:
    from openai import OpenAI

ServerKind = Literal["openai", "azure", "other"]

NEW_JOBS_END = date(2027, 1, 6)
"""OpenAI takes no new jobs from this day on; organisations new to tuning none since 7 May 2026."""
MODELS_END = date(2027, 1, 14)
"""OpenAI's tunable base models, and all models tuned from them, are shut down on this day."""

_OPENAI_HOST = "api.openai.com"
_AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com",
                ".openai.azure.us")  # fmt: skip
_INSTEAD = (
    "Tune with HuggingFaceFinetuneEngine on your own machine, with AzureOpenAIFinetuneEngine, or "
    "pass client= or base_url= of another server with OpenAI's protocol, such as Nebius Token "
    "Factory"
)


@dataclass(frozen=True)
class Server:
    """A server of hosted jobs, as far as its address tells.

    Attributes:
        kind: whose dialect it speaks.
        address: without user, password and query, for messages and reports.
    """

    kind: ServerKind
    address: str


def server_of(client: OpenAI) -> Server:
    """The server behind a client."""
    from openai import AzureOpenAI

    parts = urlsplit(str(client.base_url))
    host = (parts.hostname or "").lower()
    port = f":{parts.port}" if parts.port else ""
    address = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
    if isinstance(client, AzureOpenAI) or host.endswith(_AZURE_HOSTS):
        return Server("azure", address)
    return Server("openai" if _is_openai(host) else "other", address)


def make_client(base_url: str | None, api_key: str | None) -> OpenAI:
    """A client of OpenAI, or of the server at `base_url`.

    Raises:
        ValueError: no key, or an address or a key that cannot be one.
    """
    from openai import OpenAI

    if base_url is not None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"base_url must start with http:// or https://, got {base_url!r}")
        host = (parts.hostname or "").lower()
        if not api_key and not _is_openai(host):
            raise ValueError(
                f"api_key is needed for {host}: OPENAI_API_KEY is not sent to another server that "
                'base_url= names; api_key="none" where the server wants none'
            )
    key = api_key or os.environ.get("OPENAI_API_KEY")
    if not key:
        raise ValueError("there is no API key: set OPENAI_API_KEY, or pass api_key= or client=")
    if not all("!" <= sign <= "~" for sign in key):  # the client fails on it with other words
        name = "api_key" if api_key else "OPENAI_API_KEY"
        raise ValueError(f"{name} holds white space, such as a line end, or letters beyond ASCII")
    return OpenAI(api_key=key, base_url=base_url)


def check_client(client: Any, base_url: str | None, api_key: str | None) -> None:
    """A synchronous client of the openai package, Azure's included, and no second way."""
    from openai import AsyncOpenAI, OpenAI

    if base_url is not None or api_key is not None:
        raise ValueError("pass either client=, or base_url= and api_key=, not both")
    if isinstance(client, AsyncOpenAI):
        raise TypeError("client must be synchronous: OpenAI or AzureOpenAI, not an Async one")
    if not isinstance(client, OpenAI):
        kind = type(client).__name__
        raise TypeError(f"client must be an openai.OpenAI or openai.AzureOpenAI, got {kind}")


def check_open(server: Server, today: Callable[[], date], *, new_job: bool) -> None:
    """Raise if the server is closed for a new job, or for what was tuned there."""
    end = NEW_JOBS_END if new_job else MODELS_END
    if server.kind == "openai" and today() >= end:
        what = "takes no new fine-tuning jobs" if new_job else "has shut down its fine-tuned models"
        raise HostedEndedError(f"OpenAI {what} since {end.day} January {end.year}. {_INSTEAD}")


def closing_note(server: Server) -> str | None:
    """What a user of the server should know before paying."""
    if server.kind != "openai":
        return None
    return (
        f"OpenAI shuts its tunable models, and models tuned from them, down on {MODELS_END.day} "
        f"January {MODELS_END.year}; it takes new jobs until {NEW_JOBS_END.day - 1} January"
    )


def _is_openai(host: str) -> bool:
    return host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}")
