"""How well queries are routed: right, calibrated, aware of what belongs nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from llama_index.tuning._arrays import Float64
from llama_index.tuning._checks import number, share, whole_number
from llama_index.tuning._running import own_work, progress
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.datasets.tuned_parts import warn_of_learnt

if TYPE_CHECKING:
    from llama_index.core.base.base_selector import BaseSelector


@dataclass(frozen=True)
class Confusion:
    """Queries of one choice that went to another.

    Attributes:
        true: where they belong.
        predicted: where they went.
        count: how many.
        queries: up to three of them.
    """

    true: str
    predicted: str
    count: int
    queries: list[str]


@dataclass(frozen=True)
class DeferralPoint:
    """What handing the least certain queries to another selector costs and gains.

    Attributes:
        share: share of the queries handed over, 0 to 1.
        threshold: the margin below which they are.
        kept_accuracy: accuracy on the others.
        accuracy: accuracy on all, with the other selector's answers where they are known.
    """

    share: float
    threshold: float
    kept_accuracy: float
    accuracy: float | None


@dataclass(frozen=True)
class SelectionScores:
    """Any selector's answers on a dataset.

    Attributes:
        selected: names selected, for each example.
        exact: 1 where the selected set is the right one, shape `(n,)`.
        recall: share of the right choices that were selected, shape `(n,)`.
        failed: example → error, where the selector raised `ValueError` or its LLM's reply named no
            choice.
    """

    selected: list[tuple[str, ...]]
    exact: Float64
    recall: Float64
    failed: dict[int, str]

    def mean(self) -> dict[str, float]:
        """Mean exact match and recall."""
        return {"exact": float(self.exact.mean()), "recall": float(self.recall.mean())}


def macro_f1(true: ArrayLike, predicted: ArrayLike) -> float:
    """Mean F1 over the classes that occur in `true`, by scikit-learn."""
    from sklearn.metrics import f1_score

    labels = np.unique(np.asarray(true))
    score = f1_score(true, predicted, labels=labels, average="macro", zero_division=0.0)
    return float(score)


def calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error: mean gap of confidence and accuracy (Guo et al. 2017).

    Args:
        confidence: probability of the chosen answer, 0 to 1, shape `(n,)`.
        correct: whether it was right, shape `(n,)`.
        bins: bins of equal width.
    """
    bins = whole_number("bins", bins, 1)
    given = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    slot = np.minimum((given * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(slot, weights=given - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(given))


def auroc(in_scope: ArrayLike, out_of_scope: ArrayLike) -> float:
    """Area under the ROC curve: how often an in-scope score is above an out-of-scope one."""
    from sklearn.metrics import roc_auc_score

    inside, outside = np.asarray(in_scope), np.asarray(out_of_scope)
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return float(roc_auc_score(truth, np.r_[inside, outside]))


def out_of_scope_recall(
    in_scope: ArrayLike, out_of_scope: ArrayLike, *, in_scope_recall: float = 0.95
) -> float:
    """Share of out-of-scope queries turned away while this share of the others passes.

    Args:
        in_scope: scores of queries that belong somewhere; higher means more at home.
        out_of_scope: scores of queries that belong nowhere.
        in_scope_recall: share of the in-scope queries that must pass, between 0 and 1.
    """
    in_scope_recall = share("in_scope_recall", in_scope_recall)
    threshold = np.quantile(np.asarray(in_scope), 1 - in_scope_recall)
    return float(np.mean(np.asarray(out_of_scope) < threshold))


def confusions(
    true: Sequence[str], predicted: Sequence[str], queries: Sequence[str], *, top: int = 10
) -> list[Confusion]:
    """The most frequent wrong turns, with example queries."""
    found: dict[tuple[str, str], list[str]] = {}
    for right, wrong, query in zip(true, predicted, queries, strict=True):
        if right != wrong:
            found.setdefault((right, wrong), []).append(query)
    worst = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:top]
    return [Confusion(*pair, len(rows), rows[:3]) for pair, rows in worst]


def deferral_curve(
    margins: ArrayLike,
    correct: ArrayLike,
    deferred_correct: ArrayLike | None = None,
    *,
    shares: Sequence[float] = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1),
) -> list[DeferralPoint]:
    """Accuracy against the share of queries handed to another selector, least certain first.

    Args:
        margins: certainty of each answer, shape `(n,)`.
        correct: whether it was right, shape `(n,)`.
        deferred_correct: whether the other selector was right; NaN where it was not asked, which
            counts as the tuned selector's own answer.
        shares: where to read the curve, each from 0 to 1.

    Example:
        >>> curve = deferral_curve([0.9, 0.1], [1, 0], [1, 1], shares=[0, 0.5])
        >>> [point.accuracy for point in curve]
        [0.5, 1.0]
    """
    certain = np.asarray(margins, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    order = np.argsort(certain, kind="stable")
    other = None if deferred_correct is None else np.asarray(deferred_correct, dtype=np.float64)
    points = []
    for given in shares:
        part = number("shares", given, 0, 1)
        count = round(part * len(right))
        kept, handed = right[order[count:]], order[:count]
        accuracy = None
        if other is not None:
            answers = np.where(np.isnan(other[handed]), right[handed], other[handed])
            accuracy = float((kept.sum() + answers.sum()) / len(right))
        edge = float(certain[order[count]]) if count < len(right) else float("inf")
        points.append(DeferralPoint(part, edge, float(kept.mean()) if len(kept) else 1.0, accuracy))
    return points


@own_work
def evaluate_selector(
    selector: BaseSelector, dataset: RoutingDataset, *, show_progress: bool = False
) -> SelectionScores:
    """What any LlamaIndex selector selects on a dataset's queries: one `select` for each.

    An out-of-scope example is right where the selector selects nothing or raises `ValueError`.
    An LLM's reply that cannot be read, or names a choice that is not there, selects nothing.
    A warning says if the selector has learnt some of the queries.
    """
    from llama_index.core.output_parsers.base import OutputParserException
    from llama_index.core.tools.types import ToolMetadata

    data = RoutingDataset.coerce(dataset)
    warn_of_learnt(selector, data.queries)
    names = list(data.choices)
    choices: list[Any] = [
        ToolMetadata(description=text or name, name=name) for name, text in data.choices.items()
    ]
    selected: list[tuple[str, ...]] = []
    failed = {}
    for row, query in enumerate(progress(data.queries, show_progress, "Selecting")):
        try:
            found = selector.select(choices, query).inds
            if wrong := [index for index in found if not 0 <= index < len(names)]:
                raise ValueError(f"it selected number {wrong[0] + 1} of {len(names)} choices")
        except (ValueError, OutputParserException) as exc:  # a reply that names no choice
            failed[row], found = str(exc), []
        selected.append(tuple(names[index] for index in found))
    exact, recall = set_scores(selected, [example.choices for example in data.examples])
    return SelectionScores(selected, exact, recall, failed)


def set_scores(
    selected: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]
) -> tuple[Float64, Float64]:
    """Exact match and recall of each selected set; selecting nothing is right for none wanted."""
    exact, recall = [], []
    for found, right in zip(map(set, selected), map(set, wanted), strict=True):
        exact.append(float(found == right))
        recall.append(len(found & right) / len(right) if right else float(not found))
    return np.array(exact), np.array(recall)
