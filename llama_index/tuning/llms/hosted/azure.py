"""Azure OpenAI: the same engine with Azure's client, and the deployment that comes after."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llama_index.tuning.errors import HostedError
from llama_index.tuning.llms.hosted.engine import OpenAIFinetuneEngine

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from openai import OpenAI

_MANAGEMENT = "https://management.azure.com"
_MANAGEMENT_VERSION = "2024-10-01"
_DEFAULT_VERSION = "2024-10-21"


class AzureOpenAIFinetuneEngine(OpenAIFinetuneEngine):
    """Tunes an LLM by a job on Azure OpenAI (Foundry).

    All of `OpenAIFinetuneEngine`'s arguments. Without `client`, Azure's client is made of
    `AZURE_OPENAI_ENDPOINT` (or `base_url`, the resource's endpoint), `AZURE_OPENAI_API_KEY` (or
    `api_key`) and `OPENAI_API_VERSION`.

    A tuned model answers only once it is deployed, which costs by the hour: call
    `deploy_finetuned_model` or Azure's own tools, then pass the deployment's name as
    `deployment=` (or `engine=` of `get_finetuned_model`). To measure with `evaluate=`, set
    `engine.deployment` after the job and call `finetune()` again: it takes up the same job.

    Example:
        >>> engine = AzureOpenAIFinetuneEngine(  # doctest: +SKIP
        ...     "gpt-4.1-mini-2025-04-14", "train.jsonl", extra_body={"trainingType": "Standard"}
        ... )
        >>> engine.finetune()  # doctest: +SKIP
        >>> engine.deploy_finetuned_model(  # doctest: +SKIP
        ...     token, subscription, group, resource, "my-tuned"
        ... )
        >>> llm = engine.get_finetuned_model(engine="my-tuned")  # doctest: +SKIP
    """

    def _make_client(self, base_url: str | None, api_key: str | None) -> OpenAI:
        from openai import AzureOpenAI

        endpoint = base_url or os.environ.get("AZURE_OPENAI_ENDPOINT")
        if not endpoint:
            raise ValueError(
                "there is no endpoint: set AZURE_OPENAI_ENDPOINT, or pass base_url= or client="
            )
        key = api_key or os.environ.get("AZURE_OPENAI_API_KEY")
        if not key:
            raise ValueError(
                "there is no API key: set AZURE_OPENAI_API_KEY, or pass api_key= or client= (with "
                "azure_ad_token_provider= for Entra ID)"
            )
        version = os.environ.get("OPENAI_API_VERSION", _DEFAULT_VERSION)
        return AzureOpenAI(azure_endpoint=endpoint, api_key=key, api_version=version)

    def get_finetuned_model(self, engine: str | None = None, **model_kwargs: Any) -> LLM:
        """The tuned LLM on its deployment, or the base if `evaluate` showed no gain.

        Args:
            engine: the deployment's name; by default the engine's `deployment`.
            **model_kwargs: see `OpenAIFinetuneEngine`.
        """
        if engine is not None:
            model_kwargs["deployment"] = engine
        return super().get_finetuned_model(**model_kwargs)

    def deploy_finetuned_model(
        self,
        token: str,
        subscription_id: str,
        resource_group: str,
        resource_name: str,
        model_deployment_name: str | None = None,
        *,
        sku: str = "standard",
        capacity: int = 1,
        management_url: str = _MANAGEMENT,
    ) -> dict[str, Any]:
        """Deploy the tuned model, which costs by the hour until the deployment is deleted.

        Args:
            token: of Azure AD (`az account get-access-token`); it is not kept.
            subscription_id: of the resource.
            resource_group: of the resource.
            resource_name: the Azure OpenAI resource.
            model_deployment_name: the name to ask for later; the model's own by default.
            sku: kind of deployment.
            capacity: its size.
            management_url: address of Azure's management API; other clouds have others.

        Returns:
            Azure's reply; `properties.provisioningState` says when it is ready.

        Raises:
            HostedError: the job has no model yet, or Azure refuses.
        """
        job = self.get_current_job()
        if not job.fine_tuned_model:
            raise HostedError(f"job {job.id} is {job.status} and has no model to deploy yet")
        name = model_deployment_name or job.fine_tuned_model
        where = (subscription_id, resource_group, resource_name, name)
        subscription, group, resource, deployment = (quote(part, safe="") for part in where)
        if not management_url.startswith(("https://", "http://")):
            raise ValueError(f"management_url must begin with https://, got {management_url!r}")
        url = (
            f"{management_url}/subscriptions/{subscription}/resourceGroups/{group}/providers/"
            f"Microsoft.CognitiveServices/accounts/{resource}/deployments/{deployment}"
            f"?api-version={_MANAGEMENT_VERSION}"
        )
        model = {"format": "OpenAI", "name": job.fine_tuned_model, "version": "1"}
        body = {"sku": {"name": sku, "capacity": capacity}, "properties": {"model": model}}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:  # nosec B310 # checked above
                found: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as exc:
            said = exc.read().decode(errors="replace")[:500].replace(token, "[key]")
            raise HostedError(f"cannot deploy: {exc.code}: {said}", status=exc.code) from None
        except (urllib.error.URLError, json.JSONDecodeError) as exc:
            raise HostedError(f"cannot deploy: {exc}") from exc
        self.deployment = name
        return found
