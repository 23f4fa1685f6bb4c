"""Names of the old package whose service has ended: each raises one error that says what to use."""

from __future__ import annotations

from typing import Any, NoReturn

from llama_index.tuning.errors import HostedEndedError

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


class _Ended:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.from_finetuning_handler()

    @classmethod
    def from_finetuning_handler(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises too, before anything is written."""
        raise HostedEndedError(f"{cls.__name__}: {_ENDED[cls.__name__]}")


class CohereRerankerFinetuneEngine(_Ended):
    """The old package's name; raises `HostedEndedError`, which says what works."""


class MistralAIFinetuneEngine(_Ended):
    """The old package's name; raises `HostedEndedError`, which says what works."""
