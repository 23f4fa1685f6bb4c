"""What a router's report says, from scores of queries that it did not train on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning.evaluate.bootstrap import intervals, paired_gain
from llama_index.tuning.evaluate.routing import (
    Confusion,
    auroc,
    calibration_error,
    confusions,
    evaluate_selector,
    macro_f1,
    out_of_scope_recall,
)
from llama_index.tuning.report import Gain, QueryGain, most_changed
from llama_index.tuning.routers.calibrate import margins
from llama_index.tuning.routers.data import RouterData, Targets
from llama_index.tuning.text.words import normalise
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.core.base.base_selector import BaseSelector
    from llama_index.core.base.embeddings.base import BaseEmbedding

RECALLS = (3, 5)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Measured:
    """In-scope queries with scores that are honest.

    Attributes:
        data: the data.
        examples: which examples were measured.
        logits: shape `(n, choices)`.
        chances: calibrated probabilities, shape `(n, choices)`.
    """

    data: RouterData
    examples: Ints
    logits: Float32
    chances: Float32

    @property
    def targets(self) -> Targets:
        """The right choices."""
        return Targets.of(self.data, self.examples)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the best choice is right."""
        return self.targets.correct(self.logits.argmax(axis=1))

    @property
    def margins(self) -> Float32:
        """How certain each answer is."""
        return margins(self.chances)

    def gains(self, base: Float32, seed: int) -> dict[str, Gain]:
        """Accuracy and recall at a few choices, tuned against base scores of shape (n, choices)."""
        found = {}
        asked = self._asked
        for k in (1, *(k for k in RECALLS if k < self.data.choices)):
            before, after = self._recall(base, k), self._recall(self.logits, k)
            name = "accuracy" if k == 1 else f"recall@{k}"
            found[name] = paired_gain(before, after, groups=asked, seed=seed)
        return found

    def over_frequencies(self, seed: int) -> Gain:
        """Accuracy against that of the same answers dealt at random, each to another query.

        Without any signal, more may be right than by the base's answers: what is frequent among
        the labels is frequent among the answers, too, and the folds hold each choice alike. The
        difference is the numerator of Cohen's (1960) kappa.
        """
        from scipy.sparse import csr_matrix

        targets, predicted = self.targets, self.logits.argmax(axis=1)
        count, width = len(self.examples), self.data.choices
        said = csr_matrix((np.ones(count), (np.arange(count), predicted)), (count, width))
        wanted = csr_matrix(
            (np.ones(len(targets.labels)), (targets.owner, targets.labels)), (count, width)
        )
        right = targets.correct(predicted).astype(np.float64)

        def dealt(weights: Float64) -> Float64:
            total, own = weights.sum(axis=1), weights @ right
            met = ((weights @ said) * (weights @ wanted)).sum(axis=1) - own
            shares: Float64 = met / np.maximum(total * (total - 1), 1)
            return shares

        def gained(weights: Float64) -> Float64:
            found: Float64 = weights @ right / weights.sum(axis=1) - dealt(weights)
            return found

        whole = np.ones((1, count))
        _, asked = np.unique(self._asked, return_inverse=True)
        low, high = intervals({"gain": gained}, asked, seed=seed)["gain"]
        different = int(asked.max()) + 1
        return Gain(float(dealt(whole)[0]), float(right.mean()), low, high, different, 0.9)

    def summary(self, base: Float32) -> dict[str, float]:
        """Macro-F1 of both, and the calibration error."""
        truth = self.truth(self.logits)
        return {
            "macro_f1_base": macro_f1(self.truth(base), base.argmax(axis=1)),
            "macro_f1": macro_f1(truth, self.logits.argmax(axis=1)),
            "calibration_error": calibration_error(self.chances.max(axis=1), self.correct),
        }

    def truth(self, scores: Float32) -> Ints:
        """One right choice of each query: the predicted one if that is right, else the first."""
        targets, predicted = self.targets, scores.argmax(axis=1)
        first = np.zeros(targets.size, dtype=np.int64)
        first[targets.owner[::-1]] = targets.labels[::-1]
        return np.where(targets.correct(predicted), predicted, first)

    def matrix(self) -> list[list[int]]:
        """Queries of each choice by where they went."""
        count = self.data.choices
        flat = self.truth(self.logits) * count + self.logits.argmax(axis=1)
        cells: list[list[int]] = np.bincount(flat, minlength=count**2).reshape(count, -1).tolist()
        return cells

    def confusions(self) -> list[Confusion]:
        """The ten most frequent wrong turns."""
        names = list(self.data.dataset.choices)
        true = [names[row] for row in self.truth(self.logits)]
        went = [names[row] for row in self.logits.argmax(axis=1)]
        return confusions(true, went, self.data.texts(self.examples))

    def changed(self, base: Float32) -> list[QueryGain]:
        """Queries that only one of the two routes right, with where they belong and went."""
        names = list(self.data.dataset.choices)
        texts = self.data.texts(self.examples)
        truth, before, now = (
            self.truth(self.logits),
            base.argmax(axis=1),
            self.logits.argmax(axis=1),
        )

        def described(row: int) -> tuple[str, str, list[str]]:
            right, was, went = (names[found[row]] for found in (truth, before, now))
            turn = f"belongs to {right}; went to {was}, now to {went}"
            return str(self.examples[row]), texts[row], [turn]

        return most_changed(self._recall(base, 1), self._recall(self.logits, 1), described)

    def deferred(self, selector: BaseSelector, limit: int) -> NDArray[np.float64]:
        """Whether another selector is right on the least certain queries; NaN for the others."""
        rows = np.argsort(self.margins, kind="stable")[:limit]
        asked = self.data.dataset.subset(self.examples[rows].tolist())
        found = np.full(len(self.examples), np.nan)
        picked = evaluate_selector(selector, asked).selected
        wanted = [example.choices for example in asked.examples]
        found[rows] = [
            float(bool(names) and names[0] in right)
            for names, right in zip(picked, wanted, strict=True)
        ]
        return found

    @property
    def _asked(self) -> list[str]:
        """What tells queries apart: one that came up again says nothing new."""
        return [normalise(text) for text in self.data.texts(self.examples)]

    def _recall(self, scores: Float32, k: int) -> NDArray[np.float64]:
        targets = self.targets
        if k == 1:
            return targets.correct(scores.argmax(axis=1)).astype(np.float64)
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        hit = (top[targets.owner] == targets.labels[:, None]).any(axis=1)
        total = np.bincount(targets.owner, weights=hit, minlength=targets.size)
        recall: NDArray[np.float64] = total / np.bincount(targets.owner, minlength=targets.size)
        return recall


def base_scores(
    measured: Measured,
    embed_model: BaseEmbedding,
    selector: BaseSelector | None = None,
    show_progress: bool = False,
) -> Float32:
    """The base's score of each choice for the measured queries, shape `(n, choices)`.

    Args:
        measured: the queries.
        embed_model: of the stock rule, the description nearest to the query.
        selector: the app's own, instead: its first choice scores 1, its second 1/2, and so on.
        show_progress: show a bar.
    """
    data, names = measured.data, list(measured.data.dataset.choices)
    if selector is not None:
        asked = data.dataset.subset(measured.examples.tolist())
        found = evaluate_selector(selector, asked, show_progress=show_progress)
        if found.failed:
            row, reason = next(iter(found.failed.items()))
            logger.warning(
                "the base selector named no choice for %d of %d queries, such as %r: %.300s",
                len(found.failed),
                len(asked),
                asked.examples[row].query[:100],
                reason,
            )
        number = {name: row for row, name in enumerate(names)}
        scores = np.zeros((len(asked), data.choices), dtype=np.float32)
        for row, chosen in enumerate(found.selected):
            wanted = asked.examples[row].choices
            wrong = [name for name in names if name not in wanted][:1]
            for rank, name in enumerate(chosen or wrong):  # nothing is not the first choice
                scores[row, number[name]] = 1 / (rank + 1)
        return scores
    described = data.described.copy()
    blank = np.setdiff1d(np.arange(data.choices), data.has_description)
    if len(blank):
        vectors = embed_model.get_text_embedding_batch([names[row] for row in blank])
        described[blank] = unit_rows(np.asarray(vectors, dtype=np.float32))
    nearest: Float32 = data.vectors[measured.examples] @ described.T
    return nearest


def scope_summary(inside: Float32, outside: Float32, recall: float) -> dict[str, float]:
    """Out-of-scope recall and AUROC from the largest logits of both kinds."""
    if not len(inside) or not len(outside):
        return {}
    return {
        "out_of_scope_recall": out_of_scope_recall(inside, outside, in_scope_recall=recall),
        "auroc": auroc(inside, outside),
    }
