"""What every engine does, and one base class for each kind of component.

engine = XFinetuneEngine(dataset, ...)      # remembers; does no work
report = engine.finetune()                  # works; returns the report
component = engine.get_finetuned_model()    # ready, or the base where no gain was shown
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from llama_index.tuning._async import own_work

if TYPE_CHECKING:
    from llama_index.core.base.base_selector import BaseSelector
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    from llama_index.tuning.report import FinetuneReport


class BaseFinetuneEngine(ABC):
    """Trains one kind of component and measures what it gained.

    What `finetune()` asks of retrievers and models is no traffic of the app: no recorder records
    it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "finetune" in vars(cls):
            cls.finetune = own_work(cls.finetune)  # type: ignore[method-assign]

    @abstractmethod
    def finetune(self) -> FinetuneReport:
        """Train, measure and decide; may be called again, then it starts anew."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> Any:
        """The tuned component, or the base where the gate kept it."""


class BaseEmbeddingFinetuneEngine(BaseFinetuneEngine):
    """Tunes an embedding model."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The tuned embedding model, or the base."""


class BaseSelectorFinetuneEngine(BaseFinetuneEngine):
    """Tunes a router's selector."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseSelector:
        """The tuned selector, or the base."""


class BaseRerankerFinetuneEngine(BaseFinetuneEngine):
    """Tunes a re-ranker."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseNodePostprocessor:
        """The tuned re-ranker, or the base."""


class BaseEvaluatorFinetuneEngine(BaseFinetuneEngine):
    """Tunes a judge."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEvaluator:
        """The tuned judge, or the base."""


class BaseLLMFinetuneEngine(BaseFinetuneEngine):
    """Tunes an LLM."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> LLM:
        """The tuned LLM, or the base."""
