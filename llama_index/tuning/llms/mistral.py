"""Mistral's hosted tuning is over."""

from __future__ import annotations

from typing import Any, NoReturn

from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.errors import HostedEndedError
from llama_index.tuning.report import FinetuneReport

ENDED = (
    "Mistral has deprecated its fine-tuning API and taken it out of its client. Tune one of its "
    "open models with HuggingFaceFinetuneEngine on your own machine, or by a job at a server with "
    "OpenAI's protocol (OpenAIFinetuneEngine with base_url=, such as Nebius Token Factory), both "
    "in llama_index.tuning; the training file stays as it is"
)


class MistralAIFinetuneEngine(BaseLLMFinetuneEngine):
    """The old package's name; Mistral takes no tuning jobs any more, and this says so.

    Raises:
        HostedEndedError: always, pointing to the engines that work.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise HostedEndedError(ENDED)

    @classmethod
    def from_finetuning_handler(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises too, before anything is written."""
        raise HostedEndedError(ENDED)

    def finetune(self) -> FinetuneReport:
        """Never reached: the constructor raises."""
        raise HostedEndedError(ENDED)

    def get_finetuned_model(self, **model_kwargs: Any) -> Any:
        """Never reached: the constructor raises."""
        raise HostedEndedError(ENDED)
