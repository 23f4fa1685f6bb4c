"""The light re-ranker's arithmetic: a linear score of features, made into a probability."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.rerankers.features import FEATURES, FloatArray

Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LightRanker:
    """A linear ranking function of `features`, in their order.

    Attributes:
        features: names; those of `FEATURES`, then `metadata:<key>`.
        mean: what is taken from each feature, shape `(F,)`.
        scale: what it is then divided by, shape `(F,)`.
        weights: shape `(F,)`.
        calibration: a, b, c of `logit p = a · logit softmax(s) + b · s + c`, where the softmax
            runs over the query's list; empty before calibration.
        thresholds: probabilities, increasing.
        precisions: share of relevant candidates at or above each threshold, out of fold; their
            mean grade, as a share of the highest, where relevance is graded.
        errors: standard errors of the precisions, over queries.
        details: how it came about.
    """

    features: tuple[str, ...]
    mean: Weights
    scale: Weights
    weights: Weights
    calibration: Weights = field(default_factory=lambda: np.zeros(0, np.float32))
    thresholds: Weights = field(default_factory=lambda: np.zeros(0, np.float32))
    precisions: Weights = field(default_factory=lambda: np.zeros(0, np.float32))
    errors: Weights = field(default_factory=lambda: np.zeros(0, np.float32))
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metadata_keys(self) -> list[str]:
        """The metadata that it looks at."""
        return [name.partition(":")[2] for name in self.features[len(FEATURES) :]]

    @property
    def fingerprint(self) -> str:
        """Changes with the weights."""
        digest = hashlib.sha256(json.dumps(self.features).encode())
        for array in self.tensors().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def scores(self, features: FloatArray) -> FloatArray:
        """The candidates' scores, shape `(n,)`: larger is better, comparable within a list.

        Features behind those that it knows (of metadata) are passed over.
        """
        standard = (features[:, : len(self.features)] - self.mean) / self.scale
        scores: FloatArray = standard @ self.weights.astype(np.float64)
        return scores

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """How probable it is that each candidate of one list is relevant; keeps their order.

        After graded relevance: the grade to expect, as a share of the highest (see `calibrate`).
        """
        if not self.calibration.size:
            raise ValueError("the ranker is not calibrated; a tuned or the default one is")
        a, b, c = self.calibration.astype(np.float64)
        return sigmoid(a * softmax_logits(scores) + b * scores + c)

    def min_score_for(self, precision: float, *, confidence: float = 0.8) -> float:
        """The lowest probability from which on that share of candidates is relevant.

        Args:
            precision: the share that is wanted.
            confidence: how sure the precision should be; 0.5 takes what was measured as it is.

        Raises:
            ValueError: no threshold reached that precision so surely on held-out data.
        """
        if not 0 < precision < 1:
            raise ValueError(f"precision must be between 0 and 1, got {precision}")
        if not 0.5 <= confidence < 1:
            raise ValueError(f"confidence must be between 0.5 and 1, got {confidence}")
        sure = self.precisions - NormalDist().inv_cdf(confidence) * self.errors
        reached = np.flatnonzero(sure >= precision)
        if not reached.size:
            best = f"; the best was {sure.max():.3f}" if sure.size else ""
            raise ValueError(
                f"no threshold reached precision {precision} on held-out data with confidence "
                f"{confidence}{best}"
            )
        return float(self.thresholds[reached[0]])

    def tensors(self) -> dict[str, Weights]:
        """The arrays, by name."""
        names = ("mean", "scale", "weights", "calibration", "thresholds", "precisions", "errors")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_tensors(
        cls, features: Any, tensors: Mapping[str, Weights], details: Mapping[str, Any]
    ) -> LightRanker:
        """From what `tensors()` gave, checked.

        Raises:
            ArtifactError: other features than this version computes, or arrays that do not fit.
        """
        names = tuple(map(str, features)) if isinstance(features, (list, tuple)) else ()
        extra = [name for name in names[len(FEATURES) :] if not name.startswith("metadata:")]
        if names[: len(FEATURES)] != FEATURES or extra:
            raise ArtifactError(
                "the re-ranker was trained on other features than this version computes; "
                "train it again"
            )
        try:
            ranker = cls(names, **tensors, details=details)
        except TypeError as exc:
            raise ArtifactError(f"the re-ranker's weights are incomplete: {exc}") from None
        shapes = {array.shape for array in (ranker.mean, ranker.scale, ranker.weights)}
        if shapes != {(len(names),)} or not (ranker.scale > 0).all():
            raise ArtifactError(f"the re-ranker's weights do not fit its {len(names)} features")
        if ranker.calibration.shape not in ((0,), (3,)):
            raise ArtifactError("the re-ranker's calibration must have 3 numbers or none")
        curve = {ranker.thresholds.shape, ranker.precisions.shape, ranker.errors.shape}
        if len(curve) > 1:
            raise ArtifactError("the re-ranker's thresholds, precisions and errors do not fit")
        return ranker

    @classmethod
    def fixed(cls, name: str, **weights: float) -> LightRanker:
        """An untrained ranker with these weights: a baseline."""
        ones = np.ones(len(FEATURES), dtype=np.float32)
        values = np.array([weights.get(feature, 0.0) for feature in FEATURES], dtype=np.float32)
        return cls(FEATURES, 0 * ones, ones, values, details={"name": name})

    def with_metadata(self, keys: Sequence[str]) -> LightRanker:
        """The same ranking with further features for these keys, of weight 0."""
        names = tuple(f"metadata:{key}" for key in keys)
        zeros = np.zeros(len(names), dtype=np.float32)
        return LightRanker(
            (*FEATURES, *names),
            np.concatenate([self.mean[: len(FEATURES)], zeros]),
            np.concatenate([self.scale[: len(FEATURES)], zeros + 1]),
            np.concatenate([self.weights[: len(FEATURES)], zeros]),
            details=self.details,
        )


def retriever_order() -> LightRanker:
    """No re-ranker: what the retriever says."""
    return LightRanker.fixed("no re-ranker", score_rank=-1.0)


def rank_fusion() -> LightRanker:
    """Reciprocal rank fusion of the retriever and BM25."""
    return LightRanker.fixed("reciprocal rank fusion", fused=1.0)


def score_fusion() -> LightRanker:
    """Equal parts of the retriever's score and BM25, in standard deviations of the list."""
    return LightRanker.fixed("score fusion", score_z=1.0, bm25_z=1.0)


def softmax_logits(scores: FloatArray) -> FloatArray:
    """Logits of the softmax over a list: each score against the others' log-sum-exp."""
    shifted = scores - scores.max()
    share = np.exp(shifted)
    others = np.maximum(share.sum() - share, 1e-9)
    logits: FloatArray = np.clip(shifted - np.log(others), -20.0, 20.0)
    return logits


def sigmoid(values: FloatArray) -> FloatArray:
    """The logistic function, without overflow."""
    answer: FloatArray = 0.5 * (1 + np.tanh(0.5 * values))
    return answer
