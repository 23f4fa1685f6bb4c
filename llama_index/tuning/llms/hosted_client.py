"""Which server takes the job: the client, what is known of the server, and when it closes."""

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

ServerKind = Literal["openai", "azure", "nebius", "other"]

NEW_JOBS_END = date(2027, 1, 6)
"""OpenAI takes no new jobs from this day on; organisations new to tuning none since 7 May 2026."""
MODELS_END = date(2027, 1, 14)
"""OpenAI's tunable base models, and all models tuned from them, are shut down on this day."""
OPENAI_HOST = "api.openai.com"
INSTEAD = (
    "Tune with HuggingFaceFinetuneEngine on your own machine, with AzureOpenAIFinetuneEngine, or "
    "pass client= or base_url= of another server with OpenAI's protocol, such as Nebius Token "
    "Factory"
)
_AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com",
                ".openai.azure.us")  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A server of hosted jobs, as far as its address tells.

    Attributes:
        kind: whose dialect it speaks.
        address: without user, password and query, for messages and state files.
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
    if _is_openai(host):
        return Server("openai", address)
    known = host.endswith((".nebius.com", ".nebius.ai"))
    return Server("nebius" if known else "other", address)


def make_client(client: Any, base_url: str | None, api_key: str | None) -> OpenAI:
    """The client given, or one made of `base_url` and `api_key`.

    Raises:
        TypeError: the client cannot be used.
        ValueError: two ways were given, or no key.
    """
    if client is not None:
        if base_url is not None or api_key is not None:
            raise ValueError("pass either client=, or base_url= and api_key=, not both")
        return check_client(client)
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
        said = "api_key" if api_key else "OPENAI_API_KEY"
        raise ValueError(
            f"{said} holds white space or letters beyond ASCII, which no request can carry: a line "
            "end read with it from a file?"
        )
    return OpenAI(api_key=key, base_url=base_url)


def check_client(client: Any) -> OpenAI:
    """A synchronous client of the openai package, Azure's included."""
    from openai import AsyncOpenAI, OpenAI

    if isinstance(client, AsyncOpenAI):
        raise TypeError("client must be synchronous: OpenAI or AzureOpenAI, not an Async one")
    if not isinstance(client, OpenAI):
        raise TypeError(
            f"client must be an openai.OpenAI or openai.AzureOpenAI, got {type(client).__name__}"
        )
    return client


def secrets_of(client: OpenAI) -> list[str]:
    """What must appear in no message: the client's keys."""
    found = [client.api_key, getattr(client, "_azure_ad_token", None)]
    return [text for text in found if isinstance(text, str) and len(text) > 5]


def check_open(server: Server, today: Callable[[], date], *, new_job: bool) -> None:
    """Raise where the server is closed for what is wanted.

    Args:
        server: who is asked.
        today: gives the date.
        new_job: whether a job is to be made; else a job or model that exists is used.
    """
    if server.kind != "openai":
        return
    end = NEW_JOBS_END if new_job else MODELS_END
    if today() < end:
        return
    what = "takes no new fine-tuning jobs" if new_job else "has shut down its fine-tuned models"
    raise HostedEndedError(f"OpenAI {what} since {end.day} January {end.year}. {INSTEAD}")


def closing_note(server: Server) -> str | None:
    """What a user of the server should know before paying."""
    if server.kind != "openai":
        return None
    return (
        f"OpenAI shuts its tunable models, and models tuned from them, down on {MODELS_END.day} "
        f"January {MODELS_END.year}; it takes new jobs until {NEW_JOBS_END.day - 1} January"
    )


def _is_openai(host: str) -> bool:
    return host == OPENAI_HOST or host.endswith(f".{OPENAI_HOST}")
