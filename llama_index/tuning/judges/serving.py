"""What a judge needs while it serves: checks, and words for its verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llama_index.tuning.judges.answers import has_contexts
from llama_index.tuning.judges.records import TIE

if TYPE_CHECKING:
    from llama_index.tuning.judges.light.model import LightJudge

EMPTY = "the response is empty"
WEAK_SENTENCES = 2
"""How many of the least supported sentences are named."""
SUPPORTED = 0.75
"""A sentence whose words are in the contexts to this share, by rarity, is not named."""


def check_models(embed_model: Any, defer_to: Any) -> None:
    """`embed_model` embeds and `defer_to` evaluates, if they are given."""
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.evaluation import BaseEvaluator

    if embed_model is not None and not isinstance(embed_model, BaseEmbedding):
        raise TypeError(f"embed_model must be a BaseEmbedding, got {type(embed_model).__name__}")
    if defer_to is not None and not isinstance(defer_to, BaseEvaluator):
        raise TypeError(f"defer_to must be a BaseEvaluator, got {type(defer_to).__name__}")


def invalid_reason(judge: LightJudge, item: Any) -> str | None:
    """Why the judge should not judge this: it learned from answers that had more."""
    for name in ("query", "response", "second_response", "reference"):
        value = getattr(item, name)
        if value is not None and not isinstance(value, str):
            return f"{name} must be a text, got {type(value).__name__}"
    contexts = item.contexts or ()
    texts = isinstance(contexts, Iterable) and not isinstance(contexts, str)
    if not texts or not all(isinstance(text, str) for text in contexts):
        return "contexts must be a list of texts"
    if not (item.response or "").strip() and not (judge.pairwise and item.second_response):
        return EMPTY
    if item.response is None:
        return "there is no response"
    if judge.pairwise and item.second_response is None:
        return "there is no second_response; this judge compares two"
    if not judge.pairwise and item.second_response is not None:
        return "there is a second_response; this judge was trained on single responses"
    if judge.query and not (item.query or "").strip():
        return "there is no query; this judge was trained on answers to queries"
    if judge.maker.contexts and not has_contexts(item):
        return "there are no contexts; this judge was trained on answers with contexts"
    if judge.maker.reference and not (item.reference or "").strip():
        return "there is no reference; this judge was trained on answers with one"
    return None


def feedback_of(judge: LightJudge, item: Any, chance: float, verdict: float) -> str:
    """The probability, and the sentences that the contexts support least."""
    if judge.pairwise:
        said = {1.0: "the first is better", 0.0: "the second is better", TIE: "a tie"}[verdict]
        return f"{said}; probability that the first is better: {chance:.2f}"
    said = f"probability of passing: {chance:.2f} (threshold {judge.rule.threshold:.2f})"
    if not judge.maker.contexts:
        return said
    support = judge.maker.sentence_support(item.response, item.contexts)
    weak = sorted((s for s in support if s[1] < SUPPORTED), key=lambda s: s[1])
    lines = [f"- {text!r} ({share:.0%} of its words)" for text, share in weak[:WEAK_SENTENCES]]
    return "\n".join([said, "least supported by the contexts:", *lines]) if lines else said
