"""A judge's probabilities, put right for answers that pass more or less often than it learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.special import expit, logit

from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import plain_arguments
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.data import JudgeData, judge_data_of
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.records import TIE, DecisionRule

if TYPE_CHECKING:
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.judges.judge import TunedJudge


Method = Literal["platt", "prior"]


MIN_ITEMS = 50


MIN_OF_A_KIND = 5


_SURE = 1e-6


@plain_arguments
def recalibrate_judge(
    judge: TunedJudge,
    labelled: JudgmentDataset,
    *,
    method: Method | None = None,
    passing_score: float | None = None,
) -> TunedJudge:
    """The judge with probabilities that hold for the answers that `labelled` is a sample of.

    A judge's probabilities carry over how often its training answers passed. On other answers
    they are off by the ratio of the odds, which is a offset of the logit (Saerens, Latinne and
    Decaestecker 2002); if the judge is also more or less sure than it should be, the logit
    has another slope too (Platt 1999). 200 labelled answers tell both well enough.

    Verdicts stay as they are – threshold and band of ties move along – and so does the share of
    answers that are handed to `defer_to`.

    Args:
        judge: left as it is.
        labelled: verdicts on a random sample of the new answers, at least 50, none of which the
            judge was trained on.
        method: `"prior"` fits the offset alone, which needs fewer labels and is right if nothing
            but the pass rate differs; `"platt"` the slope too. The first by default; for pairs,
            which have no pass rate, the second, and a slope only.
        passing_score: a verdict with a score and no `passing` passes from this score on.

    Returns:
        A new judge on the same models.

    Raises:
        DatasetError: too few verdicts, of one kind only, of another form than the judge takes, or
            on items that it was trained on.

    Example:
        >>> from llama_index.tuning import JudgeFinetuneEngine, JudgmentDataset
        >>> def answers(start, rate):
        ...     return JudgmentDataset.from_records(
        ...         {
        ...             "query": f"Fee of plan {n}?",
        ...             "response": "I don't know." if n % 4 == 0 else f"It is {n} euros.",
        ...             "passing": n % 10 < 10 * rate if n % 4 else n % 10 < 2,
        ...         }
        ...         for n in range(start, start + 200)
        ...     )
        >>> engine = JudgeFinetuneEngine(answers(0, 0.7), accept="always")
        >>> _ = engine.finetune()
        >>> judge, others = engine.get_finetuned_model(), answers(1000, 0.4)
        >>> new = recalibrate_judge(judge, others)
        >>> rate = np.mean([item.passing for item in others.judgments])
        >>> [round(float(abs(j.probabilities(others).mean() - rate)), 1) for j in (judge, new)]
        [0.2, 0.0]
    """
    if method is not None and method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; choose one of: {', '.join(get_args(Method))}")
    if not hasattr(judge, "probabilities"):
        raise TypeError(f"judge must be a TunedJudge, got {type(judge).__name__}")
    data = judge_data_of(labelled, JudgeOptions(passing_score=passing_score), "labelled")
    method = method or ("platt" if data.pairwise else "prior")
    _check(judge, data, method)
    chances = judge.probabilities(data.items)
    slope, offset = fit_scale(
        chances, data.labels, data.weights, method, with_offset=not data.pairwise
    )
    return judge.with_rule(scaled(judge.model.rule, slope, offset))


def fit_scale(
    chances: Float64, labels: Float64, weights: Float64, method: Method, *, with_offset: bool = True
) -> tuple[float, float]:
    """Slope and offset of the logits with the greatest likelihood of the labels.

    The slope is held near 1 by a weak prior (its logarithm normal, standard deviation 1), for
    labels that the judge separates without error would make it grow without end.

    Args:
        chances: a judge's probabilities, shape `(n,)`.
        labels: 1, 0, or 0.5 for a tie, shape `(n,)`.
        weights: shape `(n,)`.
        method: whether the slope is fitted or stays 1.
        with_offset: whether there is a offset; pairs have none, so that their order cannot matter.
    """
    from scipy.optimize import minimize

    logits = logit(np.clip(chances, _SURE, 1 - _SURE))
    share = weights / weights.mean()

    def loss(values: Float64) -> float:
        stretch = values[0] if method == "platt" else 0.0
        moved = np.exp(stretch) * logits + (values[-1] if with_offset else 0.0)
        return float((share * (np.logaddexp(0, moved) - labels * moved)).sum() + stretch**2 / 2)

    start = np.zeros(int(method == "platt") + int(with_offset))
    found = minimize(loss, start, method="BFGS").x
    slope = float(np.exp(found[0])) if method == "platt" else 1.0
    return slope, float(found[-1]) if with_offset else 0.0


def scaled(rule: DecisionRule, slope: float, offset: float) -> DecisionRule:
    """The rule for scaled logits: every verdict stays, and so does which answers are uncertain.

    Args:
        rule: the judge's.
        slope: above 0.
        offset: 0 for pairs.
    """

    def moved(value: float) -> float:
        return float(expit(slope * logit(value) + offset))

    band = rule.band
    return replace(
        rule,
        slope=rule.slope * slope,
        offset=rule.offset * slope + offset,
        threshold=moved(rule.threshold),
        band=None if band is None else moved(TIE + band) - TIE,
        margin=rule.margin * slope,
    )


def _check(judge: TunedJudge, data: JudgeData, method: Method) -> None:
    """Before any work: enough, of both kinds, of the judge's form, and new to it."""
    if data.pairwise != judge.model.pairwise:
        wanted = "pairs" if judge.model.pairwise else "single responses"
        raise DatasetError(f"labelled must hold verdicts on {wanted}, as the judge was trained on")
    if data.pairwise and method == "prior":
        raise ValueError('method="prior" is for single responses: pairs have no pass rate')
    count = len(data.labels)
    if count < MIN_ITEMS:
        raise DatasetError(f"labelled must hold at least {MIN_ITEMS} verdicts, got {count}")
    for kind, label in (("passes", 1), ("fails", 0)):
        found = int((data.labels == label).sum())
        if found < MIN_OF_A_KIND:
            raise DatasetError(
                f"labelled must hold at least {MIN_OF_A_KIND} {kind}, got {found} of {count}"
            )
    trained = set(judge.training_keys)
    known = sum(key in trained for key in data.keys)
    if known:
        raise DatasetError(
            f"{known} of {count} labelled items were used to train the judge, which is surer of "
            "them than of others: leave them out"
        )
