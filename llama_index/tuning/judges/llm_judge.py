"""An evaluator with an LLM tuned for it, as it is served, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.tuning import artifacts
from llama_index.tuning.base import BaseLLMFinetuneEngine
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.judges.llm_asking import evaluator_of, with_llm
from llama_index.tuning.judges.teacher import identity

if TYPE_CHECKING:
    from llama_index.core.evaluation import BaseEvaluator
    from llama_index.core.llms import LLM

KIND = "llm_judge"


@dataclass(frozen=True, eq=False)
class LLMJudge:
    """An evaluator and the engine of its tuned LLM.

    Attributes:
        evaluator: the form, with any LLM.
        engine: has tuned the LLM.
        llm_name: the tuned LLM's.
        details: how it came about, for people.
    """

    evaluator: BaseEvaluator
    engine: BaseLLMFinetuneEngine
    llm_name: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def serve(self, **llm_kwargs: Any) -> BaseEvaluator:
        """The evaluator with the tuned LLM.

        Args:
            **llm_kwargs: for the LLM engine's `get_finetuned_model()`.
        """
        return with_llm(self.evaluator, self.engine.get_finetuned_model(**llm_kwargs))

    def save(self, path: artifacts.PathLike) -> None:
        """Write which evaluator it is; the LLM lies where its engine puts it."""
        config = {
            **identity(self.evaluator),
            "llm": self.llm_name,
            "details": dict(self.details),
        }
        card = _CARD.format(kind=config["teacher"], llm=self.llm_name)
        with artifacts.replacing_folder(path) as folder:
            artifacts.write_component(folder, KIND, config, {}, card)


_CARD = """\
# {kind} with a tuned LLM

The LLM, `{llm}`, lies where the engine that tuned it put it: a folder for
`TunedHuggingFaceLLM.load`, or a server. This folder says which evaluator it was tuned for:

    load_llm_judge(folder, {kind}, llm)
"""


def load_llm_judge(path: artifacts.PathLike, form: Any, llm: LLM) -> BaseEvaluator:
    """The evaluator with the LLM that was tuned for it.

    Args:
        path: the folder that `JudgeFinetuneEngine` saved with an `LLMStudent`.
        form: the evaluator, or its class, with the prompts and settings of the training.
        llm: the tuned LLM, from where its engine put it: `TunedHuggingFaceLLM.load(folder)`, or
            the hosted model.

    Raises:
        ArtifactError: another evaluator, or one with other prompts or settings than learnt.
    """
    config = artifacts.read_config(path, KIND)
    evaluator = evaluator_of(form)
    for name, value in identity(evaluator).items():
        if config.get(name) != value:
            what = "prompts or settings" if name == "settings" else f"class ({config.get(name)})"
            raise ArtifactError(
                f"{path}: the LLM was tuned for an evaluator of other {what} than the "
                f"{type(evaluator).__name__} given as form"
            )
    artifacts.check_intact(path)
    return with_llm(evaluator, llm)
