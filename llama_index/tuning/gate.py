"""The gate: a tuned component is only used where its gain is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from llama_index.tuning.report import Gain

Accept = Literal["gain", "always"]

MIN_QUERIES = 10
"""Below this many measured queries an interval means nothing, and nothing is shown."""
MIN_GAIN = 0.003
"""A smaller gain is not worth a change, however sure it is."""
MIN_SLICE = 20
"""A slice of the queries is guarded from this size on."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why, in a sentence for the user."""

    accepted: bool
    reason: str


def decide(
    primary: str,
    gain: Gain,
    slices: Mapping[str, Gain] | None = None,
    *,
    also: Mapping[str, Gain] | None = None,
    accept: Accept = "gain",
    unit: str = "queries",
) -> Verdict:
    """Accept the tuned component if its gain is shown and no slice of the queries loses.

    Shown: the lower end of the gain's interval is above zero, and the gain is at least `MIN_GAIN`.
    A slice loses if its whole interval is below zero. The intervals of `evaluate.bootstrap` keep
    what is accepted without any signal at 5 %, for few queries and for whole numbers too
    (`benchmarks/gate_null.py`).

    Args:
        primary: name of the metric, for the reason.
        gain: the gain on all measured queries.
        slices: name of a group of queries → its gain, each guarded by itself.
        also: name of something else that is beaten without learning from the queries → the gain
            over it, which must be above zero by its whole interval too.
        accept: `"gain"`, or `"always"` to accept whatever was measured.
        unit: what was measured, in the plural, for the reason.
    """
    check_accept(accept)
    objection = _objection(primary, gain, slices or {}, also or {}, unit)
    if accept == "always":
        said = f"; the gate alone would have kept the base: {objection}" if objection else ""
        return Verdict(True, f'accept="always"{said}')
    if objection:
        return Verdict(False, objection)
    return Verdict(True, f"the gain is shown: {describe(primary, gain)}")


def describe(metric: str, gain: Gain) -> str:
    """`ndcg@10 +0.021 (90 % interval +0.012 to +0.030, n=668)`."""
    return (
        f"{metric} {gain.mean:+.3f} ({gain.confidence:.0%} interval "
        f"{gain.low:+.3f} to {gain.high:+.3f}, n={gain.n})"
    )


def check_accept(accept: str) -> None:
    """`accept` is one of the two words."""
    if accept not in get_args(Accept):
        raise ValueError(f"unknown accept {accept!r}; choose one of: {', '.join(get_args(Accept))}")


def _objection(
    primary: str, gain: Gain, slices: Mapping[str, Gain], also: Mapping[str, Gain], unit: str
) -> str | None:
    if gain.n < MIN_QUERIES:
        return f"no gain is shown: {gain.n} measured {unit} are fewer than {MIN_QUERIES}"
    if not gain.low > 0:  # a gain that is no number is not shown either
        return f"no gain is shown: {describe(primary, gain)}"
    if gain.mean < MIN_GAIN:
        return f"the gain is below {MIN_GAIN}: {describe(primary, gain)}"
    for name, part in also.items():
        if not part.low > 0:
            return f"no gain is shown {name}: {describe(primary, part)}"
    for name, part in slices.items():
        if part.n >= MIN_SLICE and not part.high >= 0:
            return f"{name} lose: {describe(primary, part)}"
    return None
