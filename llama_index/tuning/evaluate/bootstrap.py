"""How sure a gain is: paired bootstrap over queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from llama_index.tuning.report import Gain

RESAMPLES = 2000


def paired_gain(
    base: ArrayLike, tuned: ArrayLike, *, confidence: float = 0.9, seed: int = 0
) -> Gain:
    """The gain of `tuned` over `base` on the same queries, with a percentile bootstrap interval.

    Efron and Tibshirani (1993); the queries are resampled, the pairing is kept.

    Args:
        base: one value for each query, shape `(n,)`.
        tuned: the same queries' values with the other component.
        confidence: level of the interval, between 0 and 1.
        seed: the same seed gives the same interval.

    Example:
        >>> gain = paired_gain([0.2, 0.4, 0.1], [0.5, 0.6, 0.1])
        >>> round(gain.mean, 3)
        0.167
    """
    from scipy.stats import bootstrap

    before = np.asarray(base, dtype=np.float64)
    after = np.asarray(tuned, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(
            "base and tuned must be two non-empty lists of equal length, "
            f"got shapes {before.shape} and {after.shape}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    difference = after - before
    low = high = float(difference.mean())
    if np.ptp(difference) > 0:
        interval = bootstrap(
            (difference,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, 2_000_000 // len(difference)),
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Gain(float(before.mean()), float(after.mean()), low, high, len(difference), confidence)
