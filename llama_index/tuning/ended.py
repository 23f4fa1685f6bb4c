"""Names of the old package whose service has ended: each raises one error that says what to use."""

from __future__ import annotations

from typing import Any, NoReturn

from llama_index.tuning.base import BaseFinetuneEngine
from llama_index.tuning.errors import HostedEndedError
from llama_index.tuning.report import FinetuneReport

_ENDED = {
    "CohereRerankerFinetuneEngine": (
        "Cohere ended the tuning of hosted re-rankers on 15 September 2025. Use "
        "LightRerankerFinetuneEngine (seconds, no transformer) or CrossEncoderFinetuneEngine"
    ),
    "MistralAIFinetuneEngine": (
        "Mistral has deprecated its fine-tuning API and taken it out of its client. Use "
        "HuggingFaceFinetuneEngine with one of its open models, or OpenAIFinetuneEngine with "
        "base_url= of a server that tunes them, such as Nebius Token Factory; the training file "
        "stays as it is"
    ),
}


class _EndedEngine(BaseFinetuneEngine):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._refuse()

    @classmethod
    def _refuse(cls) -> NoReturn:
        raise HostedEndedError(f"{cls.__name__}: {_ENDED[cls.__name__]}")

    @classmethod
    def from_finetuning_handler(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises too, before anything is written."""
        cls._refuse()

    def finetune(self) -> FinetuneReport:
        """Never reached: the constructor raises."""
        self._refuse()

    def get_finetuned_model(self, **model_kwargs: Any) -> NoReturn:
        """Never reached: the constructor raises."""
        self._refuse()


class CohereRerankerFinetuneEngine(_EndedEngine):
    """The old package's name; raises `HostedEndedError`, which points to the engines that work."""


class MistralAIFinetuneEngine(_EndedEngine):
    """The old package's name; raises `HostedEndedError`, which points to the engines that work."""
