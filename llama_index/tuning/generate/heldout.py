"""How far generated queries are from real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.errors import DatasetError, MissingExtraError
from llama_index.tuning.evaluate.search import unit_rows
from llama_index.tuning.generate.calls import check_counts
from llama_index.tuning.generate.duplicates import question_key

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

_LEAST = 10
_RESAMPLES = 300


@dataclass(frozen=True)
class QueryComparison:
    """The answer of a two-sample classifier (Lopez-Paz and Oquab 2017).

    Args:
        auc: how well a classifier that never saw a query tells whether it was generated: 0.5 is
            not at all, 1 always.
        low: lower end of its 90 % interval (bootstrap over queries).
        high: upper end.
        n_generated: queries compared.
        n_real: queries compared.
        most_artificial: the generated queries that are easiest to tell, for reading.
    """

    auc: float
    low: float
    high: float
    n_generated: int
    n_real: int
    most_artificial: list[str]

    @property
    def told_apart(self) -> bool:
        """Whether the two samples are shown to differ: the interval lies above 0.5."""
        return self.low > 0.5

    def __str__(self) -> str:
        """One line for people."""
        word = "are told apart" if self.told_apart else "are not told apart"
        return (
            f"generated and real queries {word}: AUC {self.auc:.3f} (90 % interval "
            f"{self.low:.3f} to {self.high:.3f}; {self.n_generated} generated, {self.n_real} real)"
        )


def compare_queries(
    generated: Sequence[str],
    real: Sequence[str],
    embed_model: BaseEmbedding,
    *,
    folds: int = 5,
    seed: int = 0,
) -> QueryComparison:
    """Whether generated queries look like the users': a classifier on their embeddings, held out.

    Args:
        generated: query texts, at least 10.
        real: a sample of the app's own queries, at least 10.
        embed_model: of the app.
        folds: of the cross-validation; one text is always in one fold.
        seed: of folds and bootstrap.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> one, two = [f"Fee {i}?" for i in range(20)], [f"Cost {i}?" for i in range(20)]
        >>> compare_queries(one, two, MockEmbedding(embed_dim=4)).told_apart
        False
    """
    check_counts(folds=folds)
    for name, texts in (("generated", generated), ("real", real)):
        if isinstance(texts, str) or len(texts) < _LEAST:
            raise DatasetError(f"{name} must hold at least {_LEAST} query texts")
    if folds < 2:
        raise ValueError(f"folds must be >= 2, got {folds}")
    from llama_index.tuning.embeddings.vectors import Embedder

    texts = [*generated, *real]
    vectors = unit_rows(Embedder(embed_model).queries(texts))
    labels = np.repeat([1, 0], [len(generated), len(real)])
    scores = _held_out_scores(vectors, labels, list(map(question_key, texts)), folds, seed)
    draws = _bootstrap(labels, scores, seed)
    order = np.argsort(-scores[: len(generated)], kind="stable")
    return QueryComparison(
        auc=_auc(labels, scores),
        low=float(np.quantile(draws, 0.05)),
        high=float(np.quantile(draws, 0.95)),
        n_generated=len(generated),
        n_real=len(real),
        most_artificial=[generated[row] for row in order[:10]],
    )


def _held_out_scores(
    vectors: NDArray[np.float32], labels: NDArray[Any], keys: list[str], folds: int, seed: int
) -> NDArray[np.float64]:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as exc:
        raise MissingExtraError("compare_queries", "scikit-learn", "generate") from exc

    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    )
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    groups = np.unique(keys, return_inverse=True)[1]
    scores: NDArray[np.float64] = cross_val_predict(
        classifier, vectors, labels, groups=groups, cv=split, method="decision_function"
    )
    return scores


def _bootstrap(labels: NDArray[Any], scores: NDArray[Any], seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    draws = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([rng.choice(ones, len(ones)), rng.choice(zeros, len(zeros))])
        draws.append(_auc(labels[rows], scores[rows]))
    return draws


def _auc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))
