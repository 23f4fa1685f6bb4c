"""A tuned judge as a LlamaIndex evaluator."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import number, plain_arguments
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.answers import items_of
from llama_index.tuning.judges.light.model import LightJudge, load_judge
from llama_index.tuning.judges.records import TIE, DecisionRule
from llama_index.tuning.judges.serving import EMPTY, check_models, feedback_of, invalid_reason
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.identity import base_name, check_signature, same_name
from llama_index.tuning.vectors.memory import LatestVectors

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

logger = logging.getLogger(__name__)

UNFAMILIAR = "the answer is unlike all that this judge learned from: its verdict would be a guess"


class TunedJudge(BaseEvaluator):
    """Judges answers without an LLM; drops into `BatchEvalRunner` and `evaluate_response`.

    A pointwise judge's `score` is the calibrated probability that the answer passes, and `passing`
    whether it reaches the threshold. A pairwise one takes `second_response=` and gives what
    `PairwiseComparisonEvaluator` gives: 1 if the first is better, 0 if the second is, 0.5
    for a tie. What it should not judge – a field is missing, or the answer is unlike all that it
    learned from – comes back with `invalid_result` and the reason.

    Args:
        model: the trained judge.
        embed_model: the embedding model that it was trained with, if any.
        defer_to: the evaluator that uncertain answers go to, and those unlike all that the judge
            learned from; if it fails, the judge's own verdict stands and the feedback says so.
        threshold: the probability to pass from, instead of the trained one.
        refuse_unfamiliar: whether an answer that lies clearly outside of what the judge learned
            from is refused. `probabilities()`, and so `estimate_pass_rate`, never refuse one.

    Attributes:
        training_keys: hashes of the items it was trained on (`judges.answers.item_keys`).
    """

    @plain_arguments
    def __init__(
        self,
        model: LightJudge,
        embed_model: BaseEmbedding | None = None,
        *,
        defer_to: BaseEvaluator | None = None,
        threshold: float | None = None,
        refuse_unfamiliar: bool = True,
    ) -> None:
        check_models(embed_model, defer_to)
        if not isinstance(model, LightJudge):
            raise TypeError(f"model must be a LightJudge, got {type(model).__name__}")
        if model.maker.embedded:
            if embed_model is None:
                raise ValueError(
                    f"this judge needs embed_model, the model {model.base_model!r} that it was "
                    "trained with"
                )
            if not same_name(base_name(embed_model), model.base_model):
                raise ValueError(
                    f"this judge was trained on vectors of {model.base_model!r}, embed_model is "
                    f"{base_name(embed_model)!r}"
                )
        if threshold is not None:
            if model.pairwise:
                raise ValueError("threshold is for judges of single responses, not of pairs")
            rule = replace(model.rule, threshold=number("threshold", threshold, 0, 1))
            model = replace(model, rule=rule)
        self.model = model
        self.defer_to = defer_to
        self.refuse_unfamiliar = refuse_unfamiliar
        self._embedder = None
        if embed_model is not None and model.maker.embedded:
            self._embedder = Embedder(embed_model, known=LatestVectors())

    def __repr__(self) -> str:
        parts = [type(self.model).__name__, "pairwise" if self.model.pairwise else "pointwise"]
        if not self.model.pairwise:
            parts.append(f"threshold {self.threshold:.3g}")
        if self.model.maker.embedded:
            parts.append(f"base {self.model.base_model!r}")
        if self.defer_to is not None:
            parts.append(f"defers to {type(self.defer_to).__name__}")
        return f"TunedJudge({', '.join(parts)})"

    @property
    def threshold(self) -> float:
        """The probability from which an answer passes."""
        return self.model.rule.threshold

    @property
    def training_keys(self) -> tuple[str, ...]:
        """Hashes of the items the judge was trained on."""
        return self.model.training_keys

    def probabilities(self, dataset: Any) -> Float64:
        """Calibrated probability that each item passes, or that the first is better.

        Args:
            dataset: a `JudgmentDataset` or a list of judgments; their verdicts are not read.

        Returns:
            Shape `(n,)`, from 0 to 1.

        Raises:
            DatasetError: items that the judge should not judge, each named.
        """
        items = items_of(dataset)
        faults = [
            f"judgment {number}: {reason}"
            for number, item in enumerate(items)
            if (reason := invalid_reason(self.model, item)) is not None
            and (reason != EMPTY or item.response is None)
        ]
        if faults:
            raise DatasetError("the judge should not judge these:", faults)
        return self.model.probabilities(items, self._embedder)

    def evaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        *,
        second_response: str | None = None,
        reference: str | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """As `aevaluate`; without `defer_to` it needs no event loop, and so works after a fork."""
        if self.defer_to is not None:
            kwargs |= {"second_response": second_response, "reference": reference}
            return super().evaluate(query, response, contexts, **kwargs)
        item = _answer(query, response, contexts, second_response, reference)
        reason = invalid_reason(self.model, item)
        return self._judge(item)[0] if reason is None else _invalid(item, reason)

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        *,
        second_response: str | None = None,
        reference: str | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Judge one answer, or compare it with `second_response`.

        Other keyword arguments, such as `sleep_time_in_seconds`, go to `defer_to` alone.
        """
        item = _answer(query, response, contexts, second_response, reference)
        reason = invalid_reason(self.model, item)
        if reason is not None:
            return _invalid(item, reason)
        result, certainty = await asyncio.to_thread(self._judge, item)
        if self.defer_to is None or certainty >= self.model.rule.margin:
            return result
        given = {"second_response": second_response, "reference": reference, **kwargs}
        given = {name: value for name, value in given.items() if value is not None}
        try:
            return await self.defer_to.aevaluate(
                query=query, response=response, contexts=contexts, **given
            )
        except Exception as exc:
            logger.warning("defer_to failed, the judge's own verdict stands: %r", exc)
            result.feedback = f"{result.feedback}\nfor defer_to, which failed: {exc!r}"
            return result

    def with_rule(self, rule: DecisionRule) -> TunedJudge:
        """The same judge with another calibration, threshold or margin."""
        found = copy.copy(self)
        found.model = replace(self.model, rule=rule)
        return found

    def save(self, path: artifacts.PathLike) -> None:
        """Write the judge's folder, without the embedding model and without `defer_to`."""
        self.model.save(path)

    @classmethod
    @plain_arguments
    def load(
        cls,
        path: artifacts.PathLike,
        embed_model: BaseEmbedding | None = None,
        *,
        defer_to: BaseEvaluator | None = None,
        threshold: float | None = None,
        refuse_unfamiliar: bool = True,
    ) -> TunedJudge:
        """The judge that `save` wrote.

        Args:
            path: the folder.
            embed_model: the embedding model that it was trained with, if any.
            defer_to: the evaluator that uncertain answers go to.
            threshold: as in the constructor.
            refuse_unfamiliar: as in the constructor.

        Raises:
            ArtifactError: no judge, or a damaged one.
        """
        judge = cls(
            load_judge(path),
            embed_model,
            defer_to=defer_to,
            threshold=threshold,
            refuse_unfamiliar=refuse_unfamiliar,
        )
        if embed_model is not None and judge.model.maker.embedded:
            saved = judge.model.details.get("signature")
            check_signature(embed_model, saved, f"the judge {path}")
        return judge

    def _judge(self, item: Any) -> tuple[EvaluationResult, float]:
        chances, novel = self.model.judged([item], self._embedder)
        if self.refuse_unfamiliar and novel[0]:
            return _invalid(item, UNFAMILIAR), -1.0  # below any margin
        chance, verdict = float(chances[0]), float(self.model.rule.verdicts(chances)[0])
        result = EvaluationResult(
            query=item.query,
            contexts=item.contexts,
            response=item.response,
            passing=None if verdict == TIE else verdict == 1,
            score=verdict if self.model.pairwise else chance,
            feedback=feedback_of(self.model, item, chance, verdict),
            pairwise_source="original" if self.model.pairwise else None,
        )
        return result, float(self.model.rule.certainties(chances)[0])

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if prompts:
            raise ValueError("a TunedJudge has no prompts")


def _invalid(item: Any, reason: str) -> EvaluationResult:
    texts = {
        n: v if isinstance(v := getattr(item, n), str) else None for n in ("query", "response")
    }
    return EvaluationResult(
        **texts,
        contexts=None,
        passing=None,
        score=None,
        feedback=reason,
        invalid_result=True,
        invalid_reason=reason,
    )


def _answer(
    query: str | None,
    response: str | None,
    contexts: Sequence[str] | None,
    second_response: str | None,
    reference: str | None,
) -> SimpleNamespace:
    """What is judged, with the fields of a `Judgment`."""
    return SimpleNamespace(
        query=query,
        response=response,
        contexts=contexts,
        second_response=second_response,
        reference=reference,
    )
