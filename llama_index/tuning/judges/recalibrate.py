"""A judge's probabilities, put right for answers that pass more or less often than it learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.special import expit, logit

from llama_index.tuning.errors import DatasetError
from llama_index.tuning.judges.features import Floats
from llama_index.tuning.judges.light import TIE, Line
from llama_index.tuning.judges.material import Material, material_of
from llama_index.tuning.judges.options import JudgeOptions

if TYPE_CHECKING:
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.judges.judge import TunedJudge

Method = Literal["platt", "prior"]

MIN_ITEMS = 50
MIN_OF_A_KIND = 5
_SURE = 1e-6


def recalibrate_judge(
    judge: TunedJudge,
    labelled: JudgmentDataset,
    *,
    method: Method | None = None,
    passing_score: float | None = None,
) -> TunedJudge:
    """The judge with probabilities that hold for the answers that `labelled` is a sample of.

    A judge's probabilities import how often answers passed where it was trained. On other answers
    they are off by the ratio of the odds, which is a shift of the logit (Saerens, Latinne and
    Decaestecker 2002); where the judge is also more or less sure than it should be, the logit
    has another slope too (Platt 1999). 200 labelled answers tell both well enough.

    Verdicts stay as they are – threshold and band of ties move along – and so does the share of
    answers that are handed to `defer_to`.

    Args:
        judge: left as it is.
        labelled: verdicts on a random sample of the new answers, at least 50, none of which the
            judge was trained on.
        method: `"prior"` fits the shift alone, which needs fewer labels and is right where nothing
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
        >>> [round(float(j.probabilities(others).mean() - rate), 1) for j in (judge, new)]
        [0.2, 0.0]
    """
    if method is not None and method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; choose one of: {', '.join(get_args(Method))}")
    material = material_of(labelled, JudgeOptions(passing_score=passing_score), "labelled")
    method = method or ("platt" if material.pairwise else "prior")
    _check(judge, material, method)
    chances = judge.probabilities(material.items)
    slope, shift = fit_scale(
        chances, material.labels, material.weights, method, shifted=not material.pairwise
    )
    return judge.with_line(scaled(judge.model.line, slope, shift, chances))


def fit_scale(
    chances: Floats, labels: Floats, weights: Floats, method: Method, *, shifted: bool = True
) -> tuple[float, float]:
    """Slope and shift of the logits with the greatest likelihood of the labels.

    The slope is held near 1 by a weak prior (its logarithm normal, standard deviation 1), for
    labels that the judge separates without error would make it grow without end.

    Args:
        chances: a judge's probabilities, shape `(n,)`.
        labels: 1, 0, or 0.5 for a tie, shape `(n,)`.
        weights: shape `(n,)`.
        method: whether the slope is fitted or stays 1.
        shifted: whether there is a shift; pairs have none, so that their order cannot matter.
    """
    from scipy.optimize import minimize

    logits = logit(np.clip(chances, _SURE, 1 - _SURE))
    share = weights / weights.mean()

    def loss(values: Floats) -> float:
        stretch = values[0] if method == "platt" else 0.0
        moved = np.exp(stretch) * logits + (values[-1] if shifted else 0.0)
        return float((share * (np.logaddexp(0, moved) - labels * moved)).sum() + stretch**2 / 2)

    start = np.zeros(int(method == "platt") + int(shifted))
    found = minimize(loss, start, method="BFGS").x
    slope = float(np.exp(found[0])) if method == "platt" else 1.0
    return slope, float(found[-1]) if shifted else 0.0


def scaled(line: Line, slope: float, shift: float, chances: Floats) -> Line:
    """The line for logits that are stretched and shifted: no verdict changes.

    Args:
        line: the judge's.
        slope: above 0.
        shift: 0 for pairs.
        chances: the judge's probabilities of answers like those it will see, shape `(n,)`; as
            many of them stay uncertain.
    """

    def moved(values: Floats | float) -> Floats:
        found: Floats = expit(slope * logit(values) + shift)
        return found

    band = line.band
    found = replace(
        line,
        slope=line.slope * slope,
        offset=line.offset * slope + shift,
        threshold=float(moved(line.threshold)),
        band=None if band is None else float(moved(TIE + band)) - TIE,
    )
    if not line.margin:
        return found
    share = float((line.certainties(chances) < line.margin).mean())
    margin = np.quantile(found.certainties(moved(chances)), share)
    return replace(found, margin=float(margin))


def _check(judge: TunedJudge, material: Material, method: Method) -> None:
    """Before any work: enough, of both kinds, of the judge's form, and new to it."""
    if material.pairwise != judge.model.pairwise:
        wanted = "pairs" if judge.model.pairwise else "single responses"
        raise DatasetError(f"labelled must hold verdicts on {wanted}, as the judge was trained on")
    if material.pairwise and method == "prior":
        raise ValueError('method="prior" is for single responses: pairs have no pass rate')
    count = len(material.labels)
    if count < MIN_ITEMS:
        raise DatasetError(f"labelled must hold at least {MIN_ITEMS} verdicts, got {count}")
    for kind, label in (("passes", 1), ("fails", 0)):
        found = int((material.labels == label).sum())
        if found < MIN_OF_A_KIND:
            raise DatasetError(
                f"labelled must hold at least {MIN_OF_A_KIND} {kind}, got {found} of {count}"
            )
    trained = set(judge.training_keys)
    known = sum(key in trained for key in material.keys)
    if known:
        raise DatasetError(
            f"{known} of {count} labelled items were used to train the judge, which is surer of "
            "them than of others: leave them out"
        )
